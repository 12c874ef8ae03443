//! TensorFlow Serving's REST interface: predictions, states and signatures under `/v1/models`.
//!
//! A label is one of our aliases. Requests are served as those of the Open Inference Protocol are.

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod request;
mod response;
mod status;
mod target;

use axum::extract::{Request, State};
use axum::response::Response;
use tokio::time::Instant;

use super::error::ApiError;
use super::{Shared, body, infer, trail};
use crate::inference::InferError;
use crate::model::Protocol;
use crate::oip::{Call, Inputs, RequestId, RequestOptions};
use request::Predict;
pub(super) use status::{metadata, states};
use target::Predicted;
pub(super) use target::{predicts, without_predict};

/// `POST /v1/models/{model}[/versions/{version}|/labels/{label}]:predict`
pub(super) async fn predict(
    State(services): Shared,
    Predicted(target): Predicted,
    request: Request,
) -> Result<Response, ApiError> {
    let limits = services.limits();
    let received = Instant::now();
    let id = request.extensions().get().map(RequestId::to_bytes);
    let trail = trail::of(&request);
    let routing_key = infer::routing_key(request.headers())?;
    let deadline = received + limits.request_timeout;
    let body = body::read_coded(request, &limits, (deadline, 0)).await?;
    let call = Call {
        protocol: Protocol::Http,
        id,
        trail,
        model: target.model,
        version: target.version,
        options: RequestOptions { routing_key, ..RequestOptions::default() },
        inputs: Inputs::Tensors(Vec::new()),
        outputs: Vec::new(),
    };
    let bounds = (received, limits.request_timeout);
    // What the numbers are is only known with the version.
    let version = call.acquire(&services.parts.models, bounds).await?;
    let (size, limit) = (body.work(), limits.max_body_size);
    let decode = move || {
        let predict = Predict::read(&body.plain(limit)?, version.signature());
        let predict = predict.inspect_err(|_| version.refused())?;
        Ok::<_, ApiError>((predict, version))
    };
    let late = || ApiError::from(InferError::DeadlineExceeded);
    let decoded = services.heavy.run_until(deadline, size, decode).await.ok_or_else(late)?;
    let (Predict { inputs, form }, version) = decoded?;
    let call = Call { inputs: Inputs::Tensors(inputs), ..call };
    let reply = call.ask(version, &services.parts.traces, bounds).await?;
    response::write(&services.heavy, reply, form).await
}
