//! What the server checks of itself.

use std::sync::Arc;

use tokio::task::spawn_blocking;

use crate::causes;
use crate::lifecycle::{Check, CheckKind};
use crate::model::ModelSource;

/// Whether the repository can be read. What is loaded is served without it, so it is not critical.
pub(super) fn repository(source: Arc<dyn ModelSource>) -> Check {
    let probe = move || {
        let source = Arc::clone(&source);
        let list = spawn_blocking(move || source.list());
        async move {
            match list.await {
                Ok(Ok(_)) => Ok(()),
                Ok(Err(error)) => Err(causes::of_error(&error)),
                Err(panic) => Err(panic.to_string()),
            }
        }
    };
    Check::new("repository", CheckKind::Readiness, probe).not_critical()
}
