//! The table of settings: the one place that gives a setting its name, its default and its meaning.

use serde_json::Value as Tree;

use super::value::{Bounds, Raw, Value, Wrong};
use super::{
    AuthConfig, Config, EventsConfig, HealthConfig, InferenceConfig, MetricsConfig, ModelsConfig,
    OnnxRuntimeConfig, ServerConfig, TelemetryConfig, WebhooksConfig,
};
use crate::lifecycle::LifecycleConfig;

/// One setting.
#[derive(Debug, Clone, Copy)]
pub struct Setting {
    /// Its dotted name: a section and a name in it.
    pub key: &'static str,
    /// What stands for its value in help texts.
    pub placeholder: &'static str,
    /// Its value where no layer says otherwise, as text.
    pub default: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    /// Whether a reload changes it; otherwise the server has to be started anew.
    pub reloadable: bool,
    /// Whether its value must not be shown.
    pub secret: bool,
    pub(super) bounds: Bounds,
    pub(super) assign: fn(&mut Config, &Raw, Bounds) -> Result<(), Wrong>,
    pub(super) show: fn(&Config) -> Tree,
    pub(super) same: fn(&Config, &Config) -> bool,
    pub(super) copy: fn(&mut Config, &Config),
    pub(super) schema: fn(Bounds) -> Tree,
}

impl Setting {
    /// The environment variable of the same name: `server.listen` is `ONWARD_SERVER_LISTEN`.
    pub fn variable(&self) -> String {
        format!("ONWARD_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }

    /// The default for readers: an empty list is `none`.
    pub const fn default_text(&self) -> &'static str {
        if self.default.is_empty() { "none" } else { self.default }
    }

    /// The section's name and the setting's in it.
    pub(super) fn names(&self) -> (&'static str, &'static str) {
        self.key.split_once('.').expect("the table joins two names")
    }
}

fn set<T: Value>(slot: &mut T, raw: &Raw, bounds: Bounds) -> Result<(), Wrong> {
    *slot = T::read(raw, bounds)?;
    Ok(())
}

fn default<T: Value>(text: &str) -> T {
    T::read(&Raw::One(text.to_owned()), None).expect("a test reads the table's defaults")
}

/// The schema of the type that `field` gives.
fn schema_of<T: Value>(_field: fn(&Config) -> &T, bounds: Bounds) -> Tree {
    T::schema(bounds)
}

const fn is_secret<T: Value>(_field: fn(&Config) -> &T) -> bool {
    T::SECRET
}

macro_rules! is_live {
    () => {
        false
    };
    (live) => {
        true
    };
}

macro_rules! bounds {
    () => {
        None
    };
    ($low:literal $high:literal) => {
        Some(($low, $high))
    };
}

macro_rules! settings {
    ($($section:ident: $Section:ident {$(
        $field:ident $placeholder:literal = $default:literal
            $(in $low:literal to $high:literal)? $(, $live:ident)?: $help:literal;
    )*})*) => {
        /// Every setting, in the order of the documentation.
        pub const SETTINGS: &[Setting] = &[$($(Setting {
            key: concat!(stringify!($section), ".", stringify!($field)),
            placeholder: $placeholder,
            default: $default,
            help: $help,
            reloadable: is_live!($($live)?),
            secret: is_secret(|config| &config.$section.$field),
            bounds: bounds!($($low $high)?),
            assign: |config, raw, bounds| set(&mut config.$section.$field, raw, bounds),
            show: |config| config.$section.$field.show(),
            same: |one, other| one.$section.$field == other.$section.$field,
            copy: |to, from| to.$section.$field.clone_from(&from.$section.$field),
            schema: |bounds| schema_of(|config| &config.$section.$field, bounds),
        }),*),*];

        impl Default for Config {
            fn default() -> Self {
                Self { $($section: $Section { $($field: default($default)),* }),* }
            }
        }
    };
}

settings! {
    server: ServerConfig {
        listen "ADDRESS:PORT" = "127.0.0.1:8000":
            "where to listen; port 0 takes a free one";
        grpc_listen "ADDRESS:PORT" = "127.0.0.1:8001":
            "where to listen for gRPC alone, or off; gRPC is spoken on the other port too";
        management_listen "ADDRESS:PORT" = "off":
            "where all is answered; inference, metadata and probes alone are on the other ports then";
        tls_certificate "FILE" = "none":
            "the certificate, in PEM, by which clients know the server: all ports speak TLS then; read again when it changes";
        tls_key "FILE" = "none":
            "its key, in PEM";
        tls_client_ca "FILE" = "none":
            "certificates, in PEM: clients have to show one that was issued by one of these";
        port_file "FILE" = "none":
            "a file to write the address to that is listened on";
        workers "COUNT" = "auto" in "1" to "1024":
            "threads that serve connections; one per core";
        max_body_size "SIZE" = "64MiB" in "1B" to "1024GiB", live:
            "the largest body of an inference, or of a load; any other has 64 KiB at most";
        request_timeout "DURATION" = "1m" in "1ms" to "365days", live:
            "the deadline of an inference, its upload included";
        max_connections "COUNT" = "8192" in "1" to "1048576":
            "connections of a port at once; on 64 more, probes alone are answered, and all others wait";
        header_timeout "DURATION" = "10s" in "1ms" to "365days":
            "how long the head of a request may take once it has begun";
        rate_limit "COUNT" = "off" in "1" to "1000000":
            "requests a second of one client, by its address; probes and the port for management have no bound";
        rate_burst "COUNT" = "auto" in "1" to "1000000":
            "requests that a client may send at once; as many as in a second";
        allow_unauthenticated_management "BOOL" = "false":
            "start on an address that others can reach, who may then change models";
    }
    auth: AuthConfig {
        keys_file "FILE" = "none":
            "the API keys, as onward key prints them; read anew when it changes";
        jwks_file "FILE" = "none":
            "the JSON Web Key Set with the keys that sign tokens; read anew when it changes";
        jwt_issuer "TEXT" = "none":
            "what the claim iss of a token has to be";
        jwt_audience "TEXT" = "none":
            "what has to be in the claim aud of a token";
        jwt_roles_claim "CLAIM" = "roles":
            "the claim with roles, or a JSON Pointer to it, such as /realm_access/roles";
        jwt_models_claim "CLAIM" = "models":
            "the claim with the models that a token is for, such as fraud-*; all without it";
        anonymous_roles "ROLES" = "":
            "what callers without a credential may do, some of read, infer and manage";
    }
    models: ModelsConfig {
        repository "FOLDER" = "models":
            "the model repository; or an address, such as s3://bucket/folder";
        mode "MODE" = "none":
            "none: all models are loaded at the start; explicit: only required and declared ones are; poll: the repository is followed; watch: a folder is followed as it changes";
        poll_interval "DURATION" = "15s" in "10ms" to "365days":
            "between two looks at a repository that is followed; with watch, for what goes unnoticed";
        cache "FOLDER" = "onward-cache":
            "where what is downloaded from an object store is kept";
        cache_size "SIZE" = "20GiB" in "0B" to "1048576GiB":
            "how much of it, beyond what is being loaded";
        state "FOLDER" = "none":
            "where what operators decide is kept, so that it outlives the server";
        required "NAMES" = "", live:
            "models without which the server is not ready";
        load_threads "COUNT" = "2" in "1" to "256":
            "loads that run at once";
        load_timeout "DURATION" = "5m" in "1ms" to "365days":
            "to fetch a version, and then again to open it and warm it up; then its load has failed";
        load_attempts "COUNT" = "3" in "1" to "100", live:
            "how often a load is tried that fails for a reason that may pass, such as a file that cannot be read";
        load_backoff "DURATION" = "1s" in "1ms" to "365days", live:
            "the wait before the second attempt; it doubles";
        reconcile_interval "DURATION" = "30s" in "10ms" to "365days", live:
            "between two looks at models that are not what is declared of them; the wait doubles with each failure";
        drain_timeout "DURATION" = "30s" in "0s" to "365days", live:
            "how long a swap or unload waits for requests before it reports";
        keep_previous "DURATION" = "5m" in "0s" to "365days", live:
            "how long a swap keeps the version before loaded, for the way back";
        memory_budget "SIZE" = "0B" in "0B" to "1048576GiB", live:
            "the memory that models may take by estimate, beyond which others go or a load is refused; 0B for no bound";
    }
    inference: InferenceConfig {
        profile "PROFILE" = "throughput":
            "how the cores are divided where the next does not say: throughput: one run for each core; latency: one run that uses them all";
        instances "COUNT" = "auto" in "1" to "256":
            "runs of a model version at once; by the profile";
        queue_capacity "COUNT" = "512" in "1" to "1048576":
            "requests that may wait per model version";
        max_batch_size "COUNT" = "32" in "1" to "4096":
            "entries of requests that wait which share a run, where a model answers them the same; 1 for none";
        response_cache_size "SIZE" = "64MiB" in "0B" to "1048576GiB":
            "answers that are kept in memory for requests that come again, of models that ask for it";
    }
    onnxruntime: OnnxRuntimeConfig {
        library "FILE" = "auto":
            "the ONNX Runtime library; searched for";
        intra_op_threads "COUNT" = "auto" in "1" to "1024":
            "threads that one run may use; by the profile";
        execution_providers "PROVIDERS" = "auto":
            "what runs models that do not say, the first choice first, such as cuda,cpu; cpu";
        cache "FOLDER" = "none":
            "where optimised graphs are kept, so that small models of many parts load faster the next time";
        cache_size "SIZE" = "256MiB" in "0B" to "1048576GiB":
            "how much of them";
    }
    lifecycle: LifecycleConfig {
        startup_timeout "DURATION" = "10m" in "1ms" to "365days":
            "the whole of start-up";
        shutdown_timeout "DURATION" = "30s" in "0s" to "365days", live:
            "the whole of shutdown, after the pre-stop delay";
        handler_timeout "DURATION" = "10m" in "1ms" to "365days":
            "one start-up or shutdown handler, within the whole";
        pre_stop_delay "DURATION" = "3s" in "0s" to "365days", live:
            "how long to go on serving after SIGTERM";
        cleanup_interval "DURATION" = "30s" in "10ms" to "365days":
            "between two rounds of clean-up, in which models go that nobody uses";
        idle_ttl "DURATION" = "0s" in "0s" to "3650days", live:
            "how long a model may be unused before it goes until the next request; 0s for ever";
        health_interval "DURATION" = "5s" in "1ms" to "365days":
            "between two runs of a health check";
        health_timeout "DURATION" = "2s" in "1ms" to "365days":
            "one run of a health check";
        health_failure_threshold "COUNT" = "1" in "1" to "1000":
            "failures in a row before a health check fails";
        health_success_threshold "COUNT" = "1" in "1" to "1000":
            "successes in a row before a health check passes";
    }
    events: EventsConfig {
        history "COUNT" = "4096" in "1" to "1048576":
            "events that are kept for those who come later";
    }
    webhooks: WebhooksConfig {
        urls "URLS" = "":
            "endpoints that every event is sent to";
        kinds "KINDS" = "auto":
            "only events of these kinds; all";
        secret_file "FILE" = "none":
            "the file with the key that signs what is sent";
        timeout "DURATION" = "10s" in "1ms" to "365days":
            "one attempt to send an event";
        attempts "COUNT" = "8" in "1" to "100":
            "attempts before an event is given up";
    }
    health: HealthConfig {
        max_stall "DURATION" = "10s" in "1ms" to "365days":
            "how long a thread that serves connections may be stuck before /livez fails";
        min_free_disk "SIZE" = "1GiB" in "0B" to "1048576GiB":
            "free space of the repository's file system below which the check disk_space fails";
        max_memory "PERCENT" = "90%" in "0%" to "100%":
            "use of the memory above which the check memory_pressure fails";
    }
    metrics: MetricsConfig {
        triton_names "BOOL" = "false":
            "whether /metrics has the names of Triton, nv_inference_*, beside its own";
    }
    telemetry: TelemetryConfig {
        log_format "FORMAT" = "text":
            "what a line of the log is: text or json";
        log_level "FILTER" = "info", live:
            "what is logged, such as debug or info,onward::http=debug";
        access_log "BOOL" = "false", live:
            "whether each request has a line in the log, but for probes and scrapes";
        slow_request "DURATION" = "off" in "1ms" to "365days", live:
            "how long a request may take before a line of the log tells where its time went";
        otlp_endpoint "URL" = "none":
            "the OpenTelemetry collector that spans are sent to, such as http://127.0.0.1:4317";
        otlp_protocol "PROTOCOL" = "grpc":
            "what they are sent by: grpc or http/protobuf";
        otlp_timeout "DURATION" = "10s" in "1ms" to "365days":
            "one attempt to send spans, and what they may take of the shutdown";
        otlp_headers "HEADERS" = "":
            "what goes with them, such as api-key=secret";
        trace_sample_ratio "RATIO" = "1.0", live:
            "the part of the traces that begin here which is recorded; callers decide for theirs";
        service_name "TEXT" = "onward":
            "the name of the server in traces";
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_within_their_bounds_and_written_as_they_are_shown() {
        for setting in SETTINGS {
            let mut config = Config::default();
            let raw = Raw::One(setting.default.to_owned());
            (setting.assign)(&mut config, &raw, setting.bounds).unwrap();
            assert_eq!(config, Config::default(), "{}", setting.key);
            let shown = match (setting.show)(&config) {
                Tree::String(text) => text,
                Tree::Array(items) if items.is_empty() => String::new(),
                other => other.to_string(),
            };
            assert_eq!(shown, setting.default, "{}", setting.key);
        }
    }

    #[test]
    fn bounds_are_values() {
        for setting in SETTINGS {
            let Some((low, high)) = setting.bounds else { continue };
            for text in [low, high] {
                let raw = Raw::One(text.to_owned());
                let read = (setting.assign)(&mut Config::default(), &raw, setting.bounds);
                assert!(read.is_ok(), "{}: {text}", setting.key);
            }
        }
    }

    #[test]
    fn a_model_may_say_what_the_table_may() {
        let instances = SETTINGS.iter().find(|setting| setting.key == "inference.instances");
        let (_, most) = instances.unwrap().bounds.unwrap();
        assert_eq!(most, crate::model::MOST_INSTANCES.to_string());
    }

    #[test]
    fn what_is_counted_or_timed_is_bounded() {
        for setting in SETTINGS {
            let sized = ["COUNT", "DURATION", "SIZE", "PERCENT"].contains(&setting.placeholder);
            assert_eq!(setting.bounds.is_some(), sized, "{}", setting.key);
        }
    }
}
