//! What the server checks of itself.

use std::sync::Arc;

use crate::causes;
use crate::lifecycle::{Check, CheckKind};
use crate::model::ModelSource;

/// Whether the repository can be read. What is loaded is served without it, so it is not critical.
pub(super) fn repository(source: Arc<dyn ModelSource>) -> Check {
    let probe = move || source.list().map(drop).map_err(|error| causes::of_error(&error));
    Check::blocking("repository", CheckKind::Readiness, probe).not_critical()
}
