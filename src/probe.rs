//! `onward health`: one question to a server that runs.

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream};
use std::time::Duration;

use onward::config::ServerConfig;
use onward::tls::{TlsFiles, over_tls};

/// How long each step of the question may take.
const PATIENCE: Duration = Duration::from_secs(2);

/// Asks the server of this configuration for `path`, over TLS where it speaks that.
///
/// # Errors
/// What the server answered instead, or why it did not.
pub(crate) fn ask(server: &ServerConfig, path: &str) -> Result<(), String> {
    let address = reachable(server.probed());
    let answer = exchange(address, path, server.tls().as_ref());
    let answer = answer.map_err(|error| format!("{address}: {error:#}"))?;
    let status = answer.lines().next().unwrap_or_default();
    if status.split(' ').nth(1) == Some("200") {
        return Ok(());
    }
    let body = answer.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    Err(format!("{address}: {status}: {body}"))
}

fn exchange(
    address: SocketAddr,
    path: &str,
    tls: Option<&TlsFiles>,
) -> Result<String, anyhow::Error> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let question =
        format!("GET {path}?verbose HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n\r\n");
    Ok(match tls {
        None => said(stream, &question)?,
        Some(files) => said(over_tls(files, stream)?, &question)?,
    })
}

fn said(mut stream: impl Read + Write, question: &str) -> io::Result<String> {
    stream.write_all(question.as_bytes())?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer)?;
    Ok(answer)
}

/// The address by which this machine reaches a server that listens on all of them.
fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_on_all_addresses_is_asked_on_loopback() {
        let check = |listen: &str, expected: &str| {
            assert_eq!(reachable(listen.parse().unwrap()).to_string(), expected);
        };
        check("0.0.0.0:8000", "127.0.0.1:8000");
        check("[::]:8000", "[::1]:8000");
        check("10.0.0.1:80", "10.0.0.1:80");
    }
}
