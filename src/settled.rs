//! Files that are looked at again and again, and what they say taken once it stays the same.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::time::Duration;

/// Between two looks. What is found is taken once two looks have found the same, so that nothing half is
/// taken of a file that is being written, or of several that are replaced one by one. The files are small, and
/// reading them shows every way in which they may change: links that lead elsewhere, also those on their way,
/// and file systems that give no notice.
pub(crate) const LOOK: Duration = Duration::from_secs(1);

/// The largest file that is read, in bytes.
const LARGEST: u64 = 1 << 20;

/// What was found.
#[derive(Debug)]
pub(crate) struct Settled<T> {
    /// What was taken last, or was found to be of no use.
    taken: T,
    /// At the last look.
    seen: T,
}

impl<T: Clone + PartialEq> Settled<T> {
    /// Begins with what was taken already.
    pub(crate) fn begin(taken: T) -> Self {
        Self { seen: taken.clone(), taken }
    }

    /// Somebody else has taken this.
    pub(crate) fn took(&mut self, taken: T) {
        self.taken = taken;
    }

    /// Whether what is found now is to be taken: it is not what was taken last, and has stayed the same
    /// since the last look, or is wanted `at_once`.
    pub(crate) fn look(&mut self, found: &T, at_once: bool) -> bool {
        let is_settled = at_once || self.seen == *found;
        if self.seen != *found {
            self.seen = found.clone();
        }
        let is_new = is_settled && self.taken != *found;
        if is_new {
            self.taken = found.clone();
        }
        is_new
    }
}

/// All of a file. Blocks.
///
/// # Errors
/// What the system says, and where it has more than 1 MiB.
pub(crate) fn read(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(LARGEST + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stays_the_same_is_taken_once() {
        let mut settled = Settled::begin(Some("old"));
        let mut look = |found| settled.look(&found, false);
        assert!(!look(Some("old")) && !look(Some("old")));
        assert!(!look(Some("half")));
        assert!(!look(Some("new")), "it was another one before");
        assert!(look(Some("new")));
        assert!(!look(Some("new")));
        assert!(!look(None));
        assert!(look(None));
        assert!(!look(None), "it is told once");
        assert!(!look(Some("new")));
        assert!(look(Some("new")), "it may be told again");
        assert!(settled.look(&Some("now"), true));
        settled.took(Some("then"));
        assert!(settled.look(&Some("now"), true), "it has come back");
    }
}
