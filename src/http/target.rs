//! The model and version that a path names.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::model::{ModelName, Version};

/// `{model}` and, where the path has it, `{version}`.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) model: ModelName,
    pub(super) version: Option<Version>,
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = RawPathParams::from_request_parts(parts, state)
            .await
            .map_err(|_| ApiError::bad_request("the path is not UTF-8 after percent-decoding"))?;
        let param = |wanted| params.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value);
        let model = ModelName::new(param("model").unwrap_or_default())?;
        let version = param("version").map(str::parse).transpose()?;
        Ok(Self { model, version })
    }
}
