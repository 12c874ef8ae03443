//! What is measured.

use std::fmt;

use super::request::Protocol;
use super::zoo::Model;

/// What the model's settings say of batches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Batching {
    /// Nothing: as everybody has it who has set nothing.
    Default,
    /// That no requests are put together.
    Off,
}

impl Batching {
    pub(crate) const ALL: [Self; 2] = [Self::Default, Self::Off];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Off => "off",
        }
    }

    /// What stands in `model.yaml`.
    pub(crate) const fn settings(self) -> Option<&'static str> {
        match self {
            Self::Default => None,
            Self::Off => Some("batching: off\n"),
        }
    }
}

/// One cell of the grid.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Cell {
    pub(crate) model: Model,
    pub(crate) connections: usize,
    pub(crate) batching: Batching,
    pub(crate) protocol: Protocol,
}

/// How the loop over ONNX Runtime calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Plan {
    /// At once, each with a session of its own.
    pub(crate) callers: usize,
    /// That one run may use.
    pub(crate) threads: usize,
    /// Items of one run.
    pub(crate) batch: usize,
}

/// What the empty handler is served by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum By {
    /// The loop that the server has.
    Us,
    Axum,
}

/// What one measurement was of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Row {
    Direct(Model, Plan),
    /// The empty handler, over HTTP, with the tiny model's request.
    Handler(By, Protocol, usize),
    Server(Cell),
}

impl Cell {
    /// Such as `mlp, json, 8 connections`.
    pub(crate) fn name(self) -> String {
        let Self { model, connections, batching, protocol } = self;
        let apart = if batching == Batching::Off { ", batching off" } else { "" };
        let (model, protocol) = (model.name(), protocol.name());
        format!("{model}, {protocol}, {connections} connections{apart}")
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Direct(_, Plan { callers, threads, batch }) => {
                write!(f, "loop: callers {callers}, threads {threads}, batch {batch}")
            }
            Self::Handler(by, protocol, connections) => {
                let by = if *by == By::Axum { " by axum" } else { "" };
                write!(f, "empty handler{by}: {}, {connections} connections", protocol.name())
            }
            Self::Server(Cell { connections, batching, protocol, .. }) => {
                let apart = if *batching == Batching::Off { ", batching off" } else { "" };
                write!(f, "onward: {}, {connections} connections{apart}", protocol.name())
            }
        }
    }
}
