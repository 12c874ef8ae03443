//! Writing lines whole.

use std::io;

use super::out::{Out, Patience};

/// What writes. One at a time.
pub(super) struct Pen {
    out: Box<dyn Out>,
    /// What was written last is not the end of a line.
    is_torn: bool,
}

/// A line, or what is left of it.
pub(super) struct Piece {
    bytes: Vec<u8>,
    written: usize,
    is_begun: bool,
}

impl Piece {
    pub(super) fn of(line: &[u8]) -> Self {
        Self { bytes: line.to_vec(), written: 0, is_begun: false }
    }

    pub(super) fn len(&self) -> usize {
        self.bytes.len()
    }
}

impl Pen {
    pub(super) fn new(out: impl Out + 'static) -> Self {
        Self { out: Box::new(out), is_torn: false }
    }

    /// Whether the line is written; otherwise there is no room for the moment, and the piece is what is left. A
    /// line whose end could not be written is ended before another begins.
    ///
    /// # Errors
    /// As of the system. The rest of the line is lost.
    pub(super) fn write(&mut self, piece: &mut Piece, patience: Patience) -> io::Result<bool> {
        if self.is_torn && !piece.is_begun {
            piece.bytes.insert(0, b'\n');
        }
        piece.is_begun = true;
        while let left = &piece.bytes[piece.written..]
            && !left.is_empty()
        {
            let written = self.out.write(left, patience)?;
            if written == 0 {
                return Ok(false);
            }
            self.is_torn = left[written - 1] != b'\n';
            piece.written += written;
        }
        Ok(true)
    }
}
