//! The table of settings: the one place that gives a setting its name and its meaning.

use super::Config;
use super::value::Value;

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// Its dotted name.
    pub key: &'static str,
    /// What stands for its value in help texts.
    pub placeholder: &'static str,
    /// What it does, in one line.
    pub help: &'static str,
    pub(super) assign: fn(&mut Config, &str) -> Result<(), String>,
}

impl Setting {
    /// The environment variable of the same name: `server.listen` is `ONWARD_SERVER_LISTEN`.
    pub fn variable(&self) -> String {
        format!("ONWARD_{}", self.key.replace('.', "_").to_ascii_uppercase())
    }
}

fn set<T: Value>(slot: &mut T, text: &str) -> Result<(), String> {
    *slot = T::parse(text)?;
    Ok(())
}

macro_rules! settings {
    ($($section:ident . $field:ident $placeholder:literal $help:literal;)*) => {
        &[$(Setting {
            key: concat!(stringify!($section), ".", stringify!($field)),
            placeholder: $placeholder,
            help: $help,
            assign: |config, text| set(&mut config.$section.$field, text),
        }),*]
    };
}

/// Every setting, in the order of the documentation.
pub const SETTINGS: &[Setting] = settings! {
    server.listen "ADDRESS:PORT" "where to listen; port 0 takes a free one [127.0.0.1:8000]";
    server.port_file "FILE" "write the address that is listened on to this file [none]";
    server.workers "COUNT" "threads that serve connections [auto: one per core]";
    server.max_body_size "SIZE" "the largest request body [64MiB]";
    server.request_timeout "DURATION" "the deadline of an inference [60s]";
    server.allow_unauthenticated_management "BOOL" "let anybody who can reach a non-loopback address change models [false]";
    models.repository "FOLDER" "the model repository [models]";
    models.required "NAMES" "models without which the server is not ready, separated by commas [none]";
    models.load_threads "COUNT" "loads that run at once [2]";
    models.load_timeout "DURATION" "one load; then it has failed [5m]";
    models.drain_timeout "DURATION" "how long a swap or unload waits for requests before it reports [30s]";
    inference.instances "COUNT" "instances per model version [auto: one per core]";
    inference.queue_capacity "COUNT" "requests that may wait per model version [512]";
    onnxruntime.library "FILE" "the ONNX Runtime library [auto: searched for]";
    onnxruntime.intra_op_threads "COUNT" "threads that one inference may use [1]";
    lifecycle.startup_timeout "DURATION" "the whole of start-up [10m]";
    lifecycle.shutdown_timeout "DURATION" "the whole of shutdown, after the pre-stop delay [30s]";
    lifecycle.handler_timeout "DURATION" "one start-up or shutdown handler [10m]";
    lifecycle.pre_stop_delay "DURATION" "how long to go on serving after SIGTERM [3s]";
    lifecycle.health_interval "DURATION" "between two runs of a health check [5s]";
    lifecycle.health_timeout "DURATION" "one run of a health check [2s]";
    events.history "COUNT" "events that are kept for those who come later [4096]";
    webhooks.urls "URLS" "endpoints that every event is sent to, separated by commas [none]";
    webhooks.kinds "KINDS" "only events of these kinds, separated by commas [auto: all]";
    webhooks.secret_file "FILE" "the file with the key that signs what is sent [none]";
    webhooks.timeout "DURATION" "one attempt to send an event [10s]";
    webhooks.attempts "COUNT" "attempts before an event is given up [8]";
    lifecycle.health_failure_threshold "COUNT" "failures in a row before a health check fails [1]";
    lifecycle.health_success_threshold "COUNT" "successes in a row before a health check passes [1]";
    health.max_stall "DURATION" "how long a thread that serves connections may be stuck before the server is not live [10s]";
    health.min_free_disk "SIZE" "free space below which the check disk_space fails [1GiB]";
    health.max_memory "PERCENT" "use of memory above which the check memory_pressure fails [90%]";
    telemetry.log_format "FORMAT" "text or json [text]";
    telemetry.log_level "FILTER" "what is logged, such as debug or info,onward::http=debug [info]";
};
