//! `onward bench`: how much of a model a server answers, and how fast.

mod input;
mod latencies;

use std::fmt::Write as _;
use std::io;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use reqwest::StatusCode;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use url::Url;

use super::client::{RemoteError, Server};
use crate::terminal;
pub(super) use input::Shape;
use input::{Body, Form};
use latencies::Latencies;

/// The header that tells how long the JSON is, after which the bytes of tensors come.
const HEADER_LENGTH: HeaderName = HeaderName::from_static("inference-header-content-length");

/// The time after a failure.
const PAUSE: Duration = Duration::from_millis(10);

/// The part of the time before the clock starts.
const WARM_UP: u32 = 10;

/// What is to be measured.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) model: String,
    pub(super) version: Option<String>,
    pub(super) connections: NonZeroUsize,
    pub(super) duration: Duration,
    /// Entries of a batch, where the model takes them.
    pub(super) batch: NonZeroUsize,
    /// What free dimensions are to be, by the input's name.
    pub(super) shapes: Vec<Shape>,
    pub(super) as_json: bool,
    /// A body to send as it is.
    pub(super) body: Option<PathBuf>,
}

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BenchError {
    /// The server, or the way there.
    #[error(transparent)]
    Remote(#[from] RemoteError),
    /// The file that was to be sent.
    #[error("{path} cannot be read")]
    File {
        /// Its path.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// What a request would have to have is not known.
    #[error("{0}")]
    Input(String),
}

/// What was measured.
pub(super) struct Measured {
    plan: Plan,
    /// Of what each request is made.
    sent: String,
    took: Duration,
    tally: Tally,
    /// What of a request's time was spent where inside the server, in microseconds.
    inside: Vec<(&'static str, f64)>,
}

/// The answers of a connection, or of all.
#[derive(Default)]
struct Tally {
    latencies: Latencies,
    /// Refused as too many: 429.
    shed: u64,
    failed: u64,
    /// What the first failure was.
    first: Option<String>,
}

impl Tally {
    fn add(&mut self, other: Self) {
        self.latencies.add_all(other.latencies);
        self.shed += other.shed;
        self.failed += other.failed;
        self.first = self.first.take().or(other.first);
    }
}

/// Asks a model for a while, over some connections at once.
///
/// # Errors
/// [`BenchError`].
pub(super) async fn run(server: &Server, plan: Plan) -> Result<Measured, BenchError> {
    let path = model_path(&plan);
    let body = match &plan.body {
        None => {
            let metadata = server.get(&path).await?;
            server.is_ours(&metadata, "inputs")?;
            let metadata = terminal::safe_value(&metadata);
            input::generated(&metadata, &plan).map_err(BenchError::Input)?
        }
        Some(file) => read(file)?,
    };
    let target = Arc::new(Target::new(server, &path, &body));
    target.try_once().await?;
    target.for_a_while(plan.connections, plan.duration / WARM_UP).await;
    let statistics = [path.as_slice(), &["stats".to_owned()]].concat();
    // A server may be without them, or be gone by the end: what was measured is told all the same.
    let before = server.get(&statistics).await.unwrap_or_default();
    let began = Instant::now();
    let tally = target.for_a_while(plan.connections, plan.duration).await;
    let took = began.elapsed();
    let after = server.get(&statistics).await.unwrap_or_default();
    Ok(Measured { plan, sent: body.told, took, tally, inside: inside(&before, &after) })
}

fn model_path(plan: &Plan) -> Vec<String> {
    let model = ["v2", "models", &plan.model].map(str::to_owned).into_iter();
    let version = plan.version.iter().flat_map(|version| ["versions".to_owned(), version.clone()]);
    model.chain(version).collect()
}

fn read(path: &PathBuf) -> Result<Body, BenchError> {
    let failed = |source| BenchError::File { path: path.display().to_string(), source };
    let bytes = std::fs::read(path).map_err(failed)?;
    let told = path.display().to_string();
    Ok(Body { bytes: bytes.into(), form: Form::Json, told })
}

/// Where requests go, and what each of them is.
struct Target {
    client: reqwest::Client,
    url: Url,
    headers: HeaderMap,
    body: Bytes,
}

impl Target {
    fn new(server: &Server, path: &[String], body: &Body) -> Self {
        let path = [path, &["infer".to_owned()]].concat();
        let mut headers = HeaderMap::new();
        let kind = match body.form {
            Form::Json => "application/json",
            Form::Binary { header } => {
                headers.insert(HEADER_LENGTH, HeaderValue::from(header));
                "application/octet-stream"
            }
        };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        let (client, url) = (server.client(), server.at(&path));
        Self { client, url, headers, body: body.bytes.clone() }
    }

    async fn ask(&self) -> reqwest::Result<(StatusCode, Bytes)> {
        let request = self.client.post(self.url.clone()).headers(self.headers.clone());
        let answer = request.body(self.body.clone()).send().await?;
        Ok((answer.status(), answer.bytes().await?))
    }

    async fn try_once(&self) -> Result<(), BenchError> {
        let asked = self.ask().await;
        let (status, body) = asked.map_err(|error| RemoteError::unreachable(&self.url, &error))?;
        if status.is_success() {
            return Ok(());
        }
        Err(RemoteError::refused(&self.url, status, &body).into())
    }

    async fn for_a_while(self: &Arc<Self>, connections: NonZeroUsize, duration: Duration) -> Tally {
        let end = Instant::now() + duration;
        let mut asking = JoinSet::new();
        for _ in 0..connections.get() {
            let target = Arc::clone(self);
            asking.spawn(async move { target.until(end).await });
        }
        let mut sum = Tally::default();
        asking.join_all().await.into_iter().for_each(|tally| sum.add(tally));
        sum
    }

    async fn until(&self, end: Instant) -> Tally {
        let mut tally = Tally::default();
        loop {
            let began = Instant::now();
            if began >= end {
                return tally;
            }
            let problem = match self.ask().await {
                Ok((status, _)) if status.is_success() => {
                    tally.latencies.add(began.elapsed());
                    continue;
                }
                Ok((StatusCode::TOO_MANY_REQUESTS, _)) => {
                    tally.shed += 1;
                    continue;
                }
                Ok((status, body)) => RemoteError::refused(&self.url, status, &body).to_string(),
                Err(error) => RemoteError::unreachable(&self.url, &error).to_string(),
            };
            tally.failed += 1;
            tally.first.get_or_insert(problem);
            // Or a server that is gone would be asked without end.
            sleep(PAUSE).await;
        }
    }
}

/// Where the time of a request went inside the server between two looks at its statistics.
fn inside(before: &Value, after: &Value) -> Vec<(&'static str, f64)> {
    let number = |statistics: &Value, part: &str, what: &str| {
        let place = format!("/model_stats/0/inference_stats/{part}/{what}");
        statistics.pointer(&place).and_then(Value::as_f64).unwrap_or_default()
    };
    let parts = [
        ("total", "success"),
        ("queue", "queue"),
        ("input", "compute_input"),
        ("compute", "compute_infer"),
        ("output", "compute_output"),
    ];
    let of = |(name, part): (&'static str, &str)| {
        let grown = |what: &str| number(after, part, what) - number(before, part, what);
        let count = grown("count");
        (count > 0.0).then(|| (name, grown("ns") / count / 1000.0))
    };
    parts.into_iter().filter_map(of).collect()
}

impl Measured {
    /// What went wrong, where something did.
    pub(super) fn failure(&self) -> Option<String> {
        let Tally { latencies, failed, shed, first } = &self.tally;
        match first {
            Some(first) => Some(format!("{failed} requests failed, the first with: {first}")),
            None if latencies.count() == 0 => {
                Some(format!("nothing was answered, {shed} were shed"))
            }
            None => None,
        }
    }

    fn rate(&self) -> f64 {
        let count = self.tally.latencies.count();
        f64::from(u32::try_from(count).unwrap_or(u32::MAX)) / self.took.as_secs_f64()
    }

    /// For humans.
    pub(super) fn text(&self) -> String {
        let Self { plan, sent, took, tally, inside } = self;
        let latencies = &tally.latencies;
        let mut out = String::new();
        let version = plan.version.as_ref().map(|version| format!(" version {version}"));
        let head = format!(
            "{}{}: {sent}, {} connections, {:.1} s\n\n{:.0} requests a second: {} answered, {} shed, \
             {} failed\n",
            plan.model,
            version.unwrap_or_default(),
            plan.connections,
            took.as_secs_f64(),
            self.rate(),
            latencies.count(),
            tally.shed,
            tally.failed,
        );
        out.push_str(&head);
        let quantiles = QUANTILES.iter().filter_map(|(name, share)| {
            Some(format!("{name} {}", milliseconds(latencies.quantile(*share)?)))
        });
        let quantiles: Vec<String> = quantiles.collect();
        // Writing to a text cannot fail.
        writeln!(out, "{}", quantiles.join("   ")).ok();
        out.push_str(&latencies.histogram());
        if !inside.is_empty() {
            let parts = inside.iter().map(|(name, micros)| format!("{name} {micros:.1} us"));
            let parts: Vec<String> = parts.collect();
            writeln!(out, "in the server, on average: {}", parts.join(", ")).ok();
        }
        out
    }

    /// For programs.
    pub(super) fn json(&self) -> Value {
        let latencies = &self.tally.latencies;
        let quantile = |(name, share): &(&str, f64)| {
            let seconds = latencies.quantile(*share).map(|latency| latency.as_secs_f64());
            ((*name).to_owned(), json!(seconds.map(|seconds| seconds * 1000.0)))
        };
        let quantiles: serde_json::Map<String, Value> = QUANTILES.iter().map(quantile).collect();
        let inside = self.inside.iter().map(|(name, micros)| ((*name).to_owned(), json!(micros)));
        let inside: serde_json::Map<String, Value> = inside.collect();
        json!({
            "model": self.plan.model,
            "version": self.plan.version,
            "sent": self.sent,
            "connections": self.plan.connections,
            "seconds": self.took.as_secs_f64(),
            "requests_per_second": self.rate(),
            "answered": latencies.count(),
            "shed": self.tally.shed,
            "failed": self.tally.failed,
            "latency_ms": quantiles,
            "server_us": inside,
        })
    }
}

const QUANTILES: [(&str, f64); 5] =
    [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99.9", 0.999), ("max", 1.0)];

fn milliseconds(time: Duration) -> String {
    format!("{:.2} ms", time.as_secs_f64() * 1000.0)
}
