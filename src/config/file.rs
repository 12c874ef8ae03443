//! What the file says, key by key.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::layers::Said;
use super::mistake::{Mistake, Origin};
use super::nearest;
use super::settings::Setting;
use super::tree::{self, Key, Node};
use super::value::Raw;

/// The largest file that is read, in bytes.
const LARGEST: usize = 1 << 20;

/// What a file says, and what is wrong with how it says it.
pub(super) fn read<'a>(path: &Path, table: &'a [Setting]) -> (Vec<Said<'a>>, Vec<Mistake>) {
    let mut file = Sections { path, table, said: Vec::new(), mistakes: Vec::new() };
    match text(path).and_then(|text| tree::read(&text)) {
        Ok(root) => file.root(root),
        Err(broken) => file.mistake(broken.line, None, broken.problem),
    }
    (file.said, file.mistakes)
}

fn text(path: &Path) -> Result<String, tree::Broken> {
    let broken = |line, problem| tree::Broken { line, problem };
    let mut bytes = Vec::new();
    // One byte more than is allowed tells a file that is too large, also one without an end.
    let limit = u64::try_from(LARGEST).map_or(u64::MAX, |largest| largest + 1);
    let read = File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes));
    read.map_err(|error| broken(None, format!("cannot be read: {error}")))?;
    if bytes.len() > LARGEST {
        return Err(broken(None, format!("is larger than {LARGEST} bytes")));
    }
    String::from_utf8(bytes).map_err(|error| {
        let sound = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let breaks = sound.split(|byte| *byte == b'\n').count();
        broken(u64::try_from(breaks).ok(), "is not valid UTF-8 here".to_owned())
    })
}

struct Sections<'p, 'a> {
    path: &'p Path,
    table: &'a [Setting],
    said: Vec<Said<'a>>,
    mistakes: Vec<Mistake>,
}

impl Sections<'_, '_> {
    fn root(&mut self, root: Node) {
        let sections = match root {
            Node::Null => return,
            Node::Map(sections) => sections,
            Node::Scalar(_) | Node::List(_) => {
                return self.mistake(None, None, "has to be made of sections, such as server");
            }
        };
        for (line, name, content) in self.unique("", sections) {
            if self.table.iter().any(|setting| setting.names().0 == name) {
                self.section(line, &name, content);
            } else {
                self.unknown_section(line, name);
            }
        }
    }

    fn section(&mut self, line: u64, section: &str, content: Node) {
        let settings = match content {
            // A section whose lines are all comments.
            Node::Null => return,
            Node::Map(settings) => settings,
            Node::Scalar(_) | Node::List(_) => {
                let first = self.table.iter().find(|setting| setting.names().0 == section);
                let example = first.map(|setting| setting.names().1).unwrap_or_default();
                let problem = format!("is a section, with settings such as {example} in it");
                return self.mistake(Some(line), Some(section.to_owned()), problem);
            }
        };
        for (line, name, value) in self.unique(section, settings) {
            let key = format!("{section}.{name}");
            let Some(setting) = self.table.iter().find(|setting| setting.key == key) else {
                let near = nearest::key(&key, self.table);
                self.mistake(Some(line), Some(key), suggest("unknown setting", near));
                continue;
            };
            match raw(value) {
                Ok(raw) => {
                    let origin = self.origin(Some(line));
                    self.said.push(Said { setting, raw, origin });
                }
                Err(problem) => self.mistake(Some(line), Some(key), problem),
            }
        }
    }

    /// The entries with a name that comes for the first time.
    fn unique(&mut self, section: &str, entries: Vec<(Key, Node)>) -> Vec<(u64, String, Node)> {
        let mut lines = BTreeMap::new();
        let mut unique = Vec::new();
        for (Key { name, line }, node) in entries {
            let place = (!section.is_empty()).then(|| section.to_owned());
            let Some(name) = name else {
                self.mistake(Some(line), place, "a key has to be a name");
                continue;
            };
            if let Some(first) = lines.get(&name) {
                let key = place.map_or_else(|| name.clone(), |section| format!("{section}.{name}"));
                self.mistake(
                    Some(line),
                    Some(key),
                    format!("is there twice, first in line {first}"),
                );
                continue;
            }
            lines.insert(name.clone(), line);
            unique.push((line, name, node));
        }
        unique
    }

    fn unknown_section(&mut self, line: u64, name: String) {
        let dotted = self.table.iter().find(|setting| setting.key == name);
        let problem = if let Some((section, inner)) = dotted.map(Setting::names) {
            format!("has to be written as {inner} in the section {section}")
        } else {
            let near = nearest::section(&name, self.table);
            suggest("unknown section", near.or_else(|| nearest::key(&name, self.table)))
        };
        self.mistake(Some(line), Some(name), problem);
    }

    fn origin(&self, line: Option<u64>) -> Origin {
        Origin::File { path: self.path.to_owned(), line }
    }

    fn mistake(&mut self, line: Option<u64>, key: Option<String>, problem: impl Into<String>) {
        let origin = self.origin(line);
        self.mistakes.push(Mistake { origin, key, problem: problem.into() });
    }
}

fn raw(node: Node) -> Result<Raw, &'static str> {
    let scalar = |item| match item {
        Node::Scalar(text) => Ok(text),
        Node::Null => Err("an item of the list is empty"),
        Node::List(_) | Node::Map(_) => Err("an item of the list is not a single value"),
    };
    match node {
        Node::Scalar(text) => Ok(Raw::One(text)),
        Node::List(items) => items.into_iter().map(scalar).collect::<Result<_, _>>().map(Raw::Many),
        Node::Null => Err("has no value; leave the line out for the default"),
        Node::Map(_) => Err("is a setting and takes a value, not a section"),
    }
}

/// What is wrong, and what was probably meant.
pub(super) fn suggest(problem: &str, near: Option<&str>) -> String {
    near.map_or_else(|| problem.to_owned(), |near| format!("{problem}, did you mean {near}?"))
}
