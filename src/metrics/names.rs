//! Every metric's name and help text.

/// A metric's name and help text.
pub(super) struct Name {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
}

const fn name(name: &'static str, help: &'static str) -> Name {
    Name { name, help }
}

pub(super) const BUILD_INFO: Name =
    name("onward_build_info", "Always 1; the label tells the version of the server.");
pub(super) const APPLICATION_STATE: Name =
    name("onward_application_state", "1 for the state the application is in, 0 for the others.");
pub(super) const APPLICATION_TRANSITIONS_TOTAL: Name = name(
    "onward_application_transitions_total",
    "Moves of the application between states, by the state after.",
);
pub(super) const CONFIGURATION_RELOADS_TOTAL: Name = name(
    "onward_configuration_reloads_total",
    "Times the configuration was read anew, by whether it was sound.",
);
pub(super) const PROCESS_UPTIME_SECONDS: Name =
    name("onward_process_uptime_seconds", "Seconds since the process was started.");
pub(super) const RUNNING_UPTIME_SECONDS: Name =
    name("onward_running_uptime_seconds", "Seconds since the application is RUNNING, else 0.");
pub(super) const HEALTH_CHECK_PASSING: Name =
    name("onward_health_check_passing", "1 while the health check passes, 0 while it fails.");
pub(super) const RESOURCE_READY: Name =
    name("onward_resource_ready", "1 while the resource is READY or DEGRADED, otherwise 0.");
pub(super) const MODEL_VERSION_STATE: Name =
    name("onward_model_version_state", "Always 1; the label tells the state of the model version.");
pub(super) const MODEL_CURRENT_VERSION: Name =
    name("onward_model_current_version", "The version that answers requests which name none.");
pub(super) const MODEL_CURRENT_CHANGES_TOTAL: Name = name(
    "onward_model_current_changes_total",
    "Changes of the version that answers requests which name none.",
);
pub(super) const MODEL_LOAD_DURATION_SECONDS: Name = name(
    "onward_model_load_duration_seconds",
    "Seconds that the model version took to become ready.",
);
pub(super) const MODEL_INSTANCES: Name =
    name("onward_model_instances", "Instances of the model version.");
pub(super) const INFERENCE_IN_FLIGHT: Name =
    name("onward_inference_in_flight", "Requests inside the model version.");
pub(super) const INFERENCE_QUEUE_DEPTH: Name =
    name("onward_inference_queue_depth", "Requests that wait for an instance.");
pub(super) const INFERENCE_QUEUE_CAPACITY: Name =
    name("onward_inference_queue_capacity", "Requests that may wait for an instance.");
pub(super) const RESPONSE_CACHE_HITS_TOTAL: Name = name(
    "onward_response_cache_hits_total",
    "Requests of the model version whose answer had been kept.",
);
pub(super) const RESPONSE_CACHE_MISSES_TOTAL: Name = name(
    "onward_response_cache_misses_total",
    "Requests of the model version that were run, as no answer had been kept.",
);
pub(super) const RESPONSE_CACHE_ANSWERS: Name =
    name("onward_response_cache_answers", "Answers that are kept, of all models.");
pub(super) const RESPONSE_CACHE_BYTES: Name =
    name("onward_response_cache_bytes", "Bytes that they take, about.");
pub(super) const RESPONSE_CACHE_CAPACITY_BYTES: Name =
    name("onward_response_cache_capacity_bytes", "Bytes that they may take.");
pub(super) const INFERENCE_REQUESTS_TOTAL: Name = name(
    "onward_inference_requests_total",
    "Requests that came to an end in the model version, by outcome.",
);
pub(super) const INFERENCE_REQUEST_DURATION_SECONDS: Name = name(
    "onward_inference_request_duration_seconds",
    "Seconds from a request's admission to its answer.",
);
pub(super) const INFERENCE_QUEUE_DURATION_SECONDS: Name = name(
    "onward_inference_queue_duration_seconds",
    "Seconds that an answered request waited for an instance.",
);
pub(super) const INFERENCE_COMPUTE_DURATION_SECONDS: Name = name(
    "onward_inference_compute_duration_seconds",
    "Seconds that an answered request spent in the engine.",
);
