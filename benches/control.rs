//! The control plane of the server under test, over the same small client as the load.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::load::{self, Target};

/// Between two looks at the state of a version.
const LOOK: Duration = Duration::from_millis(5);

/// Asks a server to change its models.
#[derive(Clone, Copy)]
pub(crate) struct Control(pub(crate) SocketAddr);

impl Control {
    /// Makes `to` the version that answers, and the old one leave. Returns once the new one answers.
    pub(crate) async fn swap(self, model: &str, to: u32) -> Result<Value> {
        let to = json!(to.to_string());
        let body = json!({ "to": to, "keep_previous": false }).to_string();
        let path = format!("/lifecycle/models/{model}/swap");
        let report = answer(&load::post_json(self.0, &path, body.as_bytes())).await?;
        let report: Value = serde_json::from_slice(&report)?;
        ensure!(report["to"] == to, "the swap to {to} reports {report}");
        Ok(report)
    }

    /// Loads what the model's settings say.
    pub(crate) async fn load(self, model: &str) -> Result<()> {
        let path = format!("/v2/repository/models/{model}/load");
        answer(&load::post_json(self.0, &path, b"")).await.map(drop)
    }

    /// Unloads all of the model.
    pub(crate) async fn unload(self, model: &str) -> Result<()> {
        let path = format!("/v2/repository/models/{model}/unload");
        answer(&load::post_json(self.0, &path, b"")).await.map(drop)
    }

    /// Copies a part of the requests to a version.
    pub(crate) async fn shadow(self, model: &str, version: u32, percent: f64) -> Result<()> {
        let body = json!({ "version": version, "percent": percent }).to_string();
        let path = format!("/lifecycle/models/{model}/shadow");
        answer(&load::request("PUT", self.0, &path, body.as_bytes())).await.map(drop)
    }

    /// Ends that; how many requests were to be copied, and how many of them were not.
    pub(crate) async fn unshadow(self, model: &str) -> Result<(u64, u64)> {
        let report = answer(&load::get(self.0, &format!("/lifecycle/models/{model}"))).await?;
        let report: Value = serde_json::from_slice(&report)?;
        let shadow = &report["traffic"]["shadow"];
        let count = |key: &str| shadow[key].as_u64().context("the shadow has counts");
        let counts = (count("due")?, count("skipped")?);
        let path = format!("/lifecycle/models/{model}/shadow");
        answer(&load::request("DELETE", self.0, &path, b"")).await?;
        Ok(counts)
    }

    /// Returns once a version has given its memory back.
    pub(crate) async fn unloaded(self, model: &str, version: u32) -> Result<()> {
        let target = load::get(self.0, &format!("/lifecycle/models/{model}"));
        let version = json!(version.to_string());
        loop {
            let report: Value = serde_json::from_slice(&answer(&target).await?)?;
            let versions = report["versions"].as_array().context("versions are a list")?;
            let is_asked = |entry: &&Value| entry["version"] == version;
            if versions.iter().find(is_asked).is_none_or(|entry| entry["state"] == "UNLOADED") {
                return Ok(());
            }
            sleep(LOOK).await;
        }
    }
}

/// The body of an answer of status 200.
async fn answer(target: &Target) -> Result<Vec<u8>> {
    let (status, body) = load::ask(target).await?;
    ensure!(status == 200, "{status}: {}", String::from_utf8_lossy(&body));
    Ok(body)
}

/// Writes a version of a model into a repository.
pub(crate) fn put(repository: &Path, (model, version): (&str, u32), graph: &[u8]) -> Result<()> {
    let folder = repository.join(model).join(version.to_string());
    std::fs::create_dir_all(&folder)?;
    Ok(std::fs::write(folder.join("model.onnx"), graph)?)
}

/// The middle one.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    sorted.get(sorted.len() / 2).copied().unwrap_or(f64::NAN)
}
