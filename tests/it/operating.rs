//! The log and the traces, as Triton's clients change them while the server runs.

use std::collections::BTreeMap;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::{interval, timeout};
use tonic::Code;

use crate::support::grpc::proto::log_settings_request::SettingValue as LogValue;
use crate::support::grpc::proto::log_settings_request::setting_value::ParameterChoice;
use crate::support::grpc::proto::log_settings_response::setting_value::ParameterChoice as Told;
use crate::support::grpc::proto::trace_setting_request::SettingValue as TraceValue;
use crate::support::grpc::proto::{LogSettingsRequest, TraceSettingRequest};
use crate::support::grpc::{self, refused};
use crate::support::onnx::add_constant;
use crate::support::process::PATIENCE;
use crate::support::{Repository, Server, x};

async fn server() -> Server {
    let repository = Repository::of("add", &add_constant(1.0)).and("other", 1, &add_constant(2.0));
    Server::start(repository).await
}

fn log(info: bool, verbose: u32) -> Value {
    json!({
        "log_file": "",
        "log_info": info,
        "log_warning": true,
        "log_error": true,
        "log_verbose_level": verbose,
        "log_format": "ISO8601",
    })
}

#[tokio::test]
async fn the_log_changes_while_the_server_runs() {
    let server = server().await;
    assert_eq!(server.get("/v2/logging").await.ok(), log(true, 0));
    assert!(!server.process.log().contains("request answered"));
    let body = json!({ "log_verbose_level": 1, "log_info": null });
    assert_eq!(server.post("/v2/logging", &body).await.ok(), log(true, 1));
    server.get("/livez?x=1").await.ok();
    server.process.logged(&["DEBUG", "request answered", "\"/livez\""]).await;
    let body = json!({ "log_info": false, "log_verbose_level": 1 });
    assert_eq!(server.post("/v2/logging", &body).await.ok(), log(false, 1));
    server.post("/v2/repository/models/other/unload", &json!({})).await;
    server.process.logged(&["DEBUG", "request answered", "other/unload"]).await;
    let unloaded = |log: &str| log.lines().any(|line| line.contains("UNLOADED"));
    assert!(!unloaded(&server.process.log()), "INFO is off:\n{}", server.process.log());
    let nothing = server.send(Method::POST, "/v2/logging", Vec::new()).await;
    assert_eq!(nothing.ok(), log(false, 1));
}

#[tokio::test]
async fn a_reload_puts_the_log_back() {
    let server = server().await;
    server.post("/v2/logging", &json!({ "log_info": false, "log_verbose_level": 2 })).await.ok();
    assert_eq!(server.get("/v2/logging").await.ok(), log(false, 2));
    server.process.signal("HUP");
    let told = async {
        let mut ticks = interval(Duration::from_millis(10));
        loop {
            ticks.tick().await;
            let page = server.get("/lifecycle/events?kind=configuration").await.ok();
            if page["events"].as_array().is_some_and(|events| !events.is_empty()) {
                return;
            }
        }
    };
    timeout(PATIENCE, told).await.expect("the reload is told");
    assert_eq!(server.get("/v2/logging").await.ok(), log(true, 0));
}

#[tokio::test]
async fn what_the_log_cannot_do_is_refused_and_changes_nothing() {
    let server = server().await;
    let post = async |body: Value| server.post("/v2/logging", &body).await;
    let both = json!({ "log_file": "/tmp/log", "log_info": false });
    post(both).await.refused(501, "unsupported", &["log_file", "standard error"]);
    post(json!({ "log_format": "default" })).await.refused(501, "unsupported", &["log_format"]);
    for body in [
        json!({ "log_info": "yes" }),
        json!({ "log_verbose_level": -1 }),
        json!({ "log_verbose_level": true }),
        json!({ "log_format": "json" }),
        json!({ "log_file": 1 }),
        json!({ "log_colour": "blue" }),
        json!([]),
    ] {
        post(body).await.refused(400, "invalid_request", &[]);
    }
    let kept = post(json!({ "log_file": "", "log_format": "ISO8601" })).await;
    assert_eq!(kept.ok(), log(true, 0));
}

#[tokio::test]
async fn the_log_changes_over_grpc() {
    let server = server().await;
    let mut client = server.grpc().await;
    let value = |choice| LogValue { parameter_choice: Some(choice) };
    let request = |name: &str, choice| LogSettingsRequest {
        settings: BTreeMap::from([(name.to_owned(), value(choice))]),
    };
    let verbose = request("log_verbose_level", ParameterChoice::Uint32Param(1));
    let told = client.log_settings(verbose).await.unwrap().into_inner().settings;
    let of = |name: &str| told[name].parameter_choice.clone().unwrap();
    assert_eq!(of("log_verbose_level"), Told::Uint32Param(1));
    assert_eq!(of("log_info"), Told::BoolParam(true));
    assert_eq!(of("log_format"), Told::StringParam("ISO8601".to_owned()));
    assert_eq!(server.get("/v2/logging").await.ok(), log(true, 1));
    let file = request("log_file", ParameterChoice::StringParam("x".to_owned()));
    let error = client.log_settings(file).await.unwrap_err();
    refused(&error, (Code::Unimplemented, "unsupported"), &["log_file"]);
    let wrong = request("log_info", ParameterChoice::Uint32Param(1));
    let error = client.log_settings(wrong).await.unwrap_err();
    refused(&error, (Code::InvalidArgument, "invalid_request"), &["log_info"]);
}

fn trace(level: &str, rate: &str, count: &str) -> Value {
    json!({
        "trace_level": [level],
        "trace_rate": rate,
        "trace_count": count,
        "log_frequency": "0",
        "trace_file": "",
        "trace_mode": "triton",
    })
}

/// The lines of traces so far.
fn traced(server: &Server) -> Vec<Value> {
    let log = server.process.log();
    let lines = log.lines().filter(|line| line.contains("\"onward::trace\""));
    lines.map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[tokio::test]
async fn one_request_in_so_many_is_traced_up_to_so_many() {
    let server = server().await;
    assert_eq!(server.get("/v2/trace/setting").await.ok(), trace("OFF", "1000", "-1"));
    let ask = async |id: &str| {
        let mut body = x(&[1, 4], &[0.0; 4]);
        body["id"] = json!(id);
        server.infer("add", &body).await.ok();
    };
    ask("before").await;
    let body = json!({ "trace_level": ["TIMESTAMPS"], "trace_rate": "2", "trace_count": "2" });
    let told = server.post("/v2/trace/setting", &body).await.ok();
    assert_eq!(told, trace("TIMESTAMPS", "2", "2"));
    // Traces are written also where other lines of their level are not.
    server.post("/v2/logging", &json!({ "log_info": false })).await.ok();
    for id in ["a", "b", "c", "d", "e", "f"] {
        ask(id).await;
    }
    server.process.logged(&["onward::trace", "\"c\""]).await;
    let lines = traced(&server);
    let ids: Vec<&Value> = lines.iter().map(|line| &line["request_id"]).collect();
    assert_eq!(ids, ["a", "c"]);
    let line = &lines[0];
    assert_eq!((&line["model"], &line["version"]), (&json!("add"), &json!("1")));
    assert_eq!(line["outcome"], "success");
    let moments = [
        "request_start_ns",
        "queue_start_ns",
        "compute_start_ns",
        "compute_end_ns",
        "request_end_ns",
    ];
    let moments = moments.map(|name| line[name].as_u64().unwrap());
    assert!(moments.is_sorted(), "{line}");
    assert_eq!(server.get("/v2/trace/setting").await.ok(), trace("TIMESTAMPS", "2", "0"));
}

#[tokio::test]
async fn a_model_is_traced_otherwise_until_that_is_cleared() {
    let server = server().await;
    let path = "/v2/models/add/trace/setting";
    let body = json!({ "trace_level": "TIMESTAMPS", "trace_rate": "1" });
    assert_eq!(server.post(path, &body).await.ok(), trace("TIMESTAMPS", "1", "-1"));
    assert_eq!(server.get(path).await.ok(), trace("TIMESTAMPS", "1", "-1"));
    assert_eq!(server.get("/v2/trace/setting").await.ok(), trace("OFF", "1000", "-1"));
    server.infer("other", &x(&[1, 4], &[0.0; 4])).await.ok();
    let wrong = server.infer("add", &x(&[1, 3], &[0.0; 3])).await;
    wrong.refused(400, "invalid_request", &[]);
    server.process.logged(&["onward::trace", "failure"]).await;
    let lines = traced(&server);
    assert_eq!(lines.len(), 1);
    assert_eq!(lines[0]["request_id"], wrong.header("x-request-id"));
    // What is wrong with a tensor is for its sender.
    assert_eq!((&lines[0]["code"], &lines[0]["cause"]), (&json!("invalid_request"), &Value::Null));
    let body = json!({ "trace_level": null, "trace_rate": null });
    assert_eq!(server.post(path, &body).await.ok(), trace("OFF", "1000", "-1"));
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    assert_eq!(traced(&server).len(), 1);
    let unknown = server.get("/v2/models/none/trace/setting").await;
    unknown.refused(404, "unknown_model", &["Request for unknown model"]);
}

#[tokio::test]
async fn what_traces_cannot_do_is_refused_and_changes_nothing() {
    let server = server().await;
    let post = async |body: Value| server.post("/v2/trace/setting", &body).await;
    for body in [
        json!({ "trace_file": "/tmp/trace.json", "trace_rate": "1" }),
        json!({ "trace_level": ["TENSORS"] }),
        json!({ "trace_mode": "opentelemetry" }),
        json!({ "log_frequency": "10" }),
    ] {
        post(body).await.refused(501, "unsupported", &[]);
    }
    for body in [
        json!({ "trace_level": "SOME" }),
        json!({ "trace_rate": "0" }),
        json!({ "trace_rate": 1 }),
        json!({ "trace_count": "-2" }),
        json!({ "trace_colour": "blue" }),
    ] {
        post(body).await.refused(400, "invalid_request", &[]);
    }
    assert_eq!(server.get("/v2/trace/setting").await.ok(), trace("OFF", "1000", "-1"));
}

#[tokio::test]
async fn requests_are_traced_over_grpc() {
    let server = server().await;
    let mut client = server.grpc().await;
    let request = |model: &str, given: &[(&str, &[&str])]| TraceSettingRequest {
        model_name: model.to_owned(),
        settings: given
            .iter()
            .map(|(name, values)| {
                let value = values.iter().map(|value| (*value).to_owned()).collect();
                ((*name).to_owned(), TraceValue { value })
            })
            .collect(),
    };
    let given: [(&str, &[&str]); 2] = [("trace_level", &["TIMESTAMPS"]), ("trace_rate", &["1"])];
    let told = client.trace_setting(request("add", &given)).await.unwrap().into_inner();
    assert_eq!(told.settings["trace_level"].value, ["TIMESTAMPS"]);
    assert_eq!(told.settings["trace_rate"].value, ["1"]);
    let mut ask = grpc::x("add", &[1, 4], &[0.0; 4]);
    ask.id = "over-grpc".to_owned();
    client.model_infer(ask).await.unwrap();
    server.process.logged(&["onward::trace", "over-grpc", "compute_end_ns"]).await;
    let clear: [(&str, &[&str]); 1] = [("trace_level", &[])];
    let told = client.trace_setting(request("add", &clear)).await.unwrap().into_inner();
    assert_eq!(told.settings["trace_level"].value, ["OFF"]);
    let error = client.trace_setting(request("none", &[])).await.unwrap_err();
    refused(&error, (Code::NotFound, "unknown_model"), &["Request for unknown model"]);
    let file: [(&str, &[&str]); 1] = [("trace_file", &["x"])];
    let error = client.trace_setting(request("", &file)).await.unwrap_err();
    refused(&error, (Code::Unimplemented, "unsupported"), &["trace_file"]);
}
