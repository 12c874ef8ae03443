//! Inference over one stream: requests are worked on at once, a few of them, and answered in their order.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::{FutureExt, Stream, StreamExt, stream};
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::gate::Caller;
use super::infer::{self, Answered};
use super::proto::infer_parameter::ParameterChoice;
use super::proto::{
    InferParameter, ModelInferRequest, ModelInferResponse, ModelStreamInferResponse,
};
use super::status::{self, CODE, status};
use super::terms::Terms;
use crate::model::{ModelLifecycleManager, Traces};
use crate::oip::{Code, FINAL_RESPONSE, FINAL_RESPONSE_WANTED, RequestId};
use crate::trail::Trail;

/// How many requests of one stream are worked on at once; further ones are not read until the first of
/// them is answered.
const AT_ONCE: usize = 8;

/// At the end of the server, how long requests are still read that may be on their way.
const GRACE: Duration = Duration::from_millis(20);

/// The path of the call, for errors.
const CALL: &str = "ModelStreamInfer";

pub(super) type Answers =
    Pin<Box<dyn Stream<Item = Result<ModelStreamInferResponse, Status>> + Send>>;

/// What the requests of a stream are served with.
#[derive(Clone)]
pub(super) struct Serving {
    pub(super) models: ModelLifecycleManager,
    pub(super) traces: Arc<Traces>,
    pub(super) terms: Arc<Terms>,
    pub(super) caller: Caller,
    /// The largest message.
    pub(super) limit: usize,
    /// What the stream leaves behind, if it does.
    pub(super) trail: Option<Trail>,
}

/// One answer for each request, in their order. A request that fails does not end the stream; one that
/// cannot be read does, and so does the end of the server, once what was read is answered.
pub(super) fn answers(
    serving: Serving,
    requests: Streaming<ModelInferRequest>,
    closing: CancellationToken,
) -> Answers {
    let cut = CancellationToken::new();
    let cutting = cut.clone();
    let requests = requests.take_until(Box::pin(async move {
        closing.cancelled().await;
        sleep(GRACE).await;
        cutting.cancel();
    }));
    let answers = requests.map(move |request| answer(serving.clone(), request)).buffered(AT_ONCE);
    let end = stream::once(async move { cut.is_cancelled() }).filter_map(|is_cut| async move {
        is_cut.then(|| Err(status(Code::ShuttingDown, "the server stops; ask another one")))
    });
    Box::pin(answers.chain(end))
}

async fn answer(
    serving: Serving,
    request: Result<ModelInferRequest, Status>,
) -> Result<ModelStreamInferResponse, Status> {
    let request = request.map_err(|found| status::of_library(&found, CALL, serving.limit))?;
    let Some(trail) = serving.trail.as_ref().map(Trail::message) else {
        return Ok(answered(serving, request, None).await);
    };
    let work = answered(serving, request, Some(trail.clone()));
    Ok(Box::pin(trail.around(work)).await)
}

async fn answered(
    serving: Serving,
    request: ModelInferRequest,
    trail: Option<Trail>,
) -> ModelStreamInferResponse {
    let (model_name, id) = (request.model_name.clone(), request.id.clone());
    let tells_final = wants_final(&request);
    let bounds = serving.terms.bounds(Instant::now());
    if let (Some(trail), Some(id)) = (&trail, RequestId::read(id.as_bytes())) {
        trail.identified(id.to_bytes());
    }
    let work = async {
        serving.caller.still_on_model(&request.model_name)?;
        let models = (&serving.models, &*serving.traces);
        infer::answer(models, (request, trail.clone()), (&serving.terms, bounds)).await
    };
    let failure = match AssertUnwindSafe(work).catch_unwind().await {
        Ok(Ok(Answered { mut response, .. })) => {
            if tells_final {
                let told =
                    InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
                response.parameters.insert(FINAL_RESPONSE.to_owned(), told);
            }
            trail.inspect(|trail| trail.answered(0, None));
            let error_message = String::new();
            return ModelStreamInferResponse { error_message, infer_response: Some(response) };
        }
        Ok(Err(refusal)) => status::refused(&refusal),
        Err(panic) => status::bug(panic.as_ref()),
    };
    trail.inspect(|trail| note(trail, &failure));
    failed(&failure, ModelInferResponse { model_name, id, ..ModelInferResponse::default() })
}

/// Notes what a message failed for.
fn note(trail: &Trail, failure: &Status) {
    let code = failure.metadata().get(CODE).and_then(|code| code.to_str().ok());
    code.inspect(|code| trail.failed((*code).to_owned()));
    trail.answered(u16::try_from(i32::from(failure.code())).unwrap_or_default(), None);
}

/// Whether the client wants to be told that an answer is the last to its request.
fn wants_final(request: &ModelInferRequest) -> bool {
    let wanted = request.parameters.get(FINAL_RESPONSE_WANTED);
    let choice = wanted.and_then(|parameter| parameter.parameter_choice.as_ref());
    choice == Some(&ParameterChoice::BoolParam(true))
}

/// The answer to a request that failed, which tells its id, and the error's code as a parameter.
fn failed(failure: &Status, mut response: ModelInferResponse) -> ModelStreamInferResponse {
    let code = failure.metadata().get(CODE).and_then(|code| code.to_str().ok());
    let code = ParameterChoice::StringParam(code.unwrap_or_default().to_owned());
    let parameter = InferParameter { parameter_choice: Some(code) };
    response.parameters.insert(CODE.to_owned(), parameter);
    let error_message = failure.message().to_owned();
    ModelStreamInferResponse { error_message, infer_response: Some(response) }
}
