//! The calls.

use std::sync::Arc;

use tonic::metadata::MetadataValue;
use tonic::{Request, Response, Status, Streaming};

use super::Parts;
use super::call_id::CallId;
use super::front::identify;
use super::gate::Caller;
use super::infer::{self, Answered};
use super::proto::grpc_inference_service_server::GrpcInferenceService;
use super::proto::model_metadata_response::TensorMetadata;
use super::proto::model_repository_parameter::ParameterChoice;
use super::proto::repository_index_response::ModelIndex;
use super::proto::{
    LogSettingsRequest, LogSettingsResponse, ModelConfigRequest, ModelConfigResponse,
    ModelInferRequest, ModelInferResponse, ModelMetadataRequest, ModelMetadataResponse,
    ModelReadyRequest, ModelReadyResponse, ModelRepositoryParameter, ModelStatistics,
    ModelStatisticsRequest, ModelStatisticsResponse, RepositoryIndexRequest,
    RepositoryIndexResponse, RepositoryModelLoadRequest, RepositoryModelLoadResponse,
    RepositoryModelUnloadRequest, RepositoryModelUnloadResponse, ServerLiveRequest,
    ServerLiveResponse, ServerMetadataRequest, ServerMetadataResponse, ServerReadyRequest,
    ServerReadyResponse, TraceSettingRequest, TraceSettingResponse,
};
use super::settings;
use super::status::refused;
use super::stream::{self, Answers};
use super::terms::Terms;
use crate::inference::TensorSpec;
use crate::lifecycle::CheckKind;
use crate::model::{IndexEntry, ModelName, VersionRef, Wanted};
use crate::oip::metadata::{self, EXTENSIONS, ModelMetadata};
use crate::oip::model_config::ModelConfig;
use crate::oip::repository::Given;
use crate::oip::{Refusal, repository, statistics};
use crate::trail::Trail;

/// The metadata by which a prediction can be traced to the files that made it.
const DIGEST: &str = "x-onward-digest";

/// The metadata that tells whether an answer had been kept.
const CACHE: &str = "x-onward-cache";

#[tonic::async_trait]
impl GrpcInferenceService for Parts {
    async fn server_live(
        &self,
        _: Request<ServerLiveRequest>,
    ) -> Result<Response<ServerLiveResponse>, Status> {
        let live = self.health.verdict(CheckKind::Liveness).passing;
        Ok(Response::new(ServerLiveResponse { live }))
    }

    async fn server_ready(
        &self,
        _: Request<ServerReadyRequest>,
    ) -> Result<Response<ServerReadyResponse>, Status> {
        let ready = self.health.verdict(CheckKind::Readiness).passing;
        Ok(Response::new(ServerReadyResponse { ready }))
    }

    async fn model_ready(
        &self,
        request: Request<ModelReadyRequest>,
    ) -> Result<Response<ModelReadyResponse>, Status> {
        let caller = Caller::of(self, &request)?;
        let ModelReadyRequest { name, version } = request.into_inner();
        caller.on_model(&name)?;
        let (model, version) = target(&name, &version).map_err(|refusal| refused(&refusal))?;
        // As in Triton, a model that nobody knows is one that is not ready.
        let ready =
            self.models.acquire(model.as_str(), Wanted::new(version.as_ref(), None)).is_ok();
        Ok(Response::new(ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<ServerMetadataRequest>,
    ) -> Result<Response<ServerMetadataResponse>, Status> {
        Ok(Response::new(ServerMetadataResponse {
            name: metadata::SERVER.to_owned(),
            version: metadata::SERVER_VERSION.to_owned(),
            extensions: EXTENSIONS.map(str::to_owned).to_vec(),
        }))
    }

    async fn model_metadata(
        &self,
        request: Request<ModelMetadataRequest>,
    ) -> Result<Response<ModelMetadataResponse>, Status> {
        let caller = Caller::of(self, &request)?;
        let ModelMetadataRequest { name, version } = request.into_inner();
        caller.on_model(&name)?;
        let told = target(&name, &version)
            .and_then(|(model, version)| ModelMetadata::of(&self.models, &model, version.as_ref()));
        let ModelMetadata { handle, versions } = told.map_err(|refusal| refused(&refusal))?;
        let signature = handle.signature();
        Ok(Response::new(ModelMetadataResponse {
            name,
            versions: versions.iter().map(ToString::to_string).collect(),
            platform: handle.platform().to_owned(),
            inputs: signature.inputs.iter().map(TensorMetadata::from).collect(),
            outputs: signature.outputs.iter().map(TensorMetadata::from).collect(),
        }))
    }

    async fn model_config(
        &self,
        request: Request<ModelConfigRequest>,
    ) -> Result<Response<ModelConfigResponse>, Status> {
        let caller = Caller::of(self, &request)?;
        let ModelConfigRequest { name, version } = request.into_inner();
        caller.on_model(&name)?;
        let config = target(&name, &version)
            .and_then(|(model, version)| ModelConfig::of(&self.models, &model, version.as_ref()));
        let config = config.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(ModelConfigResponse { config: Some(config.into()) }))
    }

    async fn model_statistics(
        &self,
        request: Request<ModelStatisticsRequest>,
    ) -> Result<Response<ModelStatisticsResponse>, Status> {
        let caller = Caller::of(self, &request)?;
        let ModelStatisticsRequest { name, version } = request.into_inner();
        let told = if name.is_empty() {
            let mut all = statistics::of_all(&self.models);
            all.retain(|one| caller.sees(&one.name));
            Ok(all)
        } else {
            caller.on_model(&name)?;
            target(&name, &version).and_then(|(model, version)| {
                statistics::of_model(&self.models, &model, version.as_ref())
            })
        };
        let told = told.map_err(|refusal| refused(&refusal))?;
        let model_stats = told.into_iter().map(ModelStatistics::from).collect();
        Ok(Response::new(ModelStatisticsResponse { model_stats }))
    }

    async fn model_infer(
        &self,
        request: Request<ModelInferRequest>,
    ) -> Result<Response<ModelInferResponse>, Status> {
        let caller = Caller::of(self, &request)?;
        let trail = request.extensions().get::<Trail>().cloned();
        if let Some(id) = request.extensions().get::<CallId>() {
            id.or_of_message(&request.get_ref().id);
            identify(id, trail.as_ref());
        }
        let (terms, request) = parted(request);
        caller.on_model(&request.model_name)?;
        let bounds = terms.bounds(terms.received);
        let serving = (&self.models, &*self.traces);
        let answered = infer::answer(serving, (request, trail), (&terms, bounds)).await;
        let Answered { response, digest, cache } = answered.map_err(|refusal| refused(&refusal))?;
        let mut response = Response::new(response);
        if let Some(lookup) = cache {
            response.metadata_mut().insert(CACHE, MetadataValue::from_static(lookup.name()));
        }
        let digest = MetadataValue::try_from(digest).expect("it is visible ASCII");
        response.metadata_mut().insert(DIGEST, digest);
        Ok(response)
    }

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<ModelInferRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let caller = Caller::of(self, &request)?;
        let trail = request.extensions().get::<Trail>().cloned();
        trail.as_ref().inspect(|trail| trail.is_stream());
        let (terms, requests) = parted(request);
        let limit = (self.limits)().max_message_size;
        let serving = stream::Serving {
            models: self.models.clone(),
            traces: Arc::clone(&self.traces),
            terms: Arc::new(terms),
            caller,
            limit,
            trail,
        };
        Ok(Response::new(stream::answers(serving, requests, self.closing.clone())))
    }

    async fn log_settings(
        &self,
        request: Request<LogSettingsRequest>,
    ) -> Result<Response<LogSettingsResponse>, Status> {
        let caller = Caller::of(self, &request)?;
        caller.on_server()?;
        if request.get_ref().settings.is_empty() {
            caller.only_reads();
        }
        let settings = settings::log(&*self.log, request.get_ref());
        Ok(Response::new(settings.map_err(|refusal| refused(&refusal))?))
    }

    async fn trace_setting(
        &self,
        request: Request<TraceSettingRequest>,
    ) -> Result<Response<TraceSettingResponse>, Status> {
        let caller = Caller::of(self, &request)?;
        match request.get_ref().model_name.as_str() {
            "" => caller.on_server()?,
            model => caller.on_model(model)?,
        }
        if request.get_ref().settings.is_empty() {
            caller.only_reads();
        }
        let settings = settings::trace((&self.models, &self.traces), request.into_inner());
        Ok(Response::new(settings.map_err(|refusal| refused(&refusal))?))
    }

    async fn repository_index(
        &self,
        request: Request<RepositoryIndexRequest>,
    ) -> Result<Response<RepositoryIndexResponse>, Status> {
        let caller = Caller::of(self, &request)?;
        let entries = repository::index(&self.models, request.get_ref().ready).await;
        let entries = entries.map_err(|refusal| refused(&refusal))?;
        let seen = entries.into_iter().filter(|entry| caller.sees(entry.model.as_str()));
        let models = seen.map(ModelIndex::from).collect();
        Ok(Response::new(RepositoryIndexResponse { models }))
    }

    async fn repository_model_load(
        &self,
        request: Request<RepositoryModelLoadRequest>,
    ) -> Result<Response<RepositoryModelLoadResponse>, Status> {
        let (caller, origin) = (Caller::of(self, &request)?, origin(&request));
        let RepositoryModelLoadRequest { model_name, parameters, .. } = request.into_inner();
        caller.on_model(&model_name)?;
        let given = parameters.into_iter().map(|(name, parameter)| (name, given(parameter)));
        let overrides = repository::overrides(given).map_err(|refusal| refused(&refusal))?;
        if overrides.is_some() {
            // What it brings may be made of models that the caller may not see.
            caller.on_server()?;
        }
        let load = async {
            let model = ModelName::new(&model_name)?;
            repository::load(&self.models, (&model, origin), overrides).await
        };
        load.await.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<RepositoryModelUnloadRequest>,
    ) -> Result<Response<RepositoryModelUnloadResponse>, Status> {
        let (caller, origin) = (Caller::of(self, &request)?, origin(&request));
        let RepositoryModelUnloadRequest { model_name, .. } = request.into_inner();
        caller.on_model(&model_name)?;
        let unload = async {
            let model = ModelName::new(&model_name)?;
            repository::unload(&self.models, (&model, origin)).await
        };
        unload.await.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(RepositoryModelUnloadResponse {}))
    }
}

/// By what is found what a call asks for, as it is kept with that.
fn origin<T>(request: &Request<T>) -> Option<String> {
    request.extensions().get().and_then(Trail::context)
}

/// What a call says of how it is to be served, and what it asks.
fn parted<T>(mut request: Request<T>) -> (Terms, T) {
    let terms = request.extensions_mut().remove::<Terms>();
    (terms.expect("the front has read them"), request.into_inner())
}

fn given(parameter: ModelRepositoryParameter) -> Given {
    match parameter.parameter_choice {
        Some(ParameterChoice::StringParam(text)) => Given::Text(text),
        Some(ParameterChoice::BytesParam(bytes)) => Given::Bytes(bytes),
        _ => Given::Other,
    }
}

/// The model, and the version where one is named.
pub(super) fn target(
    model: &str,
    version: &str,
) -> Result<(ModelName, Option<VersionRef>), Refusal> {
    let named = (!version.is_empty()).then_some(version);
    Ok((ModelName::new(model)?, named.map(str::parse).transpose()?))
}

impl From<&TensorSpec> for TensorMetadata {
    fn from(spec: &TensorSpec) -> Self {
        Self {
            name: spec.name.clone(),
            datatype: spec.datatype.name().to_owned(),
            shape: metadata::shape(spec),
        }
    }
}

impl From<IndexEntry> for ModelIndex {
    fn from(entry: IndexEntry) -> Self {
        let (version, state) = entry.version.unzip();
        Self {
            name: entry.model.to_string(),
            version: version.map(|version| version.to_string()).unwrap_or_default(),
            state: state.map(repository::state).unwrap_or_default().to_owned(),
            reason: entry.reason,
        }
    }
}
