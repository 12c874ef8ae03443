//! `/metrics` and its guide.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use reqwest::Method;
use serde_json::json;

use crate::support::onnx::{add_constant, failing_unless_zero, mlp};
use crate::support::{Repository, Server, grpc, text, x};

async fn page(server: &Server) -> String {
    String::from_utf8(server.get("/metrics").await.body).unwrap()
}

#[track_caller]
fn has(page: &str, lines: &[&str]) {
    for line in lines {
        assert!(page.lines().any(|have| have == *line), "no {line} in\n{page}");
    }
}

/// Waits until the page has this line: events are counted a moment after they happen.
async fn until(server: &Server, line: &str) -> String {
    loop {
        let page = page(server).await;
        if page.lines().any(|have| have == line) {
            return page;
        }
    }
}

/// Of the guide's tables, each name with its type and its labels.
fn guide() -> BTreeMap<String, (String, BTreeSet<String>)> {
    let names = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect();
    let guide = text("docs/metrics.md");
    let rows = guide.lines().filter_map(|line| {
        let cells: Vec<&str> = line.strip_prefix("| `")?.split('|').map(str::trim).collect();
        let [name, kind, labels, ..] = cells[..] else { return None };
        Some((name.trim_matches('`').to_owned(), (kind.to_owned(), names(labels))))
    });
    rows.collect()
}

/// Of a page, each name with its type.
fn told(page: &str) -> BTreeMap<String, String> {
    let types = page.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

#[tokio::test]
async fn the_guide_has_every_metric_of_the_page_and_no_other() {
    let repository = Repository::of("add", &add_constant(1.0));
    let server = Server::start_with(repository, &[("metrics.triton_names", "true")]).await;
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    let page = page(&server).await;
    let guide = guide();
    let in_guide: BTreeMap<String, String> =
        guide.iter().map(|(name, (kind, _))| (name.clone(), kind.clone())).collect();
    assert_eq!(told(&page), in_guide);
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let name = &line[..line.find(['{', ' ']).unwrap()];
        let parts = ["_bucket", "_sum", "_count"];
        let family = parts.iter().find_map(|part| name.strip_suffix(part));
        let (_, labels) = family
            .and_then(|family| guide.get(family))
            .or_else(|| guide.get(name))
            .unwrap_or_else(|| panic!("{line} is in no table"));
        let given = line.split_once('{').map_or("", |(_, rest)| rest.rsplit_once('}').unwrap().0);
        let given = given.split("\",").filter_map(|pair| Some(pair.split_once('=')?.0.to_owned()));
        let given: BTreeSet<String> = given.filter(|label| label != "le").collect();
        assert_eq!(&given, labels, "{line}");
    }
    has(
        &page,
        &[
            "nv_inference_request_success{model=\"add\",version=\"1\"} 1",
            "nv_inference_request_failure{model=\"add\",version=\"1\"} 0",
            "nv_inference_count{model=\"add\",version=\"1\"} 1",
            "nv_inference_exec_count{model=\"add\",version=\"1\"} 1",
            "nv_inference_pending_request_count{model=\"add\",version=\"1\"} 0",
        ],
    );
}

#[tokio::test]
async fn requests_are_counted_by_protocol_outcome_and_reason() {
    let repository = Repository::of("add", &add_constant(1.0));
    let server = Server::start(repository).await;
    server.infer("add", &x(&[3, 4], &[0.0; 12])).await.ok();
    let mut client = server.grpc().await;
    client.model_infer(grpc::x("add", &[1, 4], &[0.0; 4])).await.unwrap();
    client.model_infer(grpc::x("add", &[1, 3], &[0.0; 3])).await.unwrap_err();
    client.model_infer(grpc::x("made up", &[1, 4], &[0.0; 4])).await.unwrap_err();
    server.infer("add/versions/7", &x(&[1, 4], &[0.0; 4])).await.refused(
        404,
        "unknown_version",
        &[],
    );
    let page = page(&server).await;
    let requests = "onward_inference_requests_total{model=\"add\",outcome=";
    has(
        &page,
        &[
            &format!("{requests}\"success\",protocol=\"http\",version=\"1\"}} 1"),
            &format!("{requests}\"success\",protocol=\"grpc\",version=\"1\"}} 1"),
            &format!("{requests}\"invalid\",protocol=\"grpc\",version=\"1\"}} 1"),
            &format!("{requests}\"invalid\",protocol=\"http\",version=\"1\"}} 0"),
            "onward_inference_entries_total{model=\"add\",version=\"1\"} 4",
            "onward_inference_request_duration_seconds_count{model=\"add\",version=\"1\"} 3",
            "onward_inference_queue_duration_seconds_count{model=\"add\",version=\"1\"} 2",
            "onward_inference_compute_infer_duration_seconds_count{model=\"add\",version=\"1\"} 2",
            "onward_inference_batch_size_bucket{model=\"add\",version=\"1\",le=\"2\"} 1",
            "onward_inference_batch_size_bucket{model=\"add\",version=\"1\",le=\"4\"} 2",
            "onward_inference_batch_size_sum{model=\"add\",version=\"1\"} 4",
            "onward_inference_requests_unrouted_total{model=\"add\",reason=\"unknown\"} 1",
            "onward_inference_requests_unrouted_total{model=\"/unknown\",reason=\"unknown\"} 1",
            "onward_inference_requests_shed_total{model=\"add\",reason=\"queue_full\",version=\"1\"} 0",
            "onward_model_traffic_weight_ratio{model=\"add\",version=\"1\"} 1",
        ],
    );
    assert!(!page.contains("made up") && !page.contains("nv_inference"), "{page}");
    assert!(!page.contains("protocol=\"internal\""), "{page}");
}

#[tokio::test]
async fn what_comes_over_the_interfaces_is_counted_by_template_and_method() {
    let server = Server::start(Repository::of("add", &add_constant(1.0))).await;
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    server.infer("nobody", &x(&[1, 4], &[0.0; 4])).await.refused(404, "unknown_model", &[]);
    // What is encoded goes through the router.
    server.infer("a%64d", &x(&[1, 4], &[0.0; 4])).await.ok();
    server.get("/v2/models/add").await.ok();
    server.get("/v2/").await.ok();
    for path in ["/one", "/two"] {
        server.get(path).await.refused(404, "not_found", &[]);
    }
    let purge = Method::from_bytes(b"PURGE").unwrap();
    let refused = server.request(purge, "/livez").send().await.unwrap();
    assert_eq!(refused.status(), 405);
    let mut client = server.grpc().await;
    client.model_infer(grpc::x("add", &[1, 4], &[0.0; 4])).await.unwrap();
    client.model_infer(grpc::x("nobody", &[1, 4], &[0.0; 4])).await.unwrap_err();
    let page = page(&server).await;
    let infer = "onward_http_requests_total{method=\"POST\",route=\"/v2/models/{model}/infer\"";
    has(
        &page,
        &[
            &format!("{infer},status=\"2xx\"}} 2"),
            &format!("{infer},status=\"4xx\"}} 1"),
            &format!("{infer},status=\"5xx\"}} 0"),
            "onward_http_requests_total{method=\"GET\",route=\"/v2/models/{model}\",status=\"2xx\"} 1",
            "onward_http_requests_total{method=\"GET\",route=\"/v2\",status=\"2xx\"} 1",
            "onward_http_requests_total{method=\"GET\",route=\"unknown\",status=\"4xx\"} 2",
            "onward_http_requests_total{method=\"other\",route=\"unknown\",status=\"4xx\"} 1",
            "onward_grpc_calls_total{code=\"OK\",method=\"inference.GRPCInferenceService/ModelInfer\"} 1",
            "onward_grpc_calls_total{code=\"NOT_FOUND\",method=\"inference.GRPCInferenceService/ModelInfer\"} 1",
            "onward_connections_open{listener=\"grpc\"} 1",
            "onward_requests_in_flight 1",
        ],
    );
    let open = page
        .lines()
        .find_map(|line| line.strip_prefix("onward_connections_open{listener=\"http\"} "));
    assert!(open.unwrap().parse::<u32>().unwrap() >= 1, "{page}");
}

#[tokio::test]
async fn changes_of_models_are_counted() {
    let repository = Repository::of("add", &add_constant(1.0)).and("add", 2, &add_constant(2.0));
    let broken = repository.and("broken", 1, b"no graph");
    let server = Server::start(broken).await;
    server.post("/lifecycle/models/add/swap", &json!({ "to": "1" })).await.ok();
    server.post("/lifecycle/models/add/rollback", &json!({})).await.ok();
    let alias = json!({ "version": 2 });
    server.put("/lifecycle/models/add/aliases/stable", &alias).await;
    let page =
        until(&server, "onward_model_rollbacks_total{cause=\"manual\",model=\"add\"} 1").await;
    has(
        &page,
        &[
            "onward_model_swaps_total{model=\"add\"} 1",
            "onward_model_rollbacks_total{cause=\"canary\",model=\"add\"} 0",
            "onward_model_loads_total{model=\"broken\",result=\"failure\"} 1",
            "onward_model_loads_total{model=\"broken\",result=\"success\"} 0",
            "onward_model_operations_total{operation=\"swap\",result=\"succeeded\"} 1",
            "onward_model_current_version{model=\"add\"} 2",
            "onward_model_alias_version{alias=\"stable\",model=\"add\"} 2",
        ],
    );
    for phase in ["fetch", "verify", "load", "warm_up"] {
        let series = format!(
            "onward_model_load_phase_duration_seconds{{model=\"add\",phase=\"{phase}\",version=\"2\"}} "
        );
        assert!(page.contains(&series), "no {series} in {page}");
    }
}

#[tokio::test]
async fn counters_go_on_while_a_version_is_loaded_anew() {
    let repository = Repository::of("add", &add_constant(1.0));
    let path = repository.path().join("add/1/model.onnx");
    let server = Server::start(repository).await;
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    std::fs::File::create(&path).unwrap().write_all(&add_constant(3.0)).unwrap();
    server.post("/lifecycle/models/add/load", &json!({})).await.ok();
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.ok();
    let counted = "onward_inference_requests_total{model=\"add\",outcome=\"success\",protocol=\"http\",version=\"1\"} 2";
    has(&page(&server).await, &[counted]);
    assert_eq!(server.version("add", "1").await["requests"], 1, "it is another life");
}

#[tokio::test]
async fn requests_for_what_does_not_fit_are_shed_for_want_of_memory() {
    let repository = Repository::of("m", &mlp(4, 512, 4)).with_settings("m", "lazy: true\n");
    let settings = [("models.memory_budget", "1KiB"), ("inference.instances", "1")];
    let server = Server::start_with(repository, &settings).await;
    assert_ne!(server.infer("m", &x(&[1, 4], &[0.0; 4])).await.status, 200);
    let shed = "onward_inference_requests_shed_total{model=\"m\",reason=\"memory\",version=\"\"} 1";
    let budget = "onward_model_memory_budget_bytes 1024";
    has(&page(&server).await, &[shed, budget, "onward_model_memory_used_bytes 0"]);
}

#[tokio::test]
async fn shadows_are_compared_and_counted() {
    let settings = "version_policy: { specific: [1, 2] }\n";
    let repository = Repository::of("m", &add_constant(1.0))
        .and("m", 2, &failing_unless_zero())
        .with_settings("m", settings);
    let server = Server::start(repository).await;
    server.post("/lifecycle/models/m/swap", &json!({ "to": "1" })).await;
    let shadow = json!({ "version": 2, "percent": 100 });
    server.put("/lifecycle/models/m/shadow", &shadow).await.ok();
    server.infer("m", &x(&[1, 4], &[5.0; 4])).await.ok();
    let failed =
        "onward_model_shadow_comparisons_total{model=\"m\",result=\"failed\",version=\"2\"} 1";
    let page = until(&server, failed).await;
    has(&page, &["onward_model_shadow_share_ratio{model=\"m\",version=\"2\"} 1"]);
}
