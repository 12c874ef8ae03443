//! Nobody begins to connect any more.

use std::io;

use tokio::net::TcpListener;

/// Has the system begin to connect nobody else to `listener`; whoever it is connecting already goes on. Who is turned
/// away asks again after a second, and is refused if the listener is closed by then.
///
/// A listener that is closed without this resets whom the system has connected between the last look at who is there and
/// its end, and who is not yet there in whole: they have sent their request by then, and cannot tell whether it was
/// carried out.
///
/// # Errors
///
/// Where the system has no filters on sockets.
#[cfg(target_os = "linux")]
pub(super) fn turn_away(listener: &TcpListener) -> io::Result<()> {
    use socket2::{SockFilter, SockRef};

    // Classic BPF, <https://docs.kernel.org/networking/filter.html>: a byte of the segment, an AND, a jump if it equals,
    // and how much of the segment is let through.
    const LOAD_BYTE: u16 = 0x30;
    const AND: u16 = 0x54;
    const JUMP_IF_EQUAL: u16 = 0x15;
    const RETURN: u16 = 0x06;
    /// Of the head of TCP (RFC 9293, section 3.1): where its flags are, and two of them.
    const FLAGS: u32 = 13;
    const SYN: u32 = 0x02;
    const ACK: u32 = 0x10;
    let filter = [
        SockFilter::new(LOAD_BYTE, 0, 0, FLAGS),
        SockFilter::new(AND, 0, 0, SYN | ACK),
        SockFilter::new(JUMP_IF_EQUAL, 0, 1, SYN),
        SockFilter::new(RETURN, 0, 0, 0),
        SockFilter::new(RETURN, 0, 0, u32::MAX),
    ];
    SockRef::from(listener).attach_filter(&filter)
}

#[cfg(not(target_os = "linux"))]
pub(super) fn turn_away(_listener: &TcpListener) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}
