//! The scripts that write the figures of benchmarks into `docs/performance.md`, and hold new ones to them.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{project, text};

/// What the script says of these arguments.
fn script(arguments: &[&str], docs: &Path) -> Output {
    let mut command = Command::new("python3");
    command.arg("-B").arg(project("scripts/performance.py")).args(arguments);
    command.arg("--docs").arg(docs).output().expect("there is a python3")
}

/// A run with these ratios.
fn run(ratios: &Value) -> Value {
    json!({
        "bench": "grid", "taken": 0, "machine": "a machine", "command": "a command", "failures": 0,
        "notes": ["A note."],
        "tables": [{ "title": "a table", "columns": ["", "x"], "rows": [["row", "1"]] }],
        "plots": [{
            "name": "a-plot", "title": "a < plot", "unit": "s", "places": ["1", "8"],
            "series": [{ "name": "s", "values": [1.5, null] }, { "name": "none", "values": [null, null] }],
        }],
        "ratios": ratios,
    })
}

/// A folder with a page and what a run has found before.
fn docs(ratios: &Value) -> TempDir {
    let docs = TempDir::new().unwrap();
    let page = "# Page\n\n<!-- grid -->\n\nold\n\n<!-- /grid -->\n\nrest\n";
    fs::write(docs.path().join("performance.md"), page).unwrap();
    let file = new(&docs, &run(ratios));
    let output = script(&["write", file.to_str().unwrap()], docs.path());
    assert!(output.status.success(), "{output:?}");
    docs
}

/// A file of what a run has found.
fn new(docs: &TempDir, run: &Value) -> PathBuf {
    let file = docs.path().join("new.json");
    fs::write(&file, run.to_string()).unwrap();
    file
}

#[track_caller]
fn guarded(ratios: &Value, expected: i32, said: &str) {
    let docs = docs(&json!({ "a": 0.5, "b": 2.0 }));
    let file = new(&docs, &run(ratios));
    let output = script(&["guard", file.to_str().unwrap()], docs.path());
    assert_eq!(output.status.code(), Some(expected), "{output:?}");
    let told = [output.stdout, output.stderr].concat();
    let told = String::from_utf8(told).unwrap();
    assert!(told.contains(said), "{told}");
}

#[test]
fn a_ratio_that_is_worse_is_a_regression() {
    guarded(&json!({ "a": 0.5, "b": 2.0 }), 0, "2 ratios compared");
    guarded(&json!({ "a": 0.44, "b": 9.0 }), 0, "2 ratios compared");
    guarded(&json!({ "a": 0.40, "b": 9.0 }), 1, "regression: a: 0.4000, and was 0.5000");
    guarded(&json!({ "a": 0.5, "c": 0.1 }), 0, "1 ratios compared");
    guarded(&json!({ "c": 0.1 }), 1, "no ratio in common");
}

#[test]
fn figures_are_put_into_their_section_and_nowhere_else() {
    let docs = docs(&json!({}));
    let page = fs::read_to_string(docs.path().join("performance.md")).unwrap();
    let expected = "# Page\n\n<!-- grid -->\n\nMeasured on 1970-01-01 with a machine, by `a command`.\n\n\
                    A note.\n\n![a < plot](performance/a-plot.svg)\n\n**a table**\n\n|  | x |\n| :-- | --: |\n\
                    | row | 1 |\n\nFailed requests: 0.\n\n<!-- /grid -->\n\nrest\n";
    assert_eq!(page, expected);
    let plot = fs::read_to_string(docs.path().join("performance/a-plot.svg")).unwrap();
    assert!(plot.starts_with("<svg ") && plot.contains("a &lt; plot (s)"), "{plot}");
}

/// Two samples, the innermost frame first.
const STACKS: &str = "\
tokio-rt-worker
\t  163959 __memmove_evex (/usr/lib/libc.so.6)
\t  967b37 <f32 as onward::json_tensors::element::JsonElement>::read (/srv/onward)
\t  c6ca31 onward::http::infer::request::Reading::field::{{closure}} (/srv/onward)
\tffffffff [unknown] ([unknown])

tokio-rt-worker
\t  e01560 [unknown] (/srv/libonnxruntime.so)
\t  eeee08 ort::session::run::run_inner (/srv/onward)

";

#[test]
fn a_sample_belongs_to_the_innermost_part_of_its_stack() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("profile.json");
    let mut profile = run(&json!({}));
    profile["tables"][0]["rows"] = json!([["in the program", "6.0"], ["in the kernel", "4.0"]]);
    fs::write(&file, profile.to_string()).unwrap();
    fs::write(folder.path().join("profile.stacks"), STACKS).unwrap();
    let script = project("scripts/stacks.py");
    let output = Command::new("python3").arg("-B").arg(script).arg(&file).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let profile: Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let expected = [
        json!(["JSON of the request", "50.0%", "5.0"]),
        json!(["ONNX Runtime: the run", "50.0%", "5.0"]),
    ];
    assert_eq!(profile["tables"][1]["rows"], json!(expected));
    let stacks = &profile["flames"][0]["stacks"];
    assert_eq!(stacks["ort::session::run::run_inner;libonnxruntime.so"], 1);
    let reads = "onward::http::infer::request::Reading::field;\
                 onward::json_tensors::element::JsonElement::read;__memmove_evex";
    assert_eq!(stacks[reads], 1, "{stacks}");
}

/// So that nobody types a figure.
#[test]
fn the_page_is_what_the_script_writes() {
    let docs = TempDir::new().unwrap();
    fs::write(docs.path().join("performance.md"), text("docs/performance.md")).unwrap();
    let kept = fs::read_dir(project("docs/performance")).unwrap();
    let kept: Vec<PathBuf> = kept.map(|entry| entry.unwrap().path()).collect();
    let is = |path: &&PathBuf, extension: &str| path.extension().is_some_and(|it| it == extension);
    let runs: Vec<&str> =
        kept.iter().filter(|path| is(path, "json")).map(|path| path.to_str().unwrap()).collect();
    let output = script(&[&["write"], &runs[..]].concat(), docs.path());
    assert!(output.status.success(), "{output:?}");
    let written = fs::read_to_string(docs.path().join("performance.md")).unwrap();
    assert!(written == text("docs/performance.md"), "`make bench-table` writes the page anew");
    for path in &kept {
        let name = Path::new("performance").join(path.file_name().unwrap());
        let written = fs::read(docs.path().join(&name)).unwrap_or_default();
        assert!(written == fs::read(path).unwrap(), "{} is not the script's", name.display());
    }
}
