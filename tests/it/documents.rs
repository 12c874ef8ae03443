//! `openapi.yaml`, the metrics and the documentation say what the code does.

use std::collections::BTreeSet;

use onward::config::{Config, SETTINGS, Setting};
use onward::lifecycle::LifecycleConfig;
use reqwest::Method;

use crate::support::onnx::add_constant;
use crate::support::{Repository, Server, contract, text, x};

#[test]
fn the_document_has_the_routes_of_the_router() {
    let names = |routes: Vec<(Method, String)>| -> BTreeSet<String> {
        routes.into_iter().map(|(method, path)| format!("{method} {path}")).collect()
    };
    let routed = onward::http::routes().into_iter();
    let routed = routed.map(|(method, path)| (method, path.to_owned())).collect();
    assert_eq!(names(contract::operations()), names(routed));
}

#[tokio::test]
async fn the_document_is_served() {
    let server = Server::start(Repository::empty()).await;
    let answer = server.get("/openapi.yaml").await;
    assert_eq!(answer.header("content-type"), "application/yaml");
    assert_eq!(answer.body, text("openapi.yaml").into_bytes());
    assert_eq!(contract::DOCUMENT["info"]["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn metrics_follow_requests_and_versions() {
    let repository = Repository::of("add", &add_constant(1.0)).and("add", 2, &add_constant(2.0));
    let server = Server::start(repository).await;
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    server.infer("add", &x(&[1, 3], &[0.0; 3])).await.refused(400, "invalid_request", &[]);
    let metrics = async || String::from_utf8(server.get("/metrics").await.body).unwrap();
    let page = metrics().await;
    for line in [
        "onward_application_state{state=\"RUNNING\"} 1",
        "onward_model_current_version{model=\"add\"} 2",
        "onward_inference_requests_total{model=\"add\",outcome=\"success\",version=\"2\"} 1",
        "onward_inference_requests_total{model=\"add\",outcome=\"invalid\",version=\"2\"} 1",
        "onward_model_version_state{model=\"add\",state=\"READY\",version=\"2\"} 1",
    ] {
        assert!(page.lines().any(|have| have == line), "no {line} in\n{page}");
    }
    let swap = serde_json::json!({ "to": "1" });
    server.post("/lifecycle/models/add/swap", &swap).await.ok();
    let page = metrics().await;
    let gone = "onward_inference_requests_total{model=\"add\",outcome=\"success\",version=\"2\"}";
    assert!(!page.contains(gone), "the series of an unloaded version stay:\n{page}");
    assert!(page.contains("onward_model_current_version{model=\"add\"} 1"));
}

/// As the README has them, which is held to the table of settings.
#[test]
fn the_guide_has_the_settings_of_the_lifecycle() {
    let (readme, guide) = (text("README.md"), text("docs/lifecycle.md"));
    let rows: Vec<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("| `lifecycle."))
        .map(|row| format!("| `{row}"))
        .collect();
    assert!(rows.len() >= 8, "{rows:?}");
    assert!(guide.contains(&rows.join("\n")), "the guide has to have these rows:\n{rows:#?}");
    assert_eq!(LifecycleConfig::default(), Config::default().lifecycle);
}

#[test]
fn the_readme_has_the_table_of_settings() {
    let row = |setting: &Setting| {
        let Setting { key, help, .. } = setting;
        let default = match setting.default_text() {
            word @ ("none" | "auto") => word.to_owned(),
            value => format!("`{value}`"),
        };
        let live = if setting.reloadable { "yes" } else { "" };
        format!("| `{key}` | {default} | {live} | {help} |\n")
    };
    let rows: String = SETTINGS.iter().map(row).collect();
    let table = format!("| Setting | Default | Live | Meaning |\n|---|---|---|---|\n{rows}\n");
    assert!(text("README.md").contains(&table), "README.md has to have this table:\n\n{table}");
}

#[test]
fn the_schema_of_the_configuration_is_that_of_the_table() {
    let file = "docs/config.schema.json";
    let schema = format!("{:#}\n", onward::config::schema());
    assert!(text(file) == schema, "`make schema` writes {file} anew");
}
