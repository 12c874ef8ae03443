//! The server, over HTTP.

use std::fs;
use std::path::Path;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, HeaderMap, HeaderValue};
use reqwest::{Certificate, Method, StatusCode};
use serde_json::Value;
use url::Url;

use super::order::Change;
use crate::terminal::safe;

/// How long a connection, and each answer, may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(30);

/// The largest answer, in bytes.
const LARGEST: usize = 64 << 20;

/// Which server it is, and who asks.
#[derive(Debug)]
pub(crate) struct Place<'a> {
    /// Its address: `http` or `https`.
    pub(crate) url: &'a str,
    /// Whom it is to take for its certificate's authority, beside those of the system.
    pub(crate) authority: Option<&'a Path>,
    /// What it is shown.
    pub(crate) key: Option<&'a str>,
}

/// A server that runs.
#[derive(Debug)]
pub(crate) struct Server {
    url: Url,
    client: reqwest::Client,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RemoteError {
    #[error(
        "'{url}' is not the address of a server with its scheme, such as http://127.0.0.1:8000"
    )]
    Address { url: String },
    #[error("the server's address has {what}")]
    Superfluous { what: &'static str },
    #[error("the key has characters that no header may have")]
    Key,
    #[error("{path}: {problem}")]
    Authority { path: String, problem: String },
    #[error("{url}: {problem}")]
    Unreachable { url: String, problem: String },
    #[error("{error}{}", Code(.code))]
    Refused { status: StatusCode, error: String, code: String, body: Value },
    #[error("{url} does not answer as this server does: {problem}")]
    Foreign { url: String, problem: String },
}

impl RemoteError {
    /// What the server has answered instead of what it was asked for.
    pub(super) fn refused(url: &Url, status: StatusCode, body: &[u8]) -> Self {
        let body = serde_json::from_slice::<Value>(body).unwrap_or_default();
        let text = |key: &str| body[key].as_str().map(|text| safe(text).into_owned());
        let error = text("error").filter(|error| !error.is_empty());
        let error = error.unwrap_or_else(|| format!("{url} answers {status}"));
        Self::Refused { status, error, code: text("code").unwrap_or_default(), body }
    }

    /// What the server has answered instead, if it was JSON.
    pub(crate) fn body(&self) -> Option<&Value> {
        match self {
            Self::Refused { body, .. } => Some(body).filter(|body| !body.is_null()),
            _ => None,
        }
    }

    /// Whether the same may be answered a little later.
    pub(super) fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Refused { status, .. } => matches!(status.as_u16(), 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    /// Told by the cause that is farthest from the client: the ones before it repeat the address.
    pub(super) fn unreachable(url: &Url, error: &reqwest::Error) -> Self {
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        Self::Unreachable { url: url.to_string(), problem: cause.to_string() }
    }

    /// Whether who asks may not ask this.
    pub(crate) fn is_of_rights(&self) -> bool {
        let of_rights = [StatusCode::UNAUTHORIZED, StatusCode::FORBIDDEN];
        matches!(self, Self::Refused { status, .. } if of_rights.contains(status))
    }
}

/// The code of an error, where it has one.
struct Code<'a>(&'a str);

impl std::fmt::Display for Code<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " [{}]", self.0) }
    }
}

impl Server {
    /// The server at a place. Nothing is sent yet.
    ///
    /// # Errors
    /// What is wrong with the place.
    pub(crate) fn new(place: &Place<'_>) -> Result<Self, RemoteError> {
        let wrong = || RemoteError::Address { url: place.url.to_owned() };
        let url = Url::parse(place.url).map_err(|_| wrong())?;
        if let Some(what) = superfluous(&url) {
            return Err(RemoteError::Superfluous { what });
        }
        if !matches!(url.scheme(), "http" | "https") || url.host().is_none() {
            return Err(wrong());
        }
        // The process may have a provider already; any does.
        rustls::crypto::ring::default_provider().install_default().ok();
        let mut client = reqwest::Client::builder()
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(TIMEOUT)
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .user_agent(concat!("onward/", env!("CARGO_PKG_VERSION")))
            .default_headers(headers(place.key)?);
        if let Some(path) = place.authority {
            client = client.tls_certs_merge(authority(path)?);
        }
        let client = client.build().map_err(|error| RemoteError::unreachable(&url, &error))?;
        Ok(Self { url, client })
    }

    /// What the server tells under a path.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub(crate) async fn get(&self, path: &[String]) -> Result<Value, RemoteError> {
        self.exchange(self.client.request(Method::GET, self.at(path))).await
    }

    /// Begins a change: the operation that it is. It is not waited for.
    ///
    /// # Errors
    /// [`RemoteError`].
    pub(crate) async fn send(&self, change: &Change) -> Result<Value, RemoteError> {
        let mut url = self.at(&change.path);
        if change.is_begun() {
            url.set_query(Some("wait=0s"));
        }
        let request = self.client.request(change.method.clone(), url);
        let request = match &change.body {
            Some(body) => request.body(body.to_string()),
            None => request,
        };
        self.exchange(request).await
    }

    /// Whether an answer is one of this server's, which has this field.
    ///
    /// # Errors
    /// [`RemoteError::Foreign`].
    pub(super) fn is_ours(&self, answer: &Value, field: &str) -> Result<(), RemoteError> {
        let has = answer.get(field).is_some_and(|value| !value.is_null());
        let foreign = || RemoteError::Foreign {
            url: self.url.to_string(),
            problem: format!("there is no field '{field}'"),
        };
        if has { Ok(()) } else { Err(foreign()) }
    }

    /// The body of an answer, within bounds.
    async fn body(&self, mut answer: reqwest::Response) -> Result<Vec<u8>, RemoteError> {
        let mut body = Vec::new();
        loop {
            let part = answer.chunk().await;
            match part.map_err(|error| RemoteError::unreachable(&self.url, &error))? {
                None => return Ok(body),
                Some(part) if body.len() + part.len() <= LARGEST => body.extend(part),
                Some(_) => {
                    let problem = format!("more than {} MiB", LARGEST >> 20);
                    return Err(RemoteError::Foreign { url: self.url.to_string(), problem });
                }
            }
        }
    }

    /// The client itself, for who has many questions.
    pub(super) fn client(&self) -> reqwest::Client {
        self.client.clone()
    }

    /// The address of a path.
    pub(super) fn at(&self, path: &[String]) -> Url {
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().extend(path);
        }
        url
    }

    async fn exchange(&self, request: reqwest::RequestBuilder) -> Result<Value, RemoteError> {
        let failed = |error: reqwest::Error| RemoteError::unreachable(&self.url, &error);
        let answer = request.send().await.map_err(failed)?;
        let status = answer.status();
        let body = self.body(answer).await?;
        if !status.is_success() {
            return Err(RemoteError::refused(&self.url, status, &body));
        }
        let foreign = |error: serde_json::Error| RemoteError::Foreign {
            url: self.url.to_string(),
            problem: error.to_string(),
        };
        serde_json::from_slice(&body).map_err(foreign)
    }
}

/// What a URL must not have, as it would be shown, or be lost.
fn superfluous(url: &Url) -> Option<&'static str> {
    if !url.username().is_empty() || url.password().is_some() {
        return Some("a user or a password in it: a key is given by --api-key-file");
    }
    (url.query().is_some() || url.fragment().is_some()).then_some("something after its path")
}

fn headers(key: Option<&str>) -> Result<HeaderMap, RemoteError> {
    let mut headers = HeaderMap::new();
    if let Some(key) = key {
        let value = HeaderValue::from_str(&format!("Bearer {key}"));
        let mut value = value.map_err(|_| RemoteError::Key)?;
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    Ok(headers)
}

fn authority(path: &Path) -> Result<Vec<Certificate>, RemoteError> {
    let wrong =
        |problem: String| RemoteError::Authority { path: path.display().to_string(), problem };
    let pem = fs::read(path).map_err(|error| wrong(error.to_string()))?;
    let certificates =
        Certificate::from_pem_bundle(&pem).map_err(|error| wrong(error.to_string()))?;
    if certificates.is_empty() {
        return Err(wrong("there is no certificate in it".to_owned()));
    }
    Ok(certificates)
}
