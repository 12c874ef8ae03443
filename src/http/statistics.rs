//! What models have done so far, as Triton's clients read it.

use axum::extract::State;
use axum::response::Response;
use serde::Serialize;

use super::Shared;
use super::error::ApiError;
use super::target::Target;
use super::wire::json;
use crate::auth::Access;
use crate::oip::statistics::{self, Compute, Counted, Statistics};

#[derive(Serialize)]
struct StatisticsBody {
    model_stats: Vec<ItemBody>,
}

#[derive(Serialize)]
struct ItemBody {
    name: String,
    version: String,
    last_inference: u64,
    inference_count: u64,
    execution_count: u64,
    inference_stats: InferenceBody,
    response_stats: ResponsesBody,
    batch_stats: Vec<BatchBody>,
    memory_usage: [MemoryBody; 1],
}

#[derive(Serialize)]
struct InferenceBody {
    success: SpentBody,
    fail: SpentBody,
    queue: SpentBody,
    compute_input: SpentBody,
    compute_infer: SpentBody,
    compute_output: SpentBody,
    cache_hit: SpentBody,
    cache_miss: SpentBody,
}

#[derive(Serialize)]
struct BatchBody {
    batch_size: u64,
    compute_input: SpentBody,
    compute_infer: SpentBody,
    compute_output: SpentBody,
}

#[derive(Serialize)]
struct SpentBody {
    count: u64,
    ns: u64,
}

/// There is one response to each request, so that nothing is told of them beside that.
#[derive(Serialize)]
struct ResponsesBody {}

#[derive(Serialize)]
struct MemoryBody {
    r#type: &'static str,
    id: u32,
    byte_size: u64,
}

/// `GET /v2/models/stats`
pub(super) async fn all(State(services): Shared, access: Access) -> Response {
    let mut all = statistics::of_all(&services.parts.models);
    all.retain(|one| access.sees(&one.name));
    json(&body(all))
}

/// `GET /v2/models/{model}[/versions/{version}]/stats`
pub(super) async fn model(State(services): Shared, target: Target) -> Result<Response, ApiError> {
    let Target { model, version } = target;
    let told = statistics::of_model(&services.parts.models, &model, version.as_ref())?;
    Ok(json(&body(told)))
}

fn body(told: Vec<Statistics>) -> StatisticsBody {
    StatisticsBody { model_stats: told.into_iter().map(ItemBody::from).collect() }
}

impl From<Statistics> for ItemBody {
    fn from(told: Statistics) -> Self {
        Self {
            inference_stats: InferenceBody::from(&told),
            name: told.name,
            version: told.version,
            last_inference: told.last_inference,
            inference_count: told.inference_count,
            execution_count: told.execution_count,
            response_stats: ResponsesBody {},
            batch_stats: told.batches.into_iter().map(BatchBody::from).collect(),
            memory_usage: [MemoryBody { r#type: "CPU", id: 0, byte_size: told.memory }],
        }
    }
}

impl From<&Statistics> for InferenceBody {
    fn from(told: &Statistics) -> Self {
        Self {
            success: told.success.into(),
            fail: told.fail.into(),
            queue: told.queue.into(),
            compute_input: told.compute.input.into(),
            compute_infer: told.compute.infer.into(),
            compute_output: told.compute.output.into(),
            cache_hit: told.cache_hit.into(),
            cache_miss: told.cache_miss.into(),
        }
    }
}

impl From<(u64, Compute)> for BatchBody {
    fn from((batch_size, Compute { input, infer, output }): (u64, Compute)) -> Self {
        Self {
            batch_size,
            compute_input: input.into(),
            compute_infer: infer.into(),
            compute_output: output.into(),
        }
    }
}

impl From<Counted> for SpentBody {
    fn from(Counted { count, nanoseconds }: Counted) -> Self {
        Self { count, ns: nanoseconds }
    }
}
