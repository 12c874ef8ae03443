//! What a path names: a model with a version or an alias, an operation, a check, or a resource.

use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;

use super::error::ApiError;
use crate::lifecycle::CheckKind;
use crate::model::{AliasName, ModelName, VersionRef, Wanted};

/// `{model}` and, where the path has it, `{version}`.
#[derive(Debug)]
pub(super) struct Target {
    pub(super) model: ModelName,
    pub(super) version: Option<VersionRef>,
}

impl Target {
    /// A model, and a version of it, by their names.
    ///
    /// # Errors
    /// When either is no name.
    pub(super) fn new(model: &str, version: Option<&str>) -> Result<Self, ApiError> {
        let model = ModelName::new(model)?;
        let version = version.map(str::parse).transpose()?;
        Ok(Self { model, version })
    }

    /// What a request with this target and this key wants.
    pub(super) fn wanted<'a>(&'a self, key: Option<&'a str>) -> Wanted<'a> {
        Wanted::new(self.version.as_ref(), key)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Target {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        Self::new(param(&params, "model").unwrap_or_default(), param(&params, "version"))
    }
}

/// `{model}` and `{alias}`.
#[derive(Debug)]
pub(super) struct AliasTarget {
    pub(super) target: Target,
    pub(super) alias: AliasName,
}

impl<S: Send + Sync> FromRequestParts<S> for AliasTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let target = Target::from_request_parts(parts, state).await?;
        let params = params(parts, state).await?;
        let alias = param(&params, "alias").unwrap_or_default().parse()?;
        Ok(Self { target, alias })
    }
}

/// `{model}` and `{lease}`.
#[derive(Debug)]
pub(super) struct LeaseTarget {
    pub(super) target: Target,
    pub(super) lease: String,
}

impl<S: Send + Sync> FromRequestParts<S> for LeaseTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let target = Target::from_request_parts(parts, state).await?;
        let params = params(parts, state).await?;
        Ok(Self { target, lease: param(&params, "lease").unwrap_or_default().to_owned() })
    }
}

/// `{operation}`
#[derive(Debug)]
pub(super) struct OperationTarget(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for OperationTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        Ok(Self(param(&params, "operation").unwrap_or_default().to_owned()))
    }
}

/// `{kind}` and `{check}`.
#[derive(Debug)]
pub(super) struct CheckTarget {
    pub(super) kind: CheckKind,
    pub(super) name: String,
}

impl<S: Send + Sync> FromRequestParts<S> for CheckTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        let kind = param(&params, "kind").unwrap_or_default();
        let kind = CheckKind::from_name(kind).ok_or_else(|| ApiError::NoCheckKind(kind.into()))?;
        Ok(Self { kind, name: param(&params, "check").unwrap_or_default().to_owned() })
    }
}

/// `{resource}`
#[derive(Debug)]
pub(super) struct ResourceTarget(pub(super) String);

impl<S: Send + Sync> FromRequestParts<S> for ResourceTarget {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let params = params(parts, state).await?;
        Ok(Self(param(&params, "resource").unwrap_or_default().to_owned()))
    }
}

pub(super) async fn params<S: Send + Sync>(
    parts: &mut Parts,
    state: &S,
) -> Result<RawPathParams, ApiError> {
    let params = RawPathParams::from_request_parts(parts, state).await;
    params.map_err(|_| ApiError::bad_request("the path is not UTF-8 after percent-decoding"))
}

pub(super) fn param<'a>(params: &'a RawPathParams, wanted: &str) -> Option<&'a str> {
    params.iter().find(|(key, _)| *key == wanted).map(|(_, value)| value)
}
