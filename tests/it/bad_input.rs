//! What clients get wrong, and what they are told.

use reqwest::Method;
use serde_json::{Value, json};

use crate::support::connection::{Connection, head};
use crate::support::grpc::http2;
use crate::support::onnx::{Dim, Elem, Graph, Node, add_constant, identity};
use crate::support::{Repository, Server, x};

async fn server() -> Server {
    Server::start(Repository::of("add", &add_constant(1.0))).await
}

#[tokio::test]
async fn what_does_not_exist_is_not_found() {
    let server = server().await;
    let body = x(&[1, 4], &[0.0; 4]);
    let unknown = server.infer("nope", &body).await;
    unknown.refused(404, "unknown_model", &["Request for unknown model", "nope"]);
    let version = server.post("/v2/models/add/versions/9/infer", &body).await;
    version.refused(404, "unknown_version", &["version 9"]);
    for bad in ["0", "01", "-1", "1.0", "99999999999999999999999"] {
        let answer = server.post(&format!("/v2/models/add/versions/{bad}/infer"), &body).await;
        answer.refused(400, "invalid_name", &["specified version string", bad]);
    }
    let alias = server.post("/v2/models/add/versions/x/infer", &body).await;
    alias.refused(404, "unknown_alias", &["'x'"]);
    server.get("/v2/models/nope").await.refused(404, "unknown_model", &[]);
    server.get("/v2/models/nope/ready").await.refused(404, "unknown_model", &[]);
    server.get("/lifecycle/models/nope").await.refused(404, "unknown_model", &[]);
    server.get("/nowhere").await.refused(404, "not_found", &["/nowhere"]);
    let wrong = server.send(Method::DELETE, "/v2/models/add", Vec::new()).await;
    wrong.refused(405, "method_not_allowed", &["DELETE", "only GET and HEAD"]);
    assert_eq!(wrong.header("allow"), "GET,HEAD");
}

#[tokio::test]
async fn names_cannot_leave_the_repository() {
    let server = server().await;
    for name in ["..%2f..%2fetc", ".hidden", "a%5cb", "a%00b", &"x".repeat(300)] {
        let answer = server.post(&format!("/v2/repository/models/{name}/load"), &json!({})).await;
        answer.refused(400, "invalid_name", &[]);
    }
    let answer = server.get("/v2/models/%ff").await;
    answer.refused(400, "invalid_request", &["UTF-8"]);
}

#[tokio::test]
async fn broken_bodies_are_told_where_they_break() {
    let server = server().await;
    let send = async |text: &str| {
        server.send(Method::POST, "/v2/models/add/infer", text.as_bytes().to_vec()).await
    };
    for (text, told) in [
        ("", "the body is empty"),
        ("{", "line 1"),
        ("[]", "expected"),
        ("null", "expected"),
        ("{\"inputs\": [}", "column 13"),
        ("{\"inputs\": []} x", "trailing"),
        ("{}", "inputs"),
        ("{\"inputs\": 1}", "'inputs'"),
        ("{\"inputs\": [{\"name\": \"x\"}]}", "'inputs[0]'"),
        ("{\"id\": 5, \"inputs\": []}", "'id'"),
        ("{\"inputs\": [], \"outputs\": [5]}", "'outputs[0]'"),
        ("[null, {}, [], []]", "expected an object"),
        ("{\"inputs\": [[\"x\", [1], \"FP32\", {}, [1]]]}", "'inputs[0]'"),
    ] {
        send(text).await.refused(400, "invalid_request", &[told]);
    }
    server.send(Method::POST, "/v2/models/add/infer", vec![0xff, 0xfe]).await.refused(
        400,
        "invalid_request",
        &[],
    );
    let deep = "[".repeat(200_000);
    send(&deep).await.refused(400, "invalid_request", &[]);
    let nested = format!(
        "{{\"inputs\": [{{\"name\": \"x\", \"shape\": [1], \"datatype\": \"FP32\", \"data\": {}1{}}}]}}",
        "[".repeat(100_000),
        "]".repeat(100_000)
    );
    send(&nested).await.refused(400, "invalid_request", &["deeper"]);
}

#[tokio::test]
async fn a_dimension_is_a_whole_number() {
    let server = server().await;
    let whole = "a whole number, 0 or more";
    for (shape, told) in [
        ("[-1]", ["input 'x': a dimension is", whole, "got -1 in the shape [-1]"]),
        ("[4, -9223372036854775808]", ["input 'x'", whole, "[4,-9223372036854775808]"]),
        ("[1.5]", ["'inputs[0].shape[0]'", "number `1.5`, expected a dimension", whole]),
        ("[1.0]", ["'inputs[0].shape[0]'", "expected a dimension", whole]),
        ("[1, \"4\"]", ["'inputs[0].shape[1]'", "string \"4\", expected a dimension", whole]),
        ("[1, null]", ["'inputs[0].shape[1]'", "null, expected a dimension", whole]),
        ("[18446744073709551616]", ["'inputs[0].shape[0]'", "expected a dimension", whole]),
        ("[[1, 4]]", ["'inputs[0].shape[0]'", "array, expected a dimension", whole]),
        ("4", ["'inputs[0].shape'", "invalid type: integer `4`", "expected an array"]),
        ("null", ["'inputs[0].shape'", "invalid type: null", "expected an array"]),
    ] {
        let body = format!(
            r#"{{"inputs":[{{"name":"x","shape":{shape},"datatype":"FP32","data":[1]}}]}}"#
        );
        let answer = server.send(Method::POST, "/v2/models/add/infer", body.into_bytes()).await;
        answer.refused(400, "invalid_request", &told);
    }
    // Where the name comes later, its place stands for it.
    let body = r#"{"inputs":[{"shape":[-1],"name":"x","datatype":"FP32","data":[1]}]}"#;
    let answer = server.send(Method::POST, "/v2/models/add/infer", body.into()).await;
    answer.refused(400, "invalid_request", &["input 'inputs[0]': a dimension is"]);
}

/// Each mistake in one input of a request that is sound otherwise.
#[tokio::test]
async fn wrong_inputs_are_named() {
    let server = server().await;
    let input = |shape: Value, datatype: &str, data: Value| json!({ "name": "x", "shape": shape, "datatype": datatype, "data": data });
    let four = || json!([1, 2, 3, 4]);
    for (input, told) in [
        (input(json!([1, 3]), "FP32", json!([1, 2, 3])), "must have shape [-1,4], got [1,3]"),
        (input(json!([4]), "FP32", four()), "must have shape [-1,4]"),
        (input(json!([1, 4]), "FP64", four()), "must be FP32, got FP64"),
        (input(json!([1, 4]), "FLOAT", four()), "unknown datatype 'FLOAT', expected one of BOOL"),
        (input(json!([1, 4]), "fp32", four()), "unknown datatype 'fp32'"),
        (input(json!([2, 4]), "FP32", four()), "needs 8 elements, got 4"),
        (input(json!([1, 4]), "FP32", json!([1, 2, 3])), "needs 4 elements, got 3"),
        (input(json!([1, 4]), "FP32", json!([1, 2, 3, "4"])), "element 3"),
        (input(json!([1, 4]), "FP32", json!([1, 2, 3, null])), "element 3"),
        (input(json!([1, 4]), "FP32", json!([1, 2, 3, 1e39])), "element 3"),
        (input(json!([1, 4]), "INT8", json!([1, 2, 3, 128])), "element 3"),
        (input(json!([1, 4]), "FP32", json!([[1, 2, 3], [4]])), "ragged"),
        (input(json!([1, 4]), "FP32", json!("1234")), "must be an array"),
        (input(json!([1, 4]), "FP32", json!({})), "must be an array"),
        (input(json!([4_611_686_018_427_387_904_u64, 4]), "FP32", four()), "too many elements"),
        (input(json!([1_u64 << 40, 1_u64 << 40, 0]), "FP32", json!([])), "too many elements"),
        (input(json!([1_u64 << 63, 0, 4]), "FP32", json!([])), "too many elements"),
        (
            json!({ "name": "x", "shape": [1, 4], "datatype": "FP32" }),
            "neither 'data' nor the parameter 'binary_data_size'",
        ),
    ] {
        let answer = server.infer("add", &json!({ "inputs": [input] })).await;
        answer.refused(400, "invalid_request", &["'x'", told]);
    }
}

#[tokio::test]
async fn wrong_names_of_tensors_are_told_the_right_ones() {
    let server = server().await;
    let sound = x(&[1, 4], &[0.0; 4]);
    let mut misnamed = sound.clone();
    misnamed["inputs"][0]["name"] = json!("image");
    let answer = server.infer("add", &misnamed).await;
    answer.refused(400, "invalid_request", &["unexpected input 'image'", "'x'"]);
    let none = server.infer("add", &json!({ "inputs": [] })).await;
    none.refused(400, "invalid_request", &["missing input 'x' of datatype FP32 and shape [-1,4]"]);
    let mut twice = sound.clone();
    twice["inputs"] = json!([sound["inputs"][0], sound["inputs"][0]]);
    server.infer("add", &twice).await.refused(400, "invalid_request", &["more than once"]);
    let mut output = sound.clone();
    output["outputs"] = json!([{ "name": "z" }]);
    let answer = server.infer("add", &output).await;
    answer.refused(400, "invalid_request", &["unexpected output 'z'", "'y'"]);
}

#[tokio::test]
async fn what_is_not_done_is_said_to_be_so() {
    let server = server().await;
    let with = |key: &str, value: Value| {
        let mut body = x(&[1, 4], &[0.0; 4]);
        body[key] = value;
        body
    };
    let parameters = |parameters: Value| with("parameters", parameters);
    let reserved = server.infer("add", &parameters(json!({ "triton_x": 1 }))).await;
    reserved.refused(400, "invalid_request", &["triton_x", "reserved"]);
    let timeout = server.infer("add", &parameters(json!({ "timeout": "soon" }))).await;
    timeout.refused(400, "invalid_request", &["timeout", "microseconds"]);
    let shared = json!({ "shared_memory_region": "r", "shared_memory_byte_size": 16 });
    for body in [
        parameters(json!({ "sequence_id": 1 })),
        with("outputs", json!([{ "name": "y", "parameters": shared }])),
        with(
            "inputs",
            json!([{ "name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": shared }]),
        ),
    ] {
        server.infer("add", &body).await.refused(501, "unsupported", &["not supported"]);
    }
    let both = with(
        "inputs",
        json!([{
            "name": "x", "shape": [1, 4], "datatype": "FP32", "data": [1, 2, 3, 4],
            "parameters": { "binary_data_size": 16 },
        }]),
    );
    server.infer("add", &both).await.refused(400, "invalid_request", &["not both"]);
}

#[tokio::test]
async fn bodies_have_a_limit_and_known_encodings() {
    let repository = Repository::of("add", &add_constant(1.0));
    let server = Server::start_with(repository, &[("server.max_body_size", "1KiB")]).await;
    let path = "/v2/models/add/infer";
    let large = server.send(Method::POST, path, vec![b' '; 2000]).await;
    large.refused(413, "payload_too_large", &["1024", "server.max_body_size"]);
    let chunked = reqwest::Body::from(vec![b' '; 2000]);
    let chunked =
        server.request(Method::POST, path).header("transfer-encoding", "chunked").body(chunked);
    assert_eq!(chunked.send().await.unwrap().status(), 413);
    let coded = server.request(Method::POST, path).header("content-encoding", "br").body("x");
    let answer = coded.send().await.unwrap();
    assert_eq!(answer.status(), 415);
    let told = answer.text().await.unwrap();
    assert!(
        told.contains("unsupported_encoding") && told.contains("gzip, deflate or zstd"),
        "{told}"
    );
    for codings in [&["gzip, gzip"][..], &["gzip", "br"], &["gzip", "gzip"], &["zlib"], &["*"]] {
        let headers: Vec<_> = codings.iter().map(|coding| ("content-encoding", *coding)).collect();
        let mut connection = Connection::open(server.address).await;
        let answer = connection.post(path, &headers, b"x").await;
        let told = format!("content encoding '{}' is not supported", codings.join(", "));
        answer.refused(415, "unsupported_encoding", &[&told]);
        connection.is_closed().await;
    }
    // What is refused before its body is read.
    for path in ["/nowhere", "/livez", "/v2/repository/models/a%2fb/load"] {
        let mut connection = Connection::open(server.address).await;
        connection.send(&head(path, &[("content-length", "5")])).await;
        let answer = connection.answer().await;
        assert_eq!(answer.header("connection"), "close", "{path}");
        connection.is_closed().await;
    }
    let mut connection = Connection::open(server.address).await;
    let plain = [("content-encoding", "identity"), ("content-encoding", "")];
    connection.post(path, &plain, SOUND.as_bytes()).await.output("y");
    connection.send(&head(path, &[("content-length", "1025")])).await;
    connection.answer().await.refused(413, "payload_too_large", &["1024"]);
    connection.is_closed().await;
    for blank in ["", " \n"] {
        let answer = server.send(Method::POST, path, blank.into()).await;
        answer.refused(400, "invalid_request", &["the body is empty"]);
    }
    let swap = server.send(Method::POST, "/lifecycle/models/add/swap", Vec::new()).await;
    swap.refused(400, "invalid_request", &["the body is empty"]);
    assert_eq!(server.infer("add", &x(&[1, 4], &[0.0; 4])).await.status, 200);
}

/// Shapes that fit the signature, and not what the graph does with them.
#[tokio::test]
async fn what_only_the_engine_can_tell_is_the_callers_mistake_too() {
    let any = [Dim::Symbolic("n")];
    let other = [Dim::Symbolic("m")];
    let sum = Graph::new("sum")
        .input("a", Elem::Float, &any)
        .input("b", Elem::Float, &other)
        .output("y", Elem::Float, &any)
        .node(&Node::new("Add", &["a", "b"], &["y"]))
        .into_model();
    let server = Server::start(Repository::of("sum", &sum)).await;
    let vector = |name: &str, length: usize| json!({ "name": name, "shape": [length], "datatype": "FP32", "data": vec![1; length] });
    let body = json!({ "inputs": [vector("a", 2), vector("b", 3)] });
    server.infer("sum", &body).await.refused(400, "invalid_request", &["cannot compute"]);
    let body = json!({ "inputs": [vector("a", 3), vector("b", 3)] });
    assert_eq!(server.infer("sum", &body).await.output("y"), json!([2.0, 2.0, 2.0]));
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_refused() {
    let text = identity(Elem::String, &[Dim::Symbolic("n")]);
    let server = Server::start(Repository::of("text", &text)).await;
    let mut body =
        b"{\"inputs\":[{\"name\":\"x\",\"shape\":[1],\"datatype\":\"BYTES\",\"data\":[\"".to_vec();
    body.push(0xff);
    body.extend(b"\"]}]}");
    let answer = server.send(Method::POST, "/v2/models/text/infer", body).await;
    let told = "input 'x': element 0 of its data is a text that is not UTF-8";
    answer.refused(400, "invalid_request", &[told]);
}

/// A sound request, in which each value can be replaced.
const SOUND: &str = r#"{"id":"7","parameters":{"mine":"a"},"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","parameters":{"its":"b"},"data":[[1,2,3,4]]}],"outputs":[{"name":"y","parameters":{"own":"c"}}],"more":"d"}"#;

#[tokio::test]
async fn a_body_that_is_cut_anywhere_is_refused() {
    let server = server().await;
    let mut connection = Connection::open(server.address).await;
    let path = "/v2/models/add/infer";
    for end in 0..SOUND.len() {
        let answer = connection.post(path, &[], &SOUND.as_bytes()[..end]).await;
        answer.refused(400, "invalid_request", &["the body is"]);
    }
    for more in ["x", "{}", "]", ",", "\u{0}"] {
        let answer = connection.post(path, &[], format!("{SOUND}{more}").as_bytes()).await;
        answer.refused(400, "invalid_request", &["trailing characters"]);
    }
    let answer = connection.post(path, &[], format!(" \r\n{SOUND}\t\n").as_bytes()).await;
    assert_eq!(answer.output("y"), json!([2.0, 3.0, 4.0, 5.0]));
}

#[tokio::test]
async fn text_that_is_not_utf_8_is_refused_wherever_it_stands() {
    let server = server().await;
    let mut connection = Connection::open(server.address).await;
    for (text, told) in [
        ("\"7\"", "not valid JSON"),
        ("\"a\"", "not valid JSON"),
        ("\"x\"", "not valid JSON"),
        ("\"FP32\"", "not valid JSON"),
        ("\"b\"", "not valid JSON"),
        ("\"y\"", "not valid JSON"),
        ("\"c\"", "not valid JSON"),
        ("\"d\"", "a text is not UTF-8"),
        ("\"mine\"", "not valid JSON"),
        ("\"more\"", "not valid JSON"),
    ] {
        let at = SOUND.find(text).unwrap();
        let (before, after) = (&SOUND.as_bytes()[..=at], &SOUND.as_bytes()[at + 1..]);
        // A lone byte of a longer one, one that is in none, and half of a pair of UTF-16.
        for wrong in [b"\xc3".as_slice(), b"\xff", b"\xed\xa0\x80"] {
            let body = [before, wrong, after].concat();
            let answer = connection.post("/v2/models/add/infer", &[], &body).await;
            answer.refused(400, "invalid_request", &[told]);
        }
    }
    let answer = connection.post("/v2/models/add/infer", &[], SOUND.as_bytes()).await;
    answer.output("y");
}

#[tokio::test]
async fn numbers_beyond_their_datatype_are_refused() {
    let cases = [
        (Elem::Bool, "BOOL", "2", "-1", "true or false"),
        (Elem::Uint8, "UINT8", "256", "-1", "from 0 to 255"),
        (Elem::Uint16, "UINT16", "65536", "-1", "from 0 to 65535"),
        (Elem::Uint32, "UINT32", "4294967296", "-1", "from 0 to 4294967295"),
        (Elem::Uint64, "UINT64", "18446744073709551616", "-1", "from 0 to 18446744073709551615"),
        (Elem::Int8, "INT8", "128", "-129", "from -128 to 127"),
        (Elem::Int16, "INT16", "32768", "-32769", "from -32768 to 32767"),
        (Elem::Int32, "INT32", "2147483648", "-2147483649", "from -2147483648 to 2147483647"),
        (Elem::Int64, "INT64", "9223372036854775808", "-9223372036854775809", "whole number"),
        (Elem::Float16, "FP16", "65520", "-1e5", "from -65504 to 65504"),
        (Elem::BFloat16, "BF16", "1e39", "-1e39", "from -3.4e38 to 3.4e38"),
        (Elem::Float, "FP32", "3.5e38", "-1e39", "from -3.4e38 to 3.4e38"),
        (Elem::Double, "FP64", "1e309", "-1e999999999999", "from -1.8e308 to 1.8e308"),
        (Elem::String, "BYTES", "1", "null", "a text"),
    ];
    assert_eq!(cases.len(), Elem::ALL.len());
    let repository = Repository::empty();
    for (elem, datatype, ..) in &cases {
        repository.put(datatype, 1, &identity(*elem, &[Dim::Symbolic("n")]));
    }
    let server = Server::start(repository).await;
    for (_, datatype, above, below, told) in cases {
        let whole = !["FP16", "BF16", "FP32", "FP64"].contains(&datatype);
        let sound = if datatype == "BYTES" { "\"a\"" } else { "1" };
        let wrong = [above, below, "{}", "[]", "\"nan\"", "NaN", "0x1", "+1", "1.5"];
        for token in wrong.into_iter().filter(|token| whole || *token != "1.5") {
            if datatype == "BYTES" && token.starts_with('"') {
                continue;
            }
            let body = format!(
                r#"{{"inputs":[{{"name":"x","shape":[2],"datatype":"{datatype}","data":[{sound},{token}]}}]}}"#
            );
            let path = format!("/v2/models/{datatype}/infer");
            let answer = server.send(Method::POST, &path, body.into_bytes()).await;
            let texts: &[&str] = match token {
                "0x1" | "+1" => &["not valid JSON"],
                "NaN" => &["input 'x': element 1 of its data is NaN", "in quotes, \"NaN\""],
                "[]" => &["input 'x'", "nested deeper than its shape"],
                _ => &["input 'x': element 1 of its data must be", datatype, told, "got"],
            };
            answer.refused(400, "invalid_request", texts);
        }
    }
}

#[tokio::test]
async fn what_is_nested_deeply_costs_nothing() {
    let server = server().await;
    let mut connection = Connection::open(server.address).await;
    let deep =
        |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        for (place, told) in [
            ("\"7\"", ""),
            ("{\"mine\":\"a\"}", ""),
            ("\"a\"", "recursion limit"),
            ("\"x\"", ""),
            ("[1,4]", ""),
            ("\"FP32\"", ""),
            ("\"b\"", "recursion limit"),
            ("[[1,2,3,4]]", "input 'x'"),
            ("\"y\"", ""),
            ("[{\"name\":\"y\",\"parameters\":{\"own\":\"c\"}}]", ""),
        ] {
            let body = SOUND.replacen(place, &deep(open, close), 1);
            let answer = connection.post("/v2/models/add/infer", &[], body.as_bytes()).await;
            answer.refused(400, "invalid_request", &[told]);
        }
        // What nobody reads may be as it likes.
        let ignored = SOUND.replacen("\"d\"", &deep(open, close), 1);
        connection.post("/v2/models/add/infer", &[], ignored.as_bytes()).await.output("y");
    }
}

#[tokio::test]
async fn what_is_given_twice_is_refused() {
    let server = server().await;
    let mut connection = Connection::open(server.address).await;
    for (field, told) in [
        ("\"id\":\"7\"", "'id'"),
        ("\"parameters\":{\"mine\":\"a\"}", "'parameters'"),
        ("\"name\":\"x\"", "'inputs[0].name'"),
        ("\"shape\":[1,4]", "'inputs[0].shape'"),
        ("\"datatype\":\"FP32\"", "'inputs[0].datatype'"),
        ("\"parameters\":{\"its\":\"b\"}", "'inputs[0].parameters'"),
        ("\"data\":[[1,2,3,4]]", "'inputs[0].data'"),
        ("\"outputs\":[{\"name\":\"y\",\"parameters\":{\"own\":\"c\"}}]", "'outputs'"),
        ("\"name\":\"y\"", "'outputs[0].name'"),
        ("\"parameters\":{\"own\":\"c\"}", "'outputs[0].parameters'"),
    ] {
        let body = SOUND.replacen(field, &format!("{field},{field}"), 1);
        let answer = connection.post("/v2/models/add/infer", &[], body.as_bytes()).await;
        answer.refused(400, "invalid_request", &[told, "more than once"]);
    }
    let whole = SOUND.find("\"inputs\"").unwrap()..SOUND.find(",\"outputs\"").unwrap();
    let inputs = &SOUND[whole];
    let body = SOUND.replacen(inputs, &format!("{inputs},{inputs}"), 1);
    let answer = connection.post("/v2/models/add/infer", &[], body.as_bytes()).await;
    answer.refused(400, "invalid_request", &["'inputs': it is given more than once"]);
    connection.post("/v2/models/add/infer", &[], SOUND.as_bytes()).await.output("y");
}

/// A body that is shorter than it was said to be, or in chunks that are none.
#[tokio::test]
async fn a_body_that_breaks_off_is_refused() {
    let server = server().await;
    let path = "/v2/models/add/infer";
    for (headers, body) in [
        (&[("content-length", "1000")][..], SOUND.as_bytes().to_vec()),
        (&[("content-length", "1000")], Vec::new()),
        (&[("transfer-encoding", "chunked")], b"10\r\n{\"inputs\"".to_vec()),
        (&[("transfer-encoding", "chunked")], b"zz\r\n{\r\n0\r\n\r\n".to_vec()),
        (&[("transfer-encoding", "chunked")], b"ffffffffffffffffff\r\n{".to_vec()),
    ] {
        let mut connection = Connection::open(server.address).await;
        connection.send(&head(path, headers)).await;
        connection.send(&body).await;
        connection.finish().await;
        let answer = connection.answer().await;
        answer.refused(400, "invalid_request", &["the body broke off before its end"]);
        connection.is_closed().await;
    }
    server.infer("add", &x(&[1, 4], &[0.0; 4])).await.output("y");
}

#[tokio::test]
async fn pages_of_other_sites_change_nothing() {
    let server = server().await;
    let post = async |name: &str, value: &str| {
        let request = server.request(Method::POST, "/lifecycle/shutdown").header(name, value);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.text().await.unwrap())
    };
    for (name, value) in [
        ("origin", "http://evil.example"),
        ("origin", "null"),
        ("sec-fetch-site", "cross-site"),
        ("sec-fetch-site", "same-site"),
    ] {
        let (status, text) = post(name, value).await;
        assert_eq!(status, 403, "{name}: {value}");
        assert!(text.contains("cross_site"), "{text}");
    }
    let own = format!("http://{}", server.address);
    let infer = server.request(Method::POST, "/v2/models/add/infer").header("origin", own);
    let answer = infer.body(x(&[1, 4], &[0.0; 4]).to_string()).send().await.unwrap();
    assert_eq!(answer.status(), 200);
}

#[tokio::test]
async fn requests_that_change_something_are_small() {
    let server = server().await;
    let large = json!({ "parameters": { "x": "y".repeat(70_000) } });
    for path in ["/v2/repository/models/add/unload", "/lifecycle/models/add/swap"] {
        server.post(path, &large).await.refused(413, "payload_too_large", &["65536"]);
    }
    let long = json!({ "reason": "x".repeat(2000) });
    server.post("/lifecycle/drain", &long).await.refused(400, "invalid_request", &["1024"]);
}

#[tokio::test]
async fn who_asks_for_the_head_of_an_error_gets_it_over_http_2_too() {
    let server = Server::start(Repository::empty()).await;
    for path in ["/nope", "/v2/models/nope"] {
        let (get, head) = (http2().get(server.url(path)), http2().head(server.url(path)));
        let (get, head) = (get.send().await.unwrap(), head.send().await.unwrap());
        assert_eq!((get.status().as_u16(), head.status().as_u16()), (404, 404));
        assert_eq!(head.version(), reqwest::Version::HTTP_2);
        assert_eq!(head.headers()["content-type"], "application/json");
        let length = |answer: &reqwest::Response| answer.headers()["content-length"].clone();
        assert_eq!(length(&head), length(&get));
        assert!(head.bytes().await.unwrap().is_empty());
        assert!(!get.bytes().await.unwrap().is_empty());
    }
}
