//! The sources keep the dependency tables of ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use crate::support::{project, text};

/// Modules by the names they may use, from the table with this head.
fn table(head: &str) -> BTreeMap<String, BTreeSet<String>> {
    let page = text("ARCHITECTURE.md");
    let rows = page.lines().skip_while(|line| !line.starts_with(head)).skip(2);
    let rows: Vec<&str> = rows.take_while(|line| line.starts_with('|')).collect();
    assert!(!rows.is_empty(), "ARCHITECTURE.md has no table {head}");
    rows.iter().map(|row| entry(row)).collect()
}

/// The first cell's name, and the names in backquotes of the second.
fn entry(row: &str) -> (String, BTreeSet<String>) {
    let cells: Vec<&str> = row.trim_matches('|').split('|').collect();
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let first: BTreeSet<String> = names(cells[0]);
    (first.into_iter().next().expect("the first cell names something"), names(cells[1]))
}

/// Every source file with the module at the crate's root that it belongs to.
fn sources() -> Vec<(String, PathBuf)> {
    fn visit(folder: &Path, files: &mut Vec<PathBuf>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() { visit(&path, files) } else { files.push(path) }
        }
    }
    let (root, mut files) = (project("src"), Vec::new());
    visit(&root, &mut files);
    let module = |path: &Path| {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        first.as_os_str().to_string_lossy().trim_end_matches(".rs").to_owned()
    };
    files.into_iter().map(|path| (module(&path), path)).collect()
}

/// The code without comments and without strings' contents.
fn code(source: &str) -> String {
    // The slashes of an address begin no comment.
    let source = source.replace("://", ":");
    let without_comments = source.lines().map(|line| line.split("//").next().unwrap_or_default());
    let joined: Vec<&str> = without_comments.collect();
    let text = joined.join("\n");
    text.split('"').step_by(2).collect::<Vec<_>>().join("\"\"")
}

/// The words that follow `prefix` in the code, also those inside its braces.
fn named_after(code: &str, prefix: &str) -> BTreeSet<String> {
    let is_word = |c: char| c.is_alphanumeric() || c == '_';
    let mut names = BTreeSet::new();
    for (at, _) in code.match_indices(prefix) {
        if code[..at].ends_with(is_word) || code[..at].ends_with("::") {
            continue;
        }
        let rest = &code[at + prefix.len()..];
        let heads: Vec<&str> = match rest.strip_prefix('{') {
            None => vec![rest],
            Some(group) => top_level(group),
        };
        for head in heads {
            let head = head.trim_start();
            names.insert(head[..head.find(|c| !is_word(c)).unwrap_or(head.len())].to_owned());
        }
    }
    names
}

/// The parts of `a, b::{c, d}, e}` that are separated by commas outside inner braces.
fn top_level(group: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0, 0, Vec::new());
    for (at, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => {
                parts.push(&group[start..at]);
                break;
            }
            '}' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&group[start..at]);
                start = at + 1;
            }
            _ => {}
        }
    }
    parts.into_iter().filter(|part| !part.trim().is_empty()).collect()
}

#[test]
fn modules_use_only_what_the_table_allows() {
    let allowed = table("| module | may use |");
    let modules: BTreeSet<String> = sources().into_iter().map(|(module, _)| module).collect();
    let listed: BTreeSet<String> = allowed.keys().cloned().collect();
    let helpers = BTreeSet::from(["lib".to_owned(), "causes".to_owned()]);
    assert_eq!(modules, listed.union(&helpers).cloned().collect(), "the table lists every module");
    let mut broken = Vec::new();
    for (module, path) in sources().into_iter().filter(|(module, _)| module != "lib") {
        let code = code(&fs::read_to_string(&path).unwrap());
        let mut used = named_after(&code, "crate::");
        used.extend(named_after(&code, "onward::"));
        let mut may: BTreeSet<String> = allowed.get(&module).cloned().unwrap_or_default();
        may.extend([module.clone(), "causes".to_owned()]);
        let wrong: Vec<&String> = used.difference(&may).collect();
        if !wrong.is_empty() {
            broken.push(format!("{}: {wrong:?}", path.display()));
        }
    }
    assert!(broken.is_empty(), "uses that ARCHITECTURE.md does not allow:\n{}", broken.join("\n"));
}

#[test]
fn crates_are_named_only_where_the_table_says() {
    let homes = table("| crate | used only in |");
    let mut broken = Vec::new();
    for (module, path) in sources() {
        let code = code(&fs::read_to_string(&path).unwrap());
        for (name, modules) in &homes {
            let ident = name.replace('-', "_");
            let named = !named_after(&code, &format!("{ident}::")).is_empty()
                || code.contains(&format!("use {ident};"));
            if named && !modules.contains(&module) {
                broken.push(format!("{} names {name}", path.display()));
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn the_tables_cover_what_the_core_must_not_know() {
    let allowed = table("| module | may use |");
    let core = ["lifecycle", "inference", "model"];
    let adapters = ["http", "onnx", "repository", "metrics", "config", "telemetry", "app"];
    for module in core {
        assert!(adapters.iter().all(|adapter| !allowed[module].contains(*adapter)), "{module}");
    }
    let homes = table("| crate | used only in |");
    for name in ["axum", "hyper", "tower", "ort", "prometheus", "serde", "serde_json"] {
        let modules = homes.get(name).unwrap_or_else(|| panic!("no row for {name}"));
        assert!(
            core.iter().all(|module| !modules.contains(*module)),
            "{name} is allowed in the core"
        );
    }
    for adapter in ["http", "onnx", "repository", "metrics"] {
        let others = adapters.iter().filter(|other| **other != adapter);
        assert!(others.clone().all(|other| !allowed[adapter].contains(*other)), "{adapter}");
    }
}

#[test]
fn the_scan_sees_what_it_should() {
    let seen = |source: &str| named_after(&code(source), "crate::");
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(seen("use crate::http::Answer;"), names(&["http"]));
    assert_eq!(seen("use crate::{http, model::{A, B}};"), names(&["http", "model"]));
    assert_eq!(seen("let x = crate::onnx::f();"), names(&["onnx"]));
    assert_eq!(seen("// use crate::http;\nlet x = \"crate::http\";"), BTreeSet::new());
    assert!(!named_after("pub use ort::Session;", "ort::").is_empty());
    assert!(named_after("pub use sort::Session; use super::ort::x;", "ort::").is_empty());
}
