//! Where lines go.

use std::io;
use std::os::fd::AsFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::{Errno, write};

/// What is written at once: a pipe that is ready has room for that much.
const PIECE: usize = 4096;

/// Who waits for room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Patience {
    /// Nobody.
    Never,
    /// A thread that has nothing else to do.
    Forever,
}

/// Where lines go. It may have no room for the moment.
pub(crate) trait Out: Send + Sync {
    /// Writes from the beginning of these bytes, and tells how many it has written: none where there is no room
    /// and nobody waits for it.
    fn write(&self, bytes: &[u8], patience: Patience) -> io::Result<usize>;
}

impl<F: AsFd + Send + Sync> Out for F {
    fn write(&self, bytes: &[u8], patience: Patience) -> io::Result<usize> {
        let wait = match patience {
            Patience::Never => Some(&Timespec { tv_sec: 0, tv_nsec: 0 }),
            Patience::Forever => None,
        };
        let piece = &bytes[..bytes.len().min(PIECE)];
        loop {
            match poll(&mut [PollFd::new(self, PollFlags::OUT)], wait) {
                Ok(0) => return Ok(0),
                Err(Errno::INTR) => continue,
                // What else is wrong, the write says.
                Ok(_) | Err(_) => {}
            }
            match write(self, piece) {
                // Another program that has it too may have made it one that does not wait, and was faster.
                Err(Errno::AGAIN) if patience == Patience::Never => return Ok(0),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                written => return Ok(written?),
            }
        }
    }
}
