//! The models that come with the project.

use serde_json::{Value, json};

use crate::support::samples::samples;
use crate::support::{Server, text};

fn sample(name: &str) -> Value {
    serde_json::from_str(&text(&format!("models/digits/samples/{name}.json"))).unwrap()
}

#[tokio::test]
async fn real_digits_are_classified() {
    let server = Server::start(samples()).await;
    for digit in 0..10 {
        let answer = server.infer("digits", &sample(&format!("digit-{digit}"))).await;
        assert_eq!(answer.output("label"), json!([digit]));
        assert_eq!(answer.ok()["model_version"], "1");
        let scores: Vec<f64> = serde_json::from_value(answer.output("probabilities")).unwrap();
        assert_eq!(scores.len(), 10);
        assert!((scores.iter().sum::<f64>() - 1.0).abs() < 1e-4, "{scores:?}");
    }
    assert_eq!(server.infer("digits", &sample("batch")).await.output("label"), json!([4, 7, 1, 9]));
}

#[tokio::test]
async fn the_second_version_knows_what_the_first_does_not() {
    let server = Server::start(samples()).await;
    let hard = [1, 2, 5];
    for digit in hard {
        let answer = server.infer("digits", &sample(&format!("hard-{digit}"))).await;
        assert_ne!(answer.output("label"), json!([digit]));
    }
    server.post("/lifecycle/models/digits/swap", &json!({ "to": "2" })).await.ok();
    for digit in hard {
        let answer = server.infer("digits", &sample(&format!("hard-{digit}"))).await;
        assert_eq!(answer.output("label"), json!([digit]));
    }
}

#[tokio::test]
async fn both_versions_answer_their_golden_samples() {
    let server = Server::start(samples()).await;
    let verify = "/lifecycle/models/digits/verify";
    for version in ["1", "2"] {
        let verified = server.post(verify, &json!({ "version": version })).await.ok();
        assert_eq!(verified["samples"], json!(["held-out.npz", "batch.json"]));
        let swap = json!({ "to": "2", "keep_previous": true });
        if version == "1" {
            server.post("/lifecycle/models/digits/swap", &swap).await.ok();
        }
    }
}

#[tokio::test]
async fn strings_and_several_tensors_are_served() {
    let server = Server::start(samples()).await;
    let body = |model: &str, name: &str| -> Value {
        serde_json::from_str(&text(&format!("models/{model}/samples/{name}.json"))).unwrap()
    };
    let language = server.infer("language", &body("language", "three")).await;
    assert_eq!(language.output("label"), json!(["en", "de", "it"]));
    let wine = server.infer("wine", &body("wine", "two")).await;
    assert_eq!(wine.output("ids_out"), json!([101, 102]));
    assert_eq!(wine.output("cultivar").as_array().unwrap().len(), 2);
    for (model, sample) in [("language", "three.json"), ("wine", "two.json")] {
        let path = format!("/lifecycle/models/{model}/verify");
        assert_eq!(server.post(&path, &json!({})).await.ok()["samples"], json!([sample]));
    }
}
