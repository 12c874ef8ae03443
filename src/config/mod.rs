//! Configuration: defaults, then the file, then the environment, then flags.
//!
//! A setting has one dotted name everywhere: `server.listen` is a key of the file, the variable
//! `ONWARD_SERVER_LISTEN` and the flag `--server.listen`. Every mistake is reported at once.

mod layers;
mod settings;
mod value;

use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

pub use layers::{ConfigError, Layers, Mistake};
pub use settings::{SETTINGS, Setting};
pub use value::{ByteSize, LogFormat, Percent, WebhookUrl};

use crate::lifecycle::{EventKind, LifecycleConfig};
use crate::model::{MOST_INSTANCES, ModelName};

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The HTTP server.
    pub server: ServerConfig,
    /// The repository and what is loaded from it.
    pub models: ModelsConfig,
    /// How models run.
    pub inference: InferenceConfig,
    /// ONNX Runtime.
    pub onnxruntime: OnnxRuntimeConfig,
    /// The times of the application's life.
    pub lifecycle: LifecycleConfig,
    /// Events.
    pub events: EventsConfig,
    /// Events sent to others.
    pub webhooks: WebhooksConfig,
    /// When the checks that are always there fail.
    pub health: HealthConfig,
    /// Logs.
    pub telemetry: TelemetryConfig,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// A file to write the address to that is listened on, for those who start with port 0.
    pub port_file: Option<PathBuf>,
    /// Threads that serve connections; one per core where `None`.
    pub workers: Option<NonZeroUsize>,
    /// The largest request body.
    pub max_body_size: ByteSize,
    /// The deadline of an inference, from the moment its head was read.
    pub request_timeout: Duration,
    /// Whether models may be changed by anybody who can reach `listen`, where that is not loopback.
    pub allow_unauthenticated_management: bool,
}

/// The repository and what is loaded from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsConfig {
    /// The repository's folder.
    pub repository: PathBuf,
    /// The models without which the server is not ready.
    pub required: Vec<ModelName>,
    /// Loads that run at once.
    pub load_threads: NonZeroUsize,
    /// How long one load may take; then it has failed.
    pub load_timeout: Duration,
    /// How long an unload or a swap waits for requests before it reports that they still run.
    pub drain_timeout: Duration,
}

/// How models run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceConfig {
    /// Instances per version; one per core where `None`.
    pub instances: Option<NonZeroUsize>,
    /// Requests that may wait per version.
    pub queue_capacity: NonZeroUsize,
}

/// ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxRuntimeConfig {
    /// The library's file; searched for where `None`.
    pub library: Option<PathBuf>,
    /// Threads that one run may use.
    pub intra_op_threads: NonZeroUsize,
}

/// Events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventsConfig {
    /// How many are kept, and how far a reader may lag behind.
    pub history: NonZeroUsize,
}

/// Events sent to others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebhooksConfig {
    /// Where to.
    pub urls: Vec<WebhookUrl>,
    /// Only events of these kinds; all of them where `None`.
    pub kinds: Option<Vec<EventKind>>,
    /// The file with the key that signs them.
    pub secret_file: Option<PathBuf>,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// How often an event is sent before it is given up.
    pub attempts: NonZeroUsize,
}

/// When the checks that are always there fail.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthConfig {
    /// The longest time that a thread which serves connections may be stuck.
    pub max_stall: Duration,
    /// What the file system of the repository must have left.
    pub min_free_disk: ByteSize,
    /// How much of the memory may be used.
    pub max_memory: Percent,
}

/// Logs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Lines for humans or JSON.
    pub log_format: LogFormat,
    /// What is logged, such as `info` or `info,onward::http=debug`.
    pub log_level: String,
}

impl Default for Config {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        let count = |count| NonZeroUsize::new(count).expect("the defaults are not zero");
        Self {
            server: ServerConfig {
                listen: SocketAddr::from(([127, 0, 0, 1], 8000)),
                port_file: None,
                workers: None,
                max_body_size: ByteSize::mebibytes(64),
                request_timeout: seconds(60),
                allow_unauthenticated_management: false,
            },
            models: ModelsConfig {
                repository: PathBuf::from("models"),
                required: Vec::new(),
                load_threads: count(2),
                load_timeout: seconds(300),
                drain_timeout: seconds(30),
            },
            inference: InferenceConfig { instances: None, queue_capacity: count(512) },
            onnxruntime: OnnxRuntimeConfig { library: None, intra_op_threads: count(1) },
            lifecycle: LifecycleConfig {
                startup_timeout: seconds(600),
                shutdown_timeout: seconds(30),
                handler_timeout: seconds(600),
                pre_stop_delay: seconds(3),
                health_interval: seconds(5),
                health_timeout: seconds(2),
                health_failure_threshold: NonZeroU32::MIN,
                health_success_threshold: NonZeroU32::MIN,
            },
            health: HealthConfig {
                max_stall: seconds(10),
                min_free_disk: ByteSize::gibibytes(1),
                max_memory: Percent::new(90),
            },
            events: EventsConfig { history: count(4096) },
            webhooks: WebhooksConfig {
                urls: Vec::new(),
                kinds: None,
                secret_file: None,
                timeout: seconds(10),
                attempts: count(8),
            },
            telemetry: TelemetryConfig {
                log_format: LogFormat::Text,
                log_level: "info".to_owned(),
            },
        }
    }
}

impl Config {
    /// What is wrong with the settings taken together.
    fn contradictions(&self) -> Vec<Mistake> {
        let mut mistakes = self.out_of_range();
        let server = &self.server;
        if server.listen.ip().is_loopback() || server.allow_unauthenticated_management {
            return mistakes;
        }
        let problem = format!(
            "{} can be reached by others, who could load and unload models without credentials; \
             listen on a loopback address, or set server.allow_unauthenticated_management to true \
             where the network keeps strangers out",
            server.listen
        );
        mistakes.push(Mistake { origin: "server.listen".to_owned(), problem });
        mistakes
    }

    /// What no machine can do, or would never end.
    fn out_of_range(&self) -> Vec<Mistake> {
        let most = |key, value: usize, most: usize| {
            let problem = format!("expected {most} at most, got {value}");
            (value > most).then(|| Mistake { origin: String::from(key), problem })
        };
        let some = |key, zero: bool| {
            let problem = "expected more than nothing".to_owned();
            zero.then(|| Mistake { origin: String::from(key), problem })
        };
        let count = |count: Option<NonZeroUsize>| count.map_or(0, NonZeroUsize::get);
        let found = [
            most("server.workers", count(self.server.workers), 1024),
            most("models.load_threads", self.models.load_threads.get(), 256),
            most("inference.instances", count(self.inference.instances), MOST_INSTANCES),
            most("inference.queue_capacity", self.inference.queue_capacity.get(), 1 << 20),
            most("onnxruntime.intra_op_threads", self.onnxruntime.intra_op_threads.get(), 1024),
            most("events.history", self.events.history.get(), 1 << 20),
            most("webhooks.attempts", self.webhooks.attempts.get(), 100),
            some("server.max_body_size", self.server.max_body_size.bytes() == 0),
            some("server.request_timeout", self.server.request_timeout.is_zero()),
            some("lifecycle.health_interval", self.lifecycle.health_interval.is_zero()),
            some("lifecycle.health_timeout", self.lifecycle.health_timeout.is_zero()),
            some("health.max_stall", self.health.max_stall.is_zero()),
        ];
        found.into_iter().flatten().collect()
    }
}
