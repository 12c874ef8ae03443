//! Answers that are kept for requests that come again.

use serde_json::{Value, json};

use crate::support::grpc;
use crate::support::onnx::{Dim, Elem, Graph, Node, add_constant};
use crate::support::{Repository, Server, x};

/// `y` is random numbers in the shape of `x`, so that two answers are the same only where one was kept.
fn random() -> Vec<u8> {
    let dims = [Dim::Symbolic("batch"), Dim::Fixed(4)];
    Graph::new("random")
        .input("x", Elem::Float, &dims)
        .output("y", Elem::Float, &dims)
        .node(&Node::new("RandomUniformLike", &["x"], &["y"]))
        .into_model()
}

const KEPT: &str = "response_cache: true\n";

fn ones() -> Value {
    x(&[1, 4], &[1.0; 4])
}

async fn asked(server: &Server, model: &str, body: &Value) -> (String, Value) {
    let answer = server.infer(model, body).await;
    let told = answer.headers.get("x-onward-cache").map_or("", |told| told.to_str().unwrap());
    (told.to_owned(), answer.output("y").clone())
}

#[tokio::test]
async fn an_answer_is_given_again_to_who_asks_the_same_however_it_is_written() {
    let repository =
        Repository::of("kept", &random()).and("usual", 1, &random()).with_settings("kept", KEPT);
    let server = Server::start(repository).await;
    let (told, first) = asked(&server, "kept", &ones()).await;
    assert_eq!(told, "miss");
    assert_eq!(asked(&server, "kept", &ones()).await, ("hit".to_owned(), first.clone()));
    // With other words around it, and over gRPC.
    let named = json!({ "id": "7", "outputs": [{ "name": "y" }], "inputs": ones()["inputs"] });
    assert_eq!(asked(&server, "kept", &named).await, ("hit".to_owned(), first.clone()));
    let mut client = server.grpc().await;
    let answer = client.model_infer(grpc::x("kept", &[1, 4], &[1.0; 4])).await.unwrap();
    assert_eq!(answer.metadata().get("x-onward-cache").unwrap(), "hit");
    let numbers = first.as_array().unwrap().iter();
    let numbers: Vec<f32> = numbers.map(|number| number.to_string().parse().unwrap()).collect();
    assert_eq!(answer.get_ref().raw_output_contents[0], grpc::floats(&numbers));
    // Anything else is another question.
    let (told, other) = asked(&server, "kept", &x(&[1, 4], &[2.0; 4])).await;
    assert_eq!(told, "miss");
    assert_ne!(other, first);
    let (told, _) = asked(&server, "kept", &x(&[2, 4], &[1.0; 8])).await;
    assert_eq!(told, "miss");
    // Nobody has asked for it here.
    let (told, first) = asked(&server, "usual", &ones()).await;
    assert_eq!(told, "");
    assert_ne!(asked(&server, "usual", &ones()).await.1, first);

    let report = server.version("kept", "1").await;
    assert_eq!(report["response_cache"], json!({ "hits": 3, "misses": 3 }));
    assert_eq!(server.version("usual", "1").await["response_cache"], Value::Null);
    let page = server.get("/v2/models/kept/stats").await;
    let statistics = &page.ok()["model_stats"][0];
    assert_eq!(statistics["inference_stats"]["cache_hit"]["count"], 3);
    assert_eq!(statistics["inference_stats"]["cache_miss"]["count"], 3);
    assert_eq!(statistics["inference_stats"]["success"]["count"], 6);
    assert_eq!(statistics["execution_count"], 3);
    let metrics = String::from_utf8(server.get("/metrics").await.body).unwrap();
    let hits = "onward_response_cache_hits_total{model=\"kept\",version=\"1\"} 3";
    assert!(metrics.contains(hits), "{metrics}");
    assert!(metrics.contains("onward_response_cache_answers 3"), "{metrics}");
}

#[tokio::test]
async fn answers_belong_to_the_content_of_a_version_and_go_with_it() {
    let repository = Repository::of("add", &add_constant(1.0)).with_settings("add", KEPT);
    let server = Server::start(repository).await;
    let (_, one) = asked(&server, "add", &ones()).await;
    assert_eq!((&one[0], asked(&server, "add", &ones()).await.0), (&json!(2.0), "hit".to_owned()));
    server.repository.put("add", 2, &add_constant(2.0));
    let swap = server
        .post("/lifecycle/models/add/swap", &json!({ "to": "2", "keep_previous": "5m" }))
        .await;
    swap.ok();
    let (told, two) = asked(&server, "add", &ones()).await;
    assert_eq!((told.as_str(), &two[0]), ("miss", &json!(3.0)));
    // The way back finds what it had left.
    server.post("/lifecycle/models/add/rollback", &json!({})).await.ok();
    assert_eq!(asked(&server, "add", &ones()).await, ("hit".to_owned(), one));
    let unload = server.post("/v2/repository/models/add/unload", &json!({})).await;
    assert_eq!(unload.status, 200);
    let metrics = String::from_utf8(server.get("/metrics").await.body).unwrap();
    assert!(metrics.contains("onward_response_cache_answers 0"), "{metrics}");
    assert!(metrics.contains("onward_response_cache_bytes 0"), "{metrics}");
}

#[tokio::test]
async fn refusals_are_not_kept_and_the_bytes_are_bounded() {
    let repository = Repository::of("add", &add_constant(1.0)).with_settings("add", KEPT);
    let settings = [("inference.response_cache_size", "16KiB")];
    let server = Server::start_with(repository, &settings).await;
    for _ in 0..2 {
        server.infer("add", &x(&[1, 3], &[0.0; 3])).await.refused(
            400,
            "invalid_request",
            &["input 'x'"],
        );
    }
    for number in 0_u8..100 {
        asked(&server, "add", &x(&[1, 4], &[f32::from(number); 4])).await;
    }
    // Too large to be kept at all, and to be hashed where connections are served.
    let large = x(&[8192, 4], &vec![0.5; 32_768]);
    for _ in 0..2 {
        assert_eq!(asked(&server, "add", &large).await.0, "miss");
    }
    let metrics = String::from_utf8(server.get("/metrics").await.body).unwrap();
    let of = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(&format!("{name} "))).unwrap();
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert_eq!(of("onward_response_cache_capacity_bytes"), 16 * 1024);
    assert!(of("onward_response_cache_bytes") <= 16 * 1024);
    assert!(of("onward_response_cache_answers") > 10);
    assert_eq!(server.version("add", "1").await["response_cache"]["misses"], 102);
}

#[tokio::test]
async fn who_verifies_a_version_sees_it_run() {
    let repository = Repository::of("add", &add_constant(1.0)).with_settings("add", KEPT);
    let sample = json!({ "inputs": ones()["inputs"], "outputs": [
        { "name": "y", "datatype": "FP32", "shape": [1, 4], "data": [2.0, 2.0, 2.0, 2.0] },
    ] });
    repository.write("add/golden/ones.json", sample.to_string().as_bytes());
    let server = Server::start(repository).await;
    asked(&server, "add", &ones()).await;
    for _ in 0..2 {
        server.post("/lifecycle/models/add/verify", &json!({})).await.ok();
    }
    let page = server.get("/v2/models/add/stats").await;
    let statistics = &page.ok()["model_stats"][0];
    assert_eq!(statistics["execution_count"], 3);
    assert_eq!(statistics["inference_stats"]["cache_hit"]["count"], 0);
}
