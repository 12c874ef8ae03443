//! TensorFlow Serving's REST interface.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::connection::Connection;
use crate::support::onnx::{
    Dim, Elem, add_constant, identity, scalar_input, two_inputs_two_outputs, unknown_operator,
};
use crate::support::{Repository, Server};

async fn predict(server: &Server, target: &str, body: &Value) -> crate::support::Answer {
    server.post(&format!("/v1/models/{target}:predict"), body).await
}

#[tokio::test]
async fn rows_and_columns_are_predicted() {
    let repository = Repository::of("add", &add_constant(1.0))
        .and("pair", 1, &two_inputs_two_outputs())
        .and("scalar", 1, &scalar_input());
    let server = Server::start(repository).await;
    let rows = json!({ "instances": [[0, 1, 2, 3], [0.5, 0, 0, 0]] });
    let answer = predict(&server, "add", &rows).await;
    let expected = json!([[1.0, 2.0, 3.0, 4.0], [1.5, 1.0, 1.0, 1.0]]);
    assert_eq!(answer.ok(), json!({ "predictions": expected }));
    assert_eq!((answer.header("x-onward-model"), answer.header("x-onward-version")), ("add", "1"));
    let by_name = json!({ "instances": [{ "x": [0, 1, 2, 3] }], "signature_name": "" });
    let answer = predict(&server, "add/versions/1", &by_name).await.ok();
    assert_eq!(answer, json!({ "predictions": [[1.0, 2.0, 3.0, 4.0]] }));
    let columns = json!({ "inputs": [[0, 0, 0, 0]], "signature_name": "serving_default" });
    let answer = predict(&server, "add", &columns).await.ok();
    assert_eq!(answer, json!({ "outputs": [[1.0, 1.0, 1.0, 1.0]] }));
    let rows = json!({ "instances": [{ "a": [1, 2], "b": 7 }, { "b": 8, "a": [3, 4] }] });
    let answer = predict(&server, "pair", &rows).await.ok();
    assert_eq!(answer["predictions"][1]["b_out"], 8);
    let columns = json!({ "inputs": { "a": [[1, 2]], "b": [7] } });
    let answer = predict(&server, "pair", &columns).await.ok();
    assert_eq!(answer["outputs"]["b_out"], json!([7]));
    let answer = predict(&server, "scalar", &json!({ "inputs": 2.5 })).await.ok();
    assert_eq!(answer, json!({ "outputs": 2.5 }));
}

#[tokio::test]
async fn every_datatype_comes_back() {
    let cases = [
        (Elem::Bool, "BOOL", json!([true, false])),
        (Elem::Uint8, "UINT8", json!([0, 255])),
        (Elem::Int64, "INT64", json!([i64::MIN, i64::MAX])),
        (Elem::Uint64, "UINT64", json!([0, u64::MAX])),
        (Elem::Float16, "FP16", json!([0.5, "NaN"])),
        (Elem::Double, "FP64", json!([0.1, "-Infinity"])),
        (Elem::String, "BYTES", json!(["ü", { "b64": "/wA=" }])),
    ];
    let repository = Repository::empty();
    for (elem, name, _) in &cases {
        repository.put(name, 1, &identity(*elem, &[Dim::Symbolic("n")]));
    }
    let server = Server::start(repository).await;
    for (_, name, data) in cases {
        let rows = predict(&server, name, &json!({ "instances": data })).await.ok();
        assert_eq!(rows, json!({ "predictions": data }));
        let columns = predict(&server, name, &json!({ "inputs": { "x": data } })).await.ok();
        assert_eq!(columns, json!({ "outputs": data }));
    }
}

#[tokio::test]
async fn mistakes_are_the_clients_and_are_named() {
    let repository = Repository::of("add", &add_constant(1.0))
        .and("pair", 1, &two_inputs_two_outputs())
        .and("scalar", 1, &scalar_input());
    let server = Server::start(repository).await;
    let deep: Value = serde_json::from_str(&format!("{}1{}", "[".repeat(40), "]".repeat(40)))
        .expect("it is JSON");
    for (model, body, texts) in [
        ("add", json!({}), &["neither"][..]),
        ("add", json!([]), &["an object"]),
        ("add", json!({ "instances": [] }), &["has none"]),
        ("add", json!({ "instances": [[1, 2, 3, 4], [1]] }), &["'x'", "rectangle", "element 5"]),
        ("add", json!({ "instances": [[1, 2, "a", 4]] }), &["'x'", "element 2", "FP32"]),
        ("add", json!({ "instances": deep }), &["'x'", "deeper"]),
        ("add", json!({ "instances": [1] }), &["'x'", "[-1,4]"]),
        ("add", json!({ "instances": [{ "q": 1 }] }), &["'q'", "'x'"]),
        ("add", json!({ "inputs": [[1, 2, 3, 4]], "signature_name": "s" }), &["signature 's'"]),
        ("pair", json!({ "instances": [1] }), &["'a', 'b'"]),
        ("pair", json!({ "inputs": { "a": [[1, 2]] } }), &["missing input 'b'"]),
    ] {
        predict(&server, model, &body).await.refused(400, "invalid_request", texts);
    }
    let path = "/v1/models/add:predict";
    let bad = server.send(Method::POST, path, b"{\"instances\": [".to_vec()).await;
    bad.refused(400, "invalid_request", &["not valid JSON"]);
    let nested = [b"{\"instances\": ".to_vec(), vec![b'['; 200_000]].concat();
    let nested = server.send(Method::POST, path, nested).await;
    nested.refused(400, "invalid_request", &["deeper"]);
    let one = json!({ "instances": [[0, 0, 0, 0]] });
    predict(&server, "none", &one).await.refused(404, "unknown_model", &[]);
    predict(&server, "add/versions/9", &one).await.refused(404, "unknown_version", &[]);
    predict(&server, "add/labels/stable", &one).await.refused(404, "unknown_alias", &[]);
    predict(&server, "add/labels/9", &one).await.refused(400, "invalid_name", &[]);
    let other = server.post("/v1/models/add:classify", &one).await;
    other.refused(404, "not_found", &["/v1/models/add:classify"]);
}

#[tokio::test]
async fn bodies_that_are_no_sound_json_are_refused() {
    let text = identity(Elem::String, &[Dim::Symbolic("n")]);
    let repository = Repository::of("add", &add_constant(1.0)).and("text", 1, &text);
    let server = Server::start_with(repository, &[("server.max_body_size", "64KiB")]).await;
    let mut connection = Connection::open(server.address).await;
    let path = "/v1/models/add:predict";
    let sound = r#"{"signature_name":"","instances":[[1,2,3,4]],"more":"d"}"#;
    for end in 0..sound.len() {
        let answer = connection.post(path, &[], &sound.as_bytes()[..end]).await;
        answer.refused(400, "invalid_request", &["the body is not valid JSON"]);
    }
    let path = "/v1/models/text:predict";
    for (body, told) in [
        (
            &b"{\"instances\":[\"a\",\"\xff\"]}"[..],
            "input 'x': element 1 of its data is a text that is not",
        ),
        (b"{\"instances\":[{\"b64\":\"\xff\"}]}", "input 'x': element 0"),
        (
            b"{\"instances\":[{\"b64\":\"*\"}]}",
            "input 'x': element 0 of its data must be a text (BYTES)",
        ),
        (b"{\"instances\":[\"a\"],\"more\":\"\xff\"}", "a text is not UTF-8"),
        (b"{\"instances\":[\"a\"],\"instances\":[\"a\"]}", "once"),
    ] {
        let answer = connection.post(path, &[], body).await;
        answer.refused(400, "invalid_request", &[told]);
    }
    let answer = connection.post(path, &[], b"{\"instances\":[\"a\"]}").await;
    assert_eq!(answer.ok(), json!({ "predictions": ["a"] }));
    let encoded = connection.post(path, &[("content-encoding", "br")], b"x").await;
    encoded.refused(415, "unsupported_encoding", &["'br'", "gzip, deflate or zstd"]);
    let bomb = zstd::encode_all(vec![b' '; 64 << 20].as_slice(), 1).unwrap();
    let mut connection = Connection::open(server.address).await;
    let bomb = connection.post(path, &[("content-encoding", "zstd")], &bomb).await;
    bomb.refused(413, "payload_too_large", &["65536"]);
    predict(&server, "text", &json!({ "instances": ["a"] })).await.ok();
}

#[tokio::test]
async fn states_and_signatures_are_told() {
    let repository = Repository::of("add", &add_constant(1.0)).and("add", 2, &add_constant(2.0));
    let settings = "version_policy: all\n";
    let server = Server::start(repository.with_settings("add", settings)).await;
    let status = |version: &str, state: &str| {
        let status = json!({ "error_code": "OK", "error_message": "" });
        json!({ "version": version, "state": state, "status": status })
    };
    let all = server.get("/v1/models/add").await.ok();
    let both = [status("2", "AVAILABLE"), status("1", "AVAILABLE")];
    assert_eq!(all, json!({ "model_version_status": both }));
    let alias = json!({ "version": "1" });
    server.put("/lifecycle/models/add/aliases/stable", &alias).await.ok();
    let one = json!({ "model_version_status": [status("1", "AVAILABLE")] });
    assert_eq!(server.get("/v1/models/add/labels/stable").await.ok(), one);
    assert_eq!(server.get("/v1/models/add/versions/1").await.ok(), one);
    let body = json!({ "instances": [[0, 0, 0, 0]] });
    let answer = predict(&server, "add/labels/stable", &body).await.ok();
    assert_eq!(answer["predictions"][0][0], 1.0);
    server.get("/v1/models/none").await.refused(404, "unknown_model", &[]);
    server.get("/v1/models/add/versions/9").await.refused(404, "unknown_version", &[]);
    server.get("/v1/models/add/labels/none").await.refused(404, "unknown_alias", &[]);
    let told = server.get("/v1/models/add/metadata").await.ok();
    assert_eq!(told["model_spec"]["version"], "2");
    let signature = &told["metadata"]["signature_def"]["signature_def"]["serving_default"];
    let dims = json!([{ "size": "-1", "name": "" }, { "size": "4", "name": "" }]);
    let x = json!({
        "dtype": "DT_FLOAT",
        "tensor_shape": { "dim": dims, "unknown_rank": false },
        "name": "x",
    });
    assert_eq!(signature["inputs"]["x"], x);
    for path in ["/v1/models/add/versions/1/metadata", "/v1/models/add/labels/stable/metadata"] {
        assert_eq!(server.get(path).await.ok()["model_spec"]["version"], "1");
    }
    server.repository.put("add", 3, &unknown_operator());
    let load = server.post("/v2/repository/models/add/load", &json!({})).await;
    load.refused(400, "load_failed", &[]);
    let failed = server.get("/v1/models/add/versions/3").await.ok();
    let failed = &failed["model_version_status"][0];
    assert_eq!(
        (&failed["state"], &failed["status"]["error_code"]),
        (&json!("END"), &json!("UNKNOWN"))
    );
}
