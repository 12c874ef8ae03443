//! Configuration: defaults, then the file, then the environment, then flags.
//!
//! A setting has one dotted name everywhere: `server.listen` is a key of the file, the variable
//! `ONWARD_SERVER_LISTEN` and the flag `--server.listen`. Every mistake is reported at once. The table
//! [`SETTINGS`] has each name, default, bound and meaning; help, README, JSON Schema and what
//! `onward config` prints are made from it.

mod effective;
mod file;
mod layers;
mod mistake;
mod nearest;
mod render;
mod schema;
mod settings;
mod tree;
mod value;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

pub use effective::{Effective, Reloaded, Row};
pub use layers::Layers;
pub use mistake::{ConfigError, Mistake, Origin};
pub use schema::schema;
pub use settings::{SETTINGS, Setting};
pub use value::{
    Auto, ByteSize, HttpUrl, LoadMode, LogFilter, LogFormat, OtlpHeader, OtlpProtocol, Percent,
    Profile, Ratio, Switch, Words,
};

use crate::auth::Role;
use crate::inference::ExecutionProvider;
use crate::lifecycle::{EventKind, LifecycleConfig};
use crate::model::ModelName;
use crate::tls::TlsFiles;

/// The whole configuration, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The HTTP server.
    pub server: ServerConfig,
    /// Who may do what.
    pub auth: AuthConfig,
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
    /// Metrics.
    pub metrics: MetricsConfig,
    /// Logs and traces.
    pub telemetry: TelemetryConfig,
}

/// The HTTP server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where to listen for gRPC alone.
    pub grpc_listen: Switch<SocketAddr>,
    /// Where all is answered, and what is for operators nowhere else.
    pub management_listen: Switch<SocketAddr>,
    /// The certificate by which clients know the server, where it speaks TLS.
    pub tls_certificate: Option<PathBuf>,
    /// Its key.
    pub tls_key: Option<PathBuf>,
    /// The certificates of which clients have to show one that was issued by them.
    pub tls_client_ca: Option<PathBuf>,
    /// A file to write the address to that is listened on, for those who start with port 0.
    pub port_file: Option<PathBuf>,
    /// Threads that serve connections; the server chooses one per core.
    pub workers: Auto<NonZeroUsize>,
    /// The largest request body.
    pub max_body_size: ByteSize,
    /// The deadline of an inference, from the moment its head was read.
    pub request_timeout: Duration,
    /// Connections of one port at once, but for some that are left for probes.
    pub max_connections: NonZeroUsize,
    /// How long the head of a request may take once it has begun.
    pub header_timeout: Duration,
    /// Requests a second of one client.
    pub rate_limit: Switch<NonZeroUsize>,
    /// Requests that a client may send at once; the server chooses as many as in a second.
    pub rate_burst: Auto<NonZeroUsize>,
    /// Whether models may be changed by anybody who can reach `management_listen`, or `listen` or
    /// `grpc_listen` where there is none, where those are not loopback.
    pub allow_unauthenticated_management: bool,
}

impl ServerConfig {
    /// Where models can be changed, with the setting's key.
    pub(crate) fn management(&self) -> Vec<(&'static str, SocketAddr)> {
        if let Some(address) = self.management_listen.on() {
            return vec![("server.management_listen", *address)];
        }
        let grpc = self.grpc_listen.on().map(|address| ("server.grpc_listen", *address));
        std::iter::once(("server.listen", self.listen)).chain(grpc).collect()
    }

    /// Where this machine asks for the server's health: where others cannot be in the way.
    pub fn probed(&self) -> SocketAddr {
        self.management_listen.on().copied().unwrap_or(self.listen)
    }

    /// The files that TLS is made from, where the server speaks it.
    pub fn tls(&self) -> Option<TlsFiles> {
        Some(TlsFiles {
            certificate: self.tls_certificate.clone()?,
            key: self.tls_key.clone()?,
            client_ca: self.tls_client_ca.clone(),
        })
    }
}

/// Who may do what.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuthConfig {
    /// The file of API keys.
    pub keys_file: Option<PathBuf>,
    /// The JSON Web Key Set by which tokens are read.
    pub jwks_file: Option<PathBuf>,
    /// Who has to have issued a token.
    pub jwt_issuer: Option<Words>,
    /// Whom a token has to be for.
    pub jwt_audience: Option<Words>,
    /// The claim with roles.
    pub jwt_roles_claim: Words,
    /// The claim with models.
    pub jwt_models_claim: Words,
    /// What callers without a credential may do, where others have one.
    pub anonymous_roles: Vec<Role>,
}

impl AuthConfig {
    /// Whether callers are asked for a credential; otherwise everybody may do everything.
    pub const fn is_on(&self) -> bool {
        self.keys_file.is_some() || self.jwks_file.is_some()
    }
}

/// The repository and what is loaded from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ModelsConfig {
    /// The repository's folder.
    pub repository: PathBuf,
    /// Which models are loaded without being asked for.
    pub mode: LoadMode,
    /// Between two looks at the repository, where it is followed.
    pub poll_interval: Duration,
    /// Where what is downloaded from an object store is kept.
    pub cache: PathBuf,
    /// How many bytes it may have.
    pub cache_size: ByteSize,
    /// Where what operators decide is kept.
    pub state: Option<PathBuf>,
    /// The models without which the server is not ready.
    pub required: Vec<ModelName>,
    /// Loads that run at once.
    pub load_threads: NonZeroUsize,
    /// How long one load may take; then it has failed.
    pub load_timeout: Duration,
    /// How often a load is tried that fails for a reason that may pass.
    pub load_attempts: NonZeroUsize,
    /// The wait before the second attempt; it doubles.
    pub load_backoff: Duration,
    /// Between two attempts to make a model what is declared of it.
    pub reconcile_interval: Duration,
    /// How long an unload or a swap waits for requests before it reports that they still run.
    pub drain_timeout: Duration,
    /// How long a swap keeps the version before loaded; zero for not at all.
    pub keep_previous: Duration,
    /// The memory that models may take, by estimate; zero for no bound.
    pub memory_budget: ByteSize,
}

/// The schemes of object stores.
const STORES: [&str; 10] =
    ["s3", "s3a", "gs", "az", "adl", "azure", "abfs", "abfss", "http", "https"];

impl ModelsConfig {
    /// The scheme of what is written as an address, and is none of an object store.
    fn unknown_scheme(&self) -> Option<&str> {
        let (scheme, _) = self.repository.to_str()?.split_once("://")?;
        let is_scheme = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
        (is_scheme && self.store().is_none()).then_some(scheme)
    }

    /// The address of the repository, where it is in an object store and not in a folder.
    pub fn store(&self) -> Option<&str> {
        let text = self.repository.to_str()?;
        let (scheme, _) = text.split_once("://")?;
        STORES.contains(&scheme.to_ascii_lowercase().as_str()).then_some(text)
    }
}

/// How models run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InferenceConfig {
    /// How the cores are divided.
    pub profile: Profile,
    /// Instances per version; the server chooses by the profile.
    pub instances: Auto<NonZeroUsize>,
    /// Requests that may wait per version.
    pub queue_capacity: NonZeroUsize,
    /// The most entries that a batch is made of.
    pub max_batch_size: NonZeroUsize,
    /// The bytes of answers that are kept, of models that ask for it.
    pub response_cache_size: ByteSize,
}

/// ONNX Runtime.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OnnxRuntimeConfig {
    /// The library's file; the server searches for it.
    pub library: Auto<PathBuf>,
    /// Threads that one run may use; the server chooses by the profile.
    pub intra_op_threads: Auto<NonZeroUsize>,
    /// What runs models that do not say; the server chooses the CPU.
    pub execution_providers: Auto<Vec<ExecutionProvider>>,
    /// Where optimised graphs are kept, if they are.
    pub cache: Option<PathBuf>,
    /// How many bytes they may have together.
    pub cache_size: ByteSize,
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
    pub urls: Vec<HttpUrl>,
    /// Only events of these kinds; the server chooses all.
    pub kinds: Auto<Vec<EventKind>>,
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

/// Metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MetricsConfig {
    /// Whether what Triton tells of its models is told by Triton's names too.
    pub triton_names: bool,
}

/// Logs and traces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TelemetryConfig {
    /// Lines for humans or JSON.
    pub log_format: LogFormat,
    /// What is logged, such as `info` or `info,onward::http=debug`.
    pub log_level: LogFilter,
    /// Whether each request has a line.
    pub access_log: bool,
    /// How long a request may take that has no line for it.
    pub slow_request: Switch<Duration>,
    /// Where spans are sent to, if they are.
    pub otlp_endpoint: Option<HttpUrl>,
    /// What they are sent by.
    pub otlp_protocol: OtlpProtocol,
    /// How long one attempt to send some may take.
    pub otlp_timeout: Duration,
    /// What goes with them.
    pub otlp_headers: Vec<OtlpHeader>,
    /// Of the traces that begin here, the part that is recorded.
    pub trace_sample_ratio: Ratio,
    /// By which name the server is known in traces.
    pub service_name: Words,
}
