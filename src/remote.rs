//! `onward models`, `onward operations`, `onward bench`: a server that runs, asked and told what to do.

mod args;
mod bench;
mod client;
mod commands;
mod order;
mod progress;
mod show;
mod table;

use std::io::{self, Write};
use std::time::SystemTime;

use serde_json::Value;

pub(crate) use args::read;
use bench::BenchError;
pub(crate) use client::RemoteError;
use client::Server;
pub(crate) use commands::commands;
use order::Order;

use crate::terminal;

/// What is to be asked of which server, and how the answer is told.
pub(crate) struct Request {
    server: Server,
    order: Order,
    /// Whether it is told as the server gave it, for programs.
    json: bool,
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
    /// What became of what was begun is not known.
    #[error("operation {id} may go on, and `onward operations ls {id}` tells")]
    Lost {
        /// The operation.
        id: String,
        /// Why it cannot be followed.
        source: RemoteError,
    },
    /// Standard output.
    #[error("standard output cannot be written to")]
    Output(#[from] io::Error),
}

impl Failure {
    /// The way to the server, or what it said.
    pub(crate) fn remote(&self) -> Option<&RemoteError> {
        match self {
            Self::Remote(error)
            | Self::Bench(BenchError::Remote(error))
            | Self::Lost { source: error, .. } => Some(error),
            _ => None,
        }
    }
}

/// Asks, waits where that is wanted, and tells.
///
/// # Errors
/// [`Failure`].
pub(crate) async fn run(request: Request) -> Result<(), Failure> {
    let json = request.json;
    let done = answer(request).await;
    let refused = done.as_ref().err().and_then(|failure| failure.remote()?.body());
    if let Some(body) = refused.filter(|_| json) {
        tell(&terminal::json(body))?;
    }
    done
}

async fn answer(Request { server, order, json }: Request) -> Result<(), Failure> {
    let told = |answer: &Value, text: &dyn Fn(&Value) -> String| {
        let text = if json { terminal::json(answer) } else { text(&terminal::safe_value(answer)) };
        tell(&text)
    };
    match order {
        Order::Ask(question) => {
            let answer = server.get(&question.path).await?;
            server.is_ours(&answer, question.has)?;
            let now = SystemTime::now();
            told(&answer, &|answer| (question.show)(answer, now))
        }
        Order::Change(change) => {
            let begun = server.send(&change).await?;
            server.is_ours(&begun, "id")?;
            if !change.is_waited_for {
                let text =
                    |begun: &Value| format!("begun: operation {}\n", show::text(begun, "/id"));
                return told(&begun, &text);
            }
            let ended = progress::follow(&server, begun, io::stderr().lock()).await?;
            told(&ended, &show::outcome)?;
            progress::verdict(&terminal::safe_value(&ended), change.end).map_err(Failure::Operation)
        }
        Order::Bench(plan) => {
            let measured = bench::run(&server, plan).await?;
            let text = if json { terminal::json(&measured.json()) } else { measured.text() };
            tell(&text)?;
            measured.failure().map_or(Ok(()), |failure| Err(Failure::Operation(failure)))
        }
    }
}

fn tell(text: &str) -> Result<(), Failure> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        // Who has read enough closes the pipe.
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
