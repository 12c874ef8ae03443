//! Every metric: its name, its type, its labels and what it means. `docs/metrics.md` has the same table.

use prometheus::proto::MetricType;

/// A metric.
#[derive(Debug, Clone, Copy)]
pub(super) struct Described {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// In the order of the alphabet, as they are written.
    pub(super) labels: &'static [&'static str],
    pub(super) help: &'static str,
}

/// What kind of a metric one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Counter,
    Gauge,
    Histogram,
}

impl Kind {
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }

    pub(super) const fn proto(self) -> MetricType {
        match self {
            Self::Counter => MetricType::COUNTER,
            Self::Gauge => MetricType::GAUGE,
            Self::Histogram => MetricType::HISTOGRAM,
        }
    }
}

macro_rules! names {
    ($($group:ident {$($ident:ident $kind:ident $name:literal [$($label:literal)*] $help:literal;)*})*) => {
        $($(pub(super) const $ident: Described = Described {
            name: $name,
            kind: Kind::$kind,
            labels: &[$($label),*],
            help: $help,
        };)*

        /// One group of them, in the order of the documentation.
        pub(super) const $group: &[Described] = &[$($ident),*];)*
    };
}

names! {
    SERVER {
        BUILD_INFO Gauge "onward_build_info" ["onnxruntime" "version"]
            "Always 1; the labels tell the versions of the server and of ONNX Runtime.";
        APPLICATION_STATE Gauge "onward_application_state" ["state"]
            "1 for the state the application is in, 0 for the others.";
        APPLICATION_TRANSITIONS_TOTAL Counter "onward_application_transitions_total" ["to"]
            "Moves of the application between states, by the state after.";
        CONFIGURATION_RELOADS_TOTAL Counter "onward_configuration_reloads_total" ["result"]
            "Times the configuration, or a file of certificates or credentials, was read anew, by whether it was sound: success or failure.";
        PROCESS_UPTIME_SECONDS Gauge "onward_process_uptime_seconds" []
            "Seconds since the process was started.";
        RUNNING_UPTIME_SECONDS Gauge "onward_running_uptime_seconds" []
            "Seconds since the application is RUNNING, else 0.";
        LOG_LINES_LOST_TOTAL Counter "onward_log_lines_lost_total" ["reason"]
            "Lines of the log that were not written: too many waited for what reads them (queue_full), or writing failed (failed).";
        HEALTH_CHECK_PASSING Gauge "onward_health_check_passing" ["check" "kind"]
            "1 while the health check passes, 0 while it fails.";
        PROBE_PASSING Gauge "onward_probe_passing" ["kind"]
            "1 while the probe passes, which the checks that are critical decide, 0 while it fails.";
        RESOURCE_READY Gauge "onward_resource_ready" ["resource"]
            "1 while the resource is READY or DEGRADED, otherwise 0.";
        EVENTS_MISSED_TOTAL Counter "onward_metrics_events_missed_total" []
            "Events that the counters of this page have missed, as they came too fast.";
    }
    INTERFACES {
        HTTP_REQUESTS_TOTAL Counter "onward_http_requests_total" ["method" "route" "status"]
            "HTTP requests that were answered, by the route's template and the class of the status.";
        HTTP_REQUEST_DURATION_SECONDS Histogram "onward_http_request_duration_seconds" ["method" "route"]
            "Seconds from the head of an HTTP request to the head of its answer.";
        GRPC_CALLS_TOTAL Counter "onward_grpc_calls_total" ["code" "method"]
            "gRPC calls that were answered, by the name of the code; streams when they begin.";
        GRPC_CALL_DURATION_SECONDS Histogram "onward_grpc_call_duration_seconds" ["method"]
            "Seconds from the head of a gRPC call to the head of its answer.";
        REQUESTS_REFUSED_TOTAL Counter "onward_requests_refused_total" ["reason"]
            "Requests and calls that were not let in: their credential was missing or wrong (unauthenticated) or not for them (forbidden), their client had asked too often (rate_limited), too many connections were open (crowded), or the listener for management answers them (elsewhere).";
        REQUESTS_IN_FLIGHT Gauge "onward_requests_in_flight" []
            "HTTP requests and gRPC calls that are being answered.";
        CONNECTIONS_OPEN Gauge "onward_connections_open" ["listener"]
            "Connections that are open: http has REST and gRPC, grpc has gRPC alone, management has both for operators.";
        TRACE_SPANS_SENT_TOTAL Counter "onward_trace_spans_sent_total" []
            "Spans of traces that the collector has taken.";
        TRACE_SPANS_DROPPED_TOTAL Counter "onward_trace_spans_dropped_total" ["reason"]
            "Spans that it has not: the queue had no room for them (queue_full), they could not be sent (failed), or the collector did not want them (rejected).";
    }
    INFERENCE {
        INFERENCE_REQUESTS_TOTAL Counter "onward_inference_requests_total"
            ["model" "outcome" "protocol" "version"]
            "Requests that came to an end in the model version, by protocol and outcome.";
        INFERENCE_REQUESTS_UNROUTED_TOTAL Counter "onward_inference_requests_unrouted_total" ["model" "reason"]
            "Requests that no version has got: unknown or unavailable. Those for models that are unknown have the model /unknown.";
        INFERENCE_REQUESTS_SHED_TOTAL Counter "onward_inference_requests_shed_total"
            ["model" "reason" "version"]
            "Requests that were given up for want of something: queue_full, deadline, memory, cancelled. Without a version where they waited for the model to be loaded.";
        INFERENCE_ENTRIES_TOTAL Counter "onward_inference_entries_total" ["model" "version"]
            "Entries of the batches of requests that were answered.";
        INFERENCE_REQUEST_DURATION_SECONDS Histogram "onward_inference_request_duration_seconds"
            ["model" "version"]
            "Seconds from a request's admission to its end, whatever became of it.";
        INFERENCE_QUEUE_DURATION_SECONDS Histogram "onward_inference_queue_duration_seconds"
            ["model" "version"]
            "Seconds that a request that was run and answered had waited for an instance.";
        INFERENCE_COMPUTE_DURATION_SECONDS Histogram "onward_inference_compute_duration_seconds"
            ["model" "version"]
            "Seconds that a run took, which several requests may share.";
        INFERENCE_COMPUTE_INPUT_DURATION_SECONDS Histogram "onward_inference_compute_input_duration_seconds"
            ["model" "version"]
            "Of a run, the seconds until the engine had its inputs.";
        INFERENCE_COMPUTE_INFER_DURATION_SECONDS Histogram "onward_inference_compute_infer_duration_seconds"
            ["model" "version"]
            "Of a run, the seconds that the engine computed.";
        INFERENCE_COMPUTE_OUTPUT_DURATION_SECONDS Histogram
            "onward_inference_compute_output_duration_seconds" ["model" "version"]
            "Of a run, the seconds from then on, until its outputs were read.";
        INFERENCE_BATCH_SIZE Histogram "onward_inference_batch_size" ["model" "version"]
            "Entries of the batch of a run.";
        INFERENCE_IN_FLIGHT Gauge "onward_inference_in_flight" ["model" "version"]
            "Requests inside the model version.";
        INFERENCE_QUEUE_DEPTH Gauge "onward_inference_queue_depth" ["model" "version"]
            "Requests that wait for an instance.";
        INFERENCE_QUEUE_CAPACITY Gauge "onward_inference_queue_capacity" ["model" "version"]
            "Requests that may wait for an instance.";
    }
    MODELS {
        MODEL_VERSION_STATE Gauge "onward_model_version_state" ["model" "state" "version"]
            "Always 1; the label tells the state of the model version.";
        MODEL_CURRENT_VERSION Gauge "onward_model_current_version" ["model"]
            "The version that answers requests which name none.";
        MODEL_CURRENT_CHANGES_TOTAL Counter "onward_model_current_changes_total" ["model"]
            "Changes of the version that answers requests which name none.";
        MODEL_INSTANCES Gauge "onward_model_instances" ["model" "version"]
            "Instances of the model version.";
        MODEL_LOADS_TOTAL Counter "onward_model_loads_total" ["model" "result"]
            "Loads of versions that came to an end: success or failure.";
        MODEL_LOAD_DURATION_SECONDS Gauge "onward_model_load_duration_seconds" ["model" "version"]
            "Seconds that the model version took to become ready.";
        MODEL_LOAD_PHASE_DURATION_SECONDS Gauge "onward_model_load_phase_duration_seconds"
            ["model" "phase" "version"]
            "Of those, the seconds of each phase: fetch, verify, load, warm_up.";
        MODEL_OPERATIONS_TOTAL Counter "onward_model_operations_total" ["operation" "result"]
            "Changes of models that came to an end: succeeded, failed or cancelled.";
        MODEL_SWAPS_TOTAL Counter "onward_model_swaps_total" ["model"]
            "Swaps of the model that came to a good end.";
        MODEL_ROLLBACKS_TOTAL Counter "onward_model_rollbacks_total" ["cause" "model"]
            "Times that a version was taken back: manual for one who asked for it, canary for one on trial that failed.";
        MODEL_DECISIONS_TOTAL Counter "onward_model_decisions_total" ["decision" "model"]
            "Decisions on versions that are on trial: step_passed, promoted, baked, rolled_back.";
        MODEL_EVICTIONS_TOTAL Counter "onward_model_evictions_total" ["model"]
            "Times that the model was taken from memory to make room, or because nobody used it.";
        MODEL_LAST_USED_TIMESTAMP_SECONDS Gauge "onward_model_last_used_timestamp_seconds"
            ["model" "version"]
            "When the last request of the model version came to its end, in seconds since 1970.";
    }
    MEMORY {
        MODEL_MEMORY_BUDGET_BYTES Gauge "onward_model_memory_budget_bytes" []
            "Bytes that models may take of the memory together; there is none without a bound.";
        MODEL_MEMORY_USED_BYTES Gauge "onward_model_memory_used_bytes" []
            "Bytes that are reserved for models together, by estimate.";
        MODEL_MEMORY_RESERVED_BYTES Gauge "onward_model_memory_reserved_bytes" ["model" "version"]
            "Bytes that are reserved for the model version, by estimate.";
        MODEL_MEMORY_MEASURED_BYTES Gauge "onward_model_memory_measured_bytes" ["model" "version"]
            "Bytes by which its load has let the resident memory grow, where nothing else did at the time.";
    }
    TRAFFIC {
        MODEL_TRAFFIC_WEIGHT Gauge "onward_model_traffic_weight_ratio" ["model" "version"]
            "The part of the requests without a version that the version gets, from 0 to 1.";
        MODEL_ALIAS_VERSION Gauge "onward_model_alias_version" ["alias" "model"]
            "The version that the alias stands for.";
        MODEL_SHADOW_SHARE Gauge "onward_model_shadow_share_ratio" ["model" "version"]
            "The part of the requests of which the version gets copies, from 0 to 1.";
        MODEL_SHADOW_COMPARISONS_TOTAL Counter "onward_model_shadow_comparisons_total"
            ["model" "result" "version"]
            "Requests that were to be copied to a shadow: its answer was the same or different, it failed, or the copy was skipped as the server was busy.";
    }
    CACHE {
        RESPONSE_CACHE_HITS_TOTAL Counter "onward_response_cache_hits_total" ["model" "version"]
            "Requests of the model version whose answer had been kept.";
        RESPONSE_CACHE_MISSES_TOTAL Counter "onward_response_cache_misses_total" ["model" "version"]
            "Requests of the model version that were run, as no answer had been kept.";
        RESPONSE_CACHE_ANSWERS Gauge "onward_response_cache_answers" []
            "Answers that are kept, of all models.";
        RESPONSE_CACHE_BYTES Gauge "onward_response_cache_bytes" []
            "Bytes that they take, about.";
        RESPONSE_CACHE_CAPACITY_BYTES Gauge "onward_response_cache_capacity_bytes" []
            "Bytes that they may take.";
    }
    PROCESS {
        PROCESS_CPU_SECONDS_TOTAL Counter "process_cpu_seconds_total" []
            "Seconds of the processor, of all threads together.";
        PROCESS_RESIDENT_MEMORY_BYTES Gauge "process_resident_memory_bytes" []
            "Resident memory.";
        PROCESS_VIRTUAL_MEMORY_BYTES Gauge "process_virtual_memory_bytes" []
            "Virtual memory.";
        PROCESS_OPEN_FDS Gauge "process_open_fds" []
            "Files that are open, sockets included.";
        PROCESS_MAX_FDS Gauge "process_max_fds" []
            "Files that may be open.";
        PROCESS_THREADS Gauge "process_threads" []
            "Threads.";
        PROCESS_START_TIME_SECONDS Gauge "process_start_time_seconds" []
            "When the process was started, in seconds since 1970.";
    }
    TRITON {
        NV_REQUEST_SUCCESS Counter "nv_inference_request_success" ["model" "version"]
            "Requests that were answered.";
        NV_REQUEST_FAILURE Counter "nv_inference_request_failure" ["model" "version"]
            "Requests that were not.";
        NV_COUNT Counter "nv_inference_count" ["model" "version"]
            "Entries of the batches of requests that were answered.";
        NV_EXEC_COUNT Counter "nv_inference_exec_count" ["model" "version"]
            "Runs, which several requests may share.";
        NV_REQUEST_DURATION Counter "nv_inference_request_duration_us" ["model" "version"]
            "Microseconds of requests that were answered, all together.";
        NV_QUEUE_DURATION Counter "nv_inference_queue_duration_us" ["model" "version"]
            "Microseconds that these had waited for an instance.";
        NV_COMPUTE_INPUT_DURATION Counter "nv_inference_compute_input_duration_us" ["model" "version"]
            "Microseconds of runs until the engine had their inputs.";
        NV_COMPUTE_INFER_DURATION Counter "nv_inference_compute_infer_duration_us" ["model" "version"]
            "Microseconds that the engine computed.";
        NV_COMPUTE_OUTPUT_DURATION Counter "nv_inference_compute_output_duration_us" ["model" "version"]
            "Microseconds of runs from then on, until their outputs were read.";
        NV_PENDING Gauge "nv_inference_pending_request_count" ["model" "version"]
            "Requests that wait for an instance.";
    }
}

/// Every group of what is always there, with its title in the documentation.
pub(super) const GROUPS: [(&str, &[Described]); 8] = [
    ("The server", SERVER),
    ("Requests and connections", INTERFACES),
    ("Inference", INFERENCE),
    ("Models", MODELS),
    ("Memory of models", MEMORY),
    ("Traffic and shadows", TRAFFIC),
    ("Kept answers", CACHE),
    ("The process", PROCESS),
];
