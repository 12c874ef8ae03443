//! `/v2/logging`: what of the log is written, as Triton's clients read and change it.

use axum::extract::{Request, State};
use axum::response::Response;
use serde::Serialize;
use serde_json::{Map, Value};

use super::error::ApiError;
use super::wire::{json, parameter};
use super::{Shared, body};
use crate::lifecycle::LogSettings;
use crate::oip::logging::{self, FORMAT};

#[derive(Serialize)]
#[expect(clippy::struct_field_names, reason = "they are the names on the wire")]
struct LogBody {
    log_file: &'static str,
    log_info: bool,
    log_warning: bool,
    log_error: bool,
    log_verbose_level: u32,
    log_format: &'static str,
}

/// `GET /v2/logging`
pub(super) async fn settings(State(services): Shared) -> Response {
    json(&LogBody::from(services.parts.log.settings()))
}

/// `POST /v2/logging`
pub(super) async fn change(
    State(services): Shared,
    request: Request,
) -> Result<Response, ApiError> {
    let body = body::read_small(request, &services.limits()).await?;
    let given: Map<String, Value> = body::parse_or_default(&body)?;
    let given = given.iter().filter(|(_, value)| !value.is_null());
    let given = given.map(|(name, value)| (name.as_str(), parameter(value.clone())));
    let settings = logging::change(&*services.parts.log, given)?;
    Ok(json(&LogBody::from(settings)))
}

impl From<LogSettings> for LogBody {
    fn from(settings: LogSettings) -> Self {
        let LogSettings { info, warning, error, verbose } = settings;
        Self {
            log_file: "",
            log_info: info,
            log_warning: warning,
            log_error: error,
            log_verbose_level: verbose,
            log_format: FORMAT,
        }
    }
}
