//! What a path of TensorFlow Serving names.

use axum::extract::{FromRequestParts, RawPathParams, Request};
use axum::http::Method;
use axum::http::request::Parts;

use crate::http::error::ApiError;
use crate::http::target::{Target, param, params};
use crate::model::{AliasName, ModelName, VersionRef};

/// What comes after the path of a model that is to predict.
const PREDICT: &str = ":predict";

/// A model with a version or a label.
#[derive(Debug)]
pub(in crate::http) struct Named(pub(super) Target);

/// The same, of a path that ends with `:predict`.
#[derive(Debug)]
pub(in crate::http) struct Predicted(pub(super) Target);

impl<S: Send + Sync> FromRequestParts<S> for Named {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        target(&params(parts, state).await?, str::to_owned).map(Self)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Predicted {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = parts.uri.path();
        if !path.ends_with(PREDICT) {
            return Err(ApiError::NoSuchPath(path.to_owned()));
        }
        target(&params(parts, state).await?, |last| without_predict(last).to_owned()).map(Self)
    }
}

/// Whether this is a prediction, whose path has more behind its last name.
pub(in crate::http) fn predicts(request: &Request) -> bool {
    request.method() == Method::POST && request.uri().path().ends_with(PREDICT)
}

/// The last name of a prediction's path.
pub(in crate::http) fn without_predict(last: &str) -> &str {
    last.strip_suffix(PREDICT).unwrap_or(last)
}

/// The model, and the version by its number or its label; `last` is applied to the last of them.
fn target(params: &RawPathParams, last: impl Fn(&str) -> String) -> Result<Target, ApiError> {
    let model = param(params, "model").unwrap_or_default();
    let (version, label) = (param(params, "version"), param(params, "label"));
    let (model, version) = match (version, label) {
        (Some(version), _) => (model.to_owned(), Some(last(version).parse::<VersionRef>()?)),
        (None, Some(label)) => {
            (model.to_owned(), Some(VersionRef::Alias(last(label).parse::<AliasName>()?)))
        }
        (None, None) => (last(model), None),
    };
    Ok(Target { model: ModelName::new(&model)?, version })
}
