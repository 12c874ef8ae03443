//! Which files a graph refers to: those beside it that hold its weights.
//!
//! The one reading of it, for those who hash the files and for those who give them to the engine.
//! Only what leads to a reference is read of a graph; all else, such as weights, is skipped.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufRead, BufReader, ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// How deep graphs may be nested, as messages. It is what readers of protocol buffers allow.
const DEEPEST: usize = 100;

/// The longest reference, in bytes: what a path may have.
const LONGEST: u64 = 4096;

/// The files that a graph refers to, as it spells them. Of one that is damaged, what was found before
/// that: what is wrong with it is for the engine to tell.
///
/// # Errors
/// What the system said.
pub(crate) fn of_graph(graph: &Path) -> io::Result<BTreeSet<PathBuf>> {
    references(graph).map(|found| found.into_keys().collect())
}

/// What of a graph refers to a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Holder {
    /// Initializers of the graph itself, and nothing else.
    Initializer,
    /// Something inside it, such as a graph of an `If`.
    Inner,
}

/// [`of_graph`], and what refers to each.
///
/// # Errors
/// What the system said.
pub(crate) fn references(graph: &Path) -> io::Result<BTreeMap<PathBuf, Holder>> {
    references_in(File::open(graph)?)
}

fn references_in(mut graph: impl Read + Seek) -> io::Result<BTreeMap<PathBuf, Holder>> {
    let length = graph.seek(SeekFrom::End(0))?;
    graph.rewind()?;
    let file = BufReader::new(graph);
    let mut reader = Reader { file, at: 0, holder: Holder::Initializer, found: BTreeMap::new() };
    match reader.message(Message::Model, length, DEEPEST) {
        Err(error) if !is_damage(&error) => Err(error),
        _ => Ok(reader.found),
    }
}

/// Whether a reference, by its text, leads to something below the graph's folder that is not hidden:
/// hidden files belong to no version, and are not a part of its digest.
pub(crate) fn is_inside(reference: &Path) -> bool {
    let inside = |part| match part {
        Component::Normal(name) => !name.as_bytes().starts_with(b"."),
        Component::CurDir => true,
        _ => false,
    };
    reference.file_name().is_some() && reference.components().all(inside)
}

/// The messages of `onnx.proto` that references are in.
#[derive(Debug, Clone, Copy)]
enum Message {
    Model,
    Graph,
    Function,
    Node,
    Attribute,
    SparseTensor,
    Tensor,
}

impl Message {
    /// What a field of it is, where that leads to references.
    const fn field(self, number: u64) -> Option<Self> {
        match (self, number) {
            (Self::Model, 7) | (Self::Attribute, 6 | 11) => Some(Self::Graph),
            (Self::Model, 25) => Some(Self::Function),
            (Self::Graph, 1) | (Self::Function, 7) => Some(Self::Node),
            (Self::Node, 5) | (Self::Function, 11) => Some(Self::Attribute),
            (Self::Graph, 15) | (Self::Attribute, 22 | 23) => Some(Self::SparseTensor),
            (Self::Graph, 5) | (Self::SparseTensor, 1 | 2) | (Self::Attribute, 5 | 10) => {
                Some(Self::Tensor)
            }
            _ => None,
        }
    }
}

/// The value of a field.
enum Value {
    Number(u64),
    /// So many bytes, which come next.
    Bytes(u64),
}

/// What a tensor says of where its data is.
#[derive(Default)]
struct Place {
    is_external: bool,
    location: Option<PathBuf>,
}

struct Reader<F> {
    file: BufReader<F>,
    at: u64,
    /// What of the graph is being read.
    holder: Holder,
    found: BTreeMap<PathBuf, Holder>,
}

impl<F: Read + Seek> Reader<F> {
    /// Reads a message that ends at `end`, down to `depth` more inside it.
    fn message(&mut self, message: Message, end: u64, depth: usize) -> io::Result<()> {
        let depth = depth.checked_sub(1).ok_or_else(damaged)?;
        if matches!(message, Message::Tensor) {
            return self.tensor(end);
        }
        while let Some((number, value)) = self.field(end)? {
            let Value::Bytes(length) = value else { continue };
            match message.field(number) {
                Some(inner) => self.inside(message, inner, |reader| {
                    reader.message(inner, reader.at + length, depth)
                })?,
                None => self.skip(length)?,
            }
        }
        Ok(())
    }

    /// Reads something, noting whether it belongs to the graph itself.
    fn inside<T>(
        &mut self,
        outer: Message,
        inner: Message,
        read: impl FnOnce(&mut Self) -> T,
    ) -> T {
        let before = self.holder;
        let is_own = matches!(
            (outer, inner),
            (Message::Model, Message::Graph) | (Message::Graph, Message::Tensor)
        );
        self.holder = if is_own { before } else { Holder::Inner };
        let result = read(self);
        self.holder = before;
        result
    }

    fn tensor(&mut self, end: u64) -> io::Result<()> {
        let mut place = Place::default();
        while let Some((number, value)) = self.field(end)? {
            match (number, value) {
                (14, Value::Number(location)) => place.is_external = location == 1,
                (13, Value::Bytes(length)) => {
                    place.location = self.location(self.at + length)?.or(place.location);
                }
                (_, Value::Bytes(length)) => self.skip(length)?,
                (_, Value::Number(_)) => {}
            }
        }
        if let Some(location) = place.location.filter(|_| place.is_external) {
            let holder = self.found.get(&location).map_or(self.holder, |it| self.holder.max(*it));
            self.found.insert(location, holder);
        }
        Ok(())
    }

    /// What an entry with the key `location` says.
    fn location(&mut self, end: u64) -> io::Result<Option<PathBuf>> {
        let (mut is_location, mut text) = (false, Vec::new());
        while let Some((number, value)) = self.field(end)? {
            match (number, value) {
                (1, Value::Bytes(length)) => is_location = self.bytes(length)? == b"location",
                (2, Value::Bytes(length)) => text = self.bytes(length)?,
                (_, Value::Bytes(length)) => self.skip(length)?,
                (_, Value::Number(_)) => {}
            }
        }
        Ok(is_location.then(|| PathBuf::from(OsStr::from_bytes(&text))))
    }

    /// The next field's number and value; `None` at the end of its message.
    fn field(&mut self, end: u64) -> io::Result<Option<(u64, Value)>> {
        if self.at == end {
            return Ok(None);
        }
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => Value::Bytes(8),
            2 => Value::Bytes(self.varint()?),
            5 => Value::Bytes(4),
            _ => return Err(damaged()),
        };
        let length = if let Value::Bytes(length) = value { length } else { 0 };
        let is_within = self.at.checked_add(length).is_some_and(|after| after <= end);
        if is_within { Ok(Some((key >> 3, value))) } else { Err(damaged()) }
    }

    fn varint(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let &byte = self.file.fill_buf()?.first().ok_or_else(damaged)?;
            self.file.consume(1);
            self.at += 1;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(damaged())
    }

    fn bytes(&mut self, length: u64) -> io::Result<Vec<u8>> {
        if length > LONGEST {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        (&mut self.file).take(length).read_to_end(&mut bytes)?;
        self.at += length;
        Ok(bytes)
    }

    fn skip(&mut self, length: u64) -> io::Result<()> {
        self.file.seek_relative(i64::try_from(length).map_err(|_| damaged())?)?;
        self.at += length;
        Ok(())
    }
}

fn damaged() -> io::Error {
    ErrorKind::InvalidData.into()
}

fn is_damage(error: &io::Error) -> bool {
    error.kind() == ErrorKind::InvalidData
}

#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing {
    //! Graphs, fuzzed.

    use std::io::Cursor;
    use std::os::unix::ffi::OsStrExt;

    use super::{LONGEST, is_inside, references_in};

    /// A graph: what it refers to is written in it.
    pub fn graph_references(graph: &[u8]) {
        let found = references_in(Cursor::new(graph)).expect("memory can be read");
        for path in found.keys() {
            let text = path.as_os_str().as_bytes();
            assert!(text.is_empty() || graph.windows(text.len()).any(|part| part == text));
            assert!(text.len() as u64 <= LONGEST, "{}", path.display());
            assert!(!is_inside(path) || !(path.is_absolute() || text.starts_with(b"..")));
        }
    }
}

/// Graphs for tests.
#[cfg(test)]
#[path = "../tests/it/support/onnx.rs"]
pub(crate) mod onnx;

#[cfg(test)]
mod tests {
    use std::fs;

    use super::onnx::{Attribute, Graph, Node, Tensor, add_constant, add_external, slow};
    use super::*;

    #[track_caller]
    fn refers(graph: &[u8], expected: &[&str]) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.onnx");
        fs::write(&file, graph).unwrap();
        let found = of_graph(&file).unwrap();
        assert_eq!(found, expected.iter().map(PathBuf::from).collect());
    }

    /// A graph that loops over another one.
    fn around(inner: Graph) -> Graph {
        let node = Node::new("Loop", &["n", "", "x"], &["y"]);
        Graph::new("outer").node(&node.attribute("body", &Attribute::Graph(inner)))
    }

    #[test]
    fn references_are_found_as_they_are_spelled_and_nothing_else_is() {
        refers(&add_constant(1.0), &[]);
        refers(&slow(3), &[]);
        refers(&add_external("weights.bin"), &["weights.bin"]);
        refers(&add_external("./data/weights.bin"), &["./data/weights.bin"]);
        refers(&add_external("../../secret"), &["../../secret"]);
        let two = Graph::new("two")
            .initializer("a", &Tensor::external(&[1], "a.bin"))
            .initializer("weights.bin", &Tensor::floats(&[1], &[1.0]))
            .initializer("b", &Tensor::external(&[1], "b.bin"))
            .initializer("again", &Tensor::external(&[1], "a.bin"));
        refers(&two.into_model(), &["a.bin", "b.bin"]);
    }

    #[test]
    fn inner_graphs_and_the_values_of_attributes_are_looked_into() {
        let inner = Graph::new("inner").initializer("a", &Tensor::external(&[1], "a.bin"));
        refers(&around(around(inner)).into_model(), &["a.bin"]);
        let constant = Node::new("Constant", &[], &["y"]);
        let value = Attribute::Tensor(Tensor::external(&[1], "b.bin"));
        let graph = Graph::new("constant").node(&constant.attribute("value", &value));
        refers(&graph.into_model(), &["b.bin"]);
    }

    #[test]
    fn what_refers_is_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("model.onnx");
        let external = |location| Tensor::external(&[1], location);
        let inner = Graph::new("inner").initializer("a", &external("a.bin"));
        let inner = inner.initializer("b", &external("b.bin"));
        let outer = around(inner).initializer("x", &external("a.bin"));
        fs::write(&file, outer.initializer("y", &external("c.bin")).into_model()).unwrap();
        let found = references(&file).unwrap();
        let told: Vec<_> = found.iter().map(|(path, by)| (path.to_str().unwrap(), *by)).collect();
        let expected =
            [("a.bin", Holder::Inner), ("b.bin", Holder::Inner), ("c.bin", Holder::Initializer)];
        assert_eq!(told, expected);
    }

    #[test]
    fn what_is_damaged_refers_to_what_comes_before_the_damage() {
        refers(b"", &[]);
        refers(b"just some text\n", &[]);
        let graph = add_external("weights.bin");
        for length in 0..graph.len() {
            let folder = tempfile::tempdir().unwrap();
            let file = folder.path().join("model.onnx");
            fs::write(&file, &graph[..length]).unwrap();
            assert!(of_graph(&file).unwrap().len() <= 1);
        }
        // A length that leads behind the end, and one that no file has.
        refers(&[0x3a, 0x7f], &[]);
        refers(&[0x3a, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01], &[]);
        let inner = Graph::new("inner").initializer("a", &Tensor::external(&[1], "a.bin"));
        refers(&(0..100).fold(inner, |graph, _| around(graph)).into_model(), &[]);
    }

    #[test]
    fn a_reference_is_inside_by_its_text() {
        for inside in ["weights.bin", "./weights.bin", "data/weights.bin"] {
            assert!(is_inside(Path::new(inside)), "{inside}");
        }
        for outside in [
            ".hidden",
            "a/.hidden",
            "",
            ".",
            "..",
            "../weights.bin",
            "data/../../x",
            "/etc/hostname",
        ] {
            assert!(!is_inside(Path::new(outside)), "{outside}");
        }
    }
}
