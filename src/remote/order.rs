//! What a server is asked for, and what it is told to do.

use std::time::SystemTime;

use reqwest::Method;
use serde_json::Value;

use super::bench::Plan;

/// What is wanted of a server.
pub(super) enum Order {
    Ask(Question),
    Change(Change),
    Bench(Plan),
}

/// Something that it tells.
pub(super) struct Question {
    /// The segments of the path.
    pub(super) path: Vec<String>,
    /// What the answer has, where it is one of this server's.
    pub(super) has: &'static str,
    /// What humans are shown of the answer, at this time.
    pub(super) show: fn(&Value, SystemTime) -> String,
}

/// Something that it does.
#[derive(Debug)]
pub(crate) struct Change {
    pub(super) method: Method,
    /// The segments of the path.
    pub(super) path: Vec<String>,
    pub(super) body: Option<Value>,
    /// The state in which its operation is to end.
    pub(super) end: &'static str,
    /// Whether that is waited for.
    pub(super) is_waited_for: bool,
}

impl Change {
    /// One of a model.
    pub(super) fn of_model(method: Method, model: &str, path: &[&str]) -> Self {
        let path = lifecycle(&[&["models", model], path].concat());
        Self { method, path, body: None, end: "succeeded", is_waited_for: true }
    }

    pub(super) fn with(self, body: Value) -> Self {
        Self { body: Some(body), ..self }
    }

    /// The end of an operation that is under way.
    pub(super) fn cancelling(operation: &str) -> Self {
        let (method, path) = (Method::DELETE, lifecycle(&["operations", operation]));
        Self { method, path, body: None, end: "cancelled", is_waited_for: true }
    }

    /// Whether it begins an operation, which can be waited for.
    pub(super) fn is_begun(&self) -> bool {
        self.path.get(1).is_some_and(|kind| kind == "models")
    }
}

/// A path of what manages the server.
pub(super) fn lifecycle(rest: &[&str]) -> Vec<String> {
    ["lifecycle"].iter().chain(rest).map(ToString::to_string).collect()
}
