//! One connection of HTTP/1.1, on which the bytes are the test's own.

use std::net::SocketAddr;

use reqwest::Method;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::process::PATIENCE;
use super::{Answer, contract};

/// Kept for as long as the server keeps it.
#[derive(Debug)]
pub(crate) struct Connection {
    stream: TcpStream,
    read: Vec<u8>,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).await.expect("the server listens");
        Self { stream, read: Vec::new() }
    }

    /// Sends a request with a body, and checks that the answer is one that `openapi.yaml` describes.
    pub(crate) async fn post(
        &mut self,
        path: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) -> Answer {
        let length = body.len().to_string();
        let headers = [headers, &[("content-length", &length)]].concat();
        self.send(&head(path, &headers)).await;
        self.send(body).await;
        let answer = self.answer().await;
        contract::check(&Method::POST, path, &answer);
        answer
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("the connection is open");
    }

    /// Tells the server that nothing more comes.
    pub(crate) async fn finish(&mut self) {
        self.stream.shutdown().await.expect("the connection is open");
    }

    /// The next answer, which has to tell its length.
    pub(crate) async fn answer(&mut self) -> Answer {
        loop {
            if let Some(length) = whole(&self.read) {
                let rest = self.read.split_off(length);
                return Answer::parse(&std::mem::replace(&mut self.read, rest));
            }
            let read = self.read_more().await;
            assert!(read > 0, "the connection ended in {:?}", String::from_utf8_lossy(&self.read));
        }
    }

    /// Waits until the server has closed it, without another answer.
    pub(crate) async fn is_closed(&mut self) {
        while self.read_more().await > 0 {}
        assert_eq!(String::from_utf8_lossy(&self.read), "");
    }

    /// How many bytes have come; none at the end.
    async fn read_more(&mut self) -> usize {
        let reading = self.stream.read_buf(&mut self.read);
        timeout(PATIENCE, reading).await.expect("the server answers").unwrap_or_default()
    }
}

/// The head of a request.
pub(crate) fn head(path: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let lines = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n"));
    format!("POST {path} HTTP/1.1\r\nhost: localhost\r\n{}\r\n", lines.collect::<String>()).into()
}

/// How long the first answer is, if it is there as a whole.
fn whole(bytes: &[u8]) -> Option<usize> {
    let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
    let head = String::from_utf8_lossy(&bytes[..end]).to_lowercase();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
    let length = end + length.expect("it tells its length").parse::<usize>().unwrap();
    (bytes.len() >= length).then_some(length)
}
