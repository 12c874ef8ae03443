//! The part of an answer's head that the client needs.

use std::io;

use super::http::malformed;

/// What matters of an answer's head.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head {
    pub(super) status: u16,
    pub(super) keep_alive: bool,
    /// Bytes of the head.
    pub(super) length: usize,
    /// Bytes of the whole answer, head and body.
    pub(super) answer: usize,
}

impl Head {
    /// `None` when `received` does not hold the whole head yet.
    pub(super) fn parse(received: &[u8]) -> io::Result<Option<Self>> {
        let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = str::from_utf8(&received[..end]).ok();
        let head = text.and_then(Self::from_text);
        head.map(Some).ok_or_else(|| malformed("no status or no length"))
    }

    /// From the head without the empty line that ends it; `None` without a status or a length.
    fn from_text(text: &str) -> Option<Self> {
        let mut lines = text.split("\r\n");
        let status = status_of(lines.next()?)?;
        let (mut body, mut keep_alive) = (None, true);
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            if name.eq_ignore_ascii_case("content-length") {
                body = value.trim().parse::<usize>().ok();
            } else if name.eq_ignore_ascii_case("connection") {
                keep_alive = !value.trim().eq_ignore_ascii_case("close");
            }
        }
        let length = text.len() + 4;
        let answer = body?.checked_add(length)?;
        Some(Self { status, keep_alive, length, answer })
    }
}

/// The status in a line such as `HTTP/1.1 200 OK`.
fn status_of(line: &str) -> Option<u16> {
    line.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()
}
