//! What the log says once the start is done.

use std::net::SocketAddr;

use tracing::{info, warn};

use crate::config::LoadMode;
use crate::model::ModelReport;

/// Tells how many models serve and how many could not be loaded. That none does is a warning, unless it is
/// what was asked for.
pub(super) fn tell(reports: &[ModelReport], mode: LoadMode, address: Option<SocketAddr>) {
    let models = reports.iter().filter(|report| report.current.is_some()).count();
    let is_failed = |report: &&ModelReport| report.current.is_none() && report.problem.is_some();
    let failed = reports.iter().filter(is_failed).count();
    let address = address.map(|address| address.to_string()).unwrap_or_default();
    let is_meant = mode == LoadMode::Explicit || (failed == 0 && !reports.is_empty());
    if models > 0 || is_meant {
        info!(models, failed, address, "models are served");
    } else {
        warn!(failed, address, "no model is served");
    }
}
