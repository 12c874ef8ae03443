//! Lines that are written together.

use std::io;

/// Room that is kept for the next lines, in bytes.
const KEPT: usize = 64 * 1024;

/// Whole lines.
#[derive(Default)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    /// How many of them are notes that lines were lost.
    notes: u64,
}

/// Where lines go.
pub(super) struct Out {
    to: Box<dyn io::Write + Send>,
    /// What was written last is not the end of a line.
    is_torn: bool,
}

/// What was not written, and why.
#[derive(Debug)]
pub(super) struct Failure {
    pub(super) lines: u64,
    pub(super) notes: u64,
    pub(super) error: io::Error,
}

impl Batch {
    pub(super) const fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// In bytes.
    pub(super) const fn len(&self) -> usize {
        self.bytes.len()
    }

    pub(super) fn add(&mut self, line: &[u8], is_note: bool) {
        self.bytes.extend_from_slice(line);
        self.notes += u64::from(is_note);
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(KEPT);
        self.notes = 0;
    }
}

impl Out {
    pub(super) fn new(to: impl io::Write + Send + 'static) -> Self {
        Self { to: Box::new(to), is_torn: false }
    }

    /// Writes them, and waits until there is room. A line whose end could not be written is ended before another
    /// begins.
    pub(super) fn write(&mut self, batch: &Batch) -> Result<(), Failure> {
        let mut left = batch.bytes.as_slice();
        self.end_line().and_then(|()| self.write_all(&mut left)).map_err(|error| {
            let lines = left.split_inclusive(|byte| *byte == b'\n').count();
            let lines = u64::try_from(lines).unwrap_or(u64::MAX);
            let notes = batch.notes.min(lines);
            Failure { lines: lines - notes, notes, error }
        })
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.is_torn { self.write_all(&mut b"\n".as_slice()) } else { Ok(()) }
    }

    fn write_all(&mut self, left: &mut &[u8]) -> io::Result<()> {
        while !left.is_empty() {
            match self.to.write(left) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => {
                    self.is_torn = left[written - 1] != b'\n';
                    *left = &left[written..];
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
