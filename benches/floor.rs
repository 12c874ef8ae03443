//! The floor: an HTTP handler that takes the same request and computes nothing, over the connection loop that the
//! server has, and over that of axum.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::DefaultBodyLimit;
use axum::http::header::CONTENT_TYPE;
use axum::routing::post;
use axum::serve::ListenerExt as _;
use tokio::net::TcpListener;

/// The argument that makes this program one.
pub(crate) const ROLE: &str = "--floor";

/// As long as the server's answer is, as JSON and with bytes.
const ANSWER: &str = concat!(
    r#"{"model_name":"mlp","model_version":"1","outputs":[{"name":"y","datatype":"FP32","#,
    r#""shape":[1,10],"data":[0.1234567,0.1234567,0.1234567,0.1234567,0.1234567,0.1234567,"#,
    r#"0.1234567,0.1234567,0.1234567,0.1234567]}]}"#
);

const BINARY: &str = concat!(
    r#"{"model_name":"mlp","model_version":"1","outputs":[{"name":"y","datatype":"FP32","#,
    r#""shape":[1,10],"parameters":{"binary_data_size":40}}]}"#,
    "0123456789012345678901234567890123456789"
);
const BINARY_HEAD: [(&str, &str); 2] =
    [("content-type", "application/octet-stream"), ("inference-header-content-length", "137")];

/// The handler in a process of its own, as the server is.
pub(crate) struct Floor {
    child: Child,
    /// Over the server's loop, and where it is served so too, over axum's.
    addresses: Vec<SocketAddr>,
    said: Option<BufReader<ChildStdout>>,
}

impl Floor {
    pub(crate) fn start() -> Result<Self> {
        let child = Command::new(std::env::current_exe()?)
            .arg(ROLE)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("this program can be started again")?;
        // From here on it is killed whatever fails.
        let mut floor = Self { child, addresses: Vec::new(), said: None };
        let mut said = BufReader::new(floor.child.stdout.take().context("a pipe")?);
        let mut line = String::new();
        said.read_line(&mut line)?;
        floor.addresses = line.split_whitespace().map(str::parse).collect::<Result<_, _>>()?;
        ensure!(!floor.addresses.is_empty(), "it does not say where it is");
        floor.said = Some(said);
        Ok(floor)
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.addresses[0]
    }

    /// Of the same handler as axum serves it.
    pub(crate) fn address_of_axum(&self) -> Option<SocketAddr> {
        self.addresses.get(1).copied()
    }

    /// The number of its process.
    pub(crate) fn process(&self) -> u32 {
        self.child.id()
    }

    /// Its standard input, and what it says from now on.
    pub(crate) fn pipes(&mut self) -> Option<(ChildStdin, BufReader<ChildStdout>)> {
        self.child.stdin.take().zip(self.said.take())
    }
}

impl Drop for Floor {
    fn drop(&mut self) {
        // It may have ended by itself.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Serves, and prints the addresses.
pub(crate) fn serve() -> Result<()> {
    let answer = |_body: Bytes| async { ([(CONTENT_TYPE, "application/json")], ANSWER) };
    let binary = |_body: Bytes| async { (BINARY_HEAD, BINARY) };
    let router = Router::new().route("/", post(answer)).route("/binary", post(binary));
    let router = router.layer(DefaultBodyLimit::disable());
    tokio::runtime::Builder::new_multi_thread().enable_all().build()?.block_on(async {
        let listener = || TcpListener::bind("127.0.0.1:0");
        let (ours, axums) = (listener().await?, listener().await?);
        writeln!(std::io::stdout(), "{} {}", ours.local_addr()?, axums.local_addr()?)?;
        // As the server has it: an answer does not wait for the acknowledgement of an earlier one.
        let axums = axums.tap_io(|stream| {
            stream.set_nodelay(true).ok();
        });
        tokio::spawn(axum::serve(axums, router.clone()).into_future());
        // The very loop that the server has, so that only what is inside it differs.
        let protocols = onward::http::Protocols::Http1And2;
        let served = onward::http::Served::new(Arc::new(router), protocols);
        onward::http::serve(ours, served, tokio_util::sync::CancellationToken::new()).await;
        Ok(())
    })
}
