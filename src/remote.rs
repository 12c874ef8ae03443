//! `onward models`, `onward operations`, `onward bench`: a server that runs, asked and told what to do.

mod args;
mod bench;
mod client;
mod order;
mod progress;
mod show;
mod table;

use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::Value;

pub(crate) use args::{commands, read};
use bench::BenchError;
pub(crate) use client::{RemoteError, Server};
use order::Order;

/// What is to be asked of which server, and how the answer is told.
pub(crate) struct Request {
    server: Server,
    order: Order,
    style: Style,
}

/// How an answer is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Style {
    /// As the server gave it, for programs.
    json: bool,
    /// Whether the end of what was begun is waited for.
    wait: bool,
}

/// Why there is no answer to tell.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The server, or the way there.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// Nothing was measured.
    #[error(transparent)]
    Bench(#[from] BenchError),
    /// What was begun has failed, or was cancelled.
    #[error("{0}")]
    Operation(String),
    /// Standard output.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The way to the server, or what it said.
    pub(crate) fn remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Remote(error) | Self::Bench(BenchError::Remote(error)) => Some(error),
            _ => None,
        }
    }
}

/// Asks, waits where that is wanted, and tells.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn run(request: Request) -> Result<(), Failure> {
    let Request { server, order, style } = request;
    match order {
        Order::Ask(question) => {
            let answer = server.get(&question.path).await?;
            let text = (question.show)(&answer, SystemTime::now());
            tell(style, &answer, &text)
        }
        Order::Change(change) => {
            let begun = server.send(&change).await?;
            if !style.wait {
                let text = format!("begun: operation {}\n", show::text(&begun, "/id"));
                return tell(style, &begun, &text);
            }
            let ended = progress::follow(&server, begun, io::stderr().lock()).await?;
            tell(style, &ended, &show::outcome(&ended))?;
            progress::verdict(&ended, change.end).map_err(Failure::Operation)
        }
        Order::Bench(plan) => {
            let measured = bench::run(&server, plan).await?;
            tell(style, &measured.json(), &measured.text())?;
            measured.failure().map_or(Ok(()), |failure| Err(Failure::Operation(failure)))
        }
    }
}

fn tell(style: Style, answer: &Value, text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written =
        if style.json { writeln!(out, "{answer:#}") } else { out.write_all(text.as_bytes()) };
    match written {
        // Who has read enough closes the pipe.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
