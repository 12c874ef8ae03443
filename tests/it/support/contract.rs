//! `openapi.yaml` as the judge of real answers.

use std::sync::LazyLock;

use reqwest::Method;
use serde_json::{Map, Value, json};

use super::server::Answer;
use super::text;

/// The document.
pub(crate) static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_saphyr::from_str(&text("openapi.yaml")).expect("openapi.yaml is YAML"));

/// What TensorFlow Serving has behind a name.
const VERB: &str = ":predict";

/// Checks that the document allows this answer to this request: its status, its content type and
/// its body. A path or a method that the document does not have must be answered by an error.
#[track_caller]
pub(crate) fn check(method: &Method, path: &str, answer: &Answer) {
    let path = path.split('?').next().expect("a split has a first part");
    // Documented as another spelling of the same path.
    let path = if path == "/v2/" { "/v2" } else { path };
    let Some(operation) = operation(method, path) else {
        assert!(matches!(answer.status, 404 | 405), "{method} {path} is not in openapi.yaml");
        return valid(&json!({ "$ref": "#/components/schemas/Error" }), &answer.json(), path);
    };
    let status = answer.status.to_string();
    let response = operation["responses"].get(&status);
    let response = response.unwrap_or_else(|| {
        let body = String::from_utf8_lossy(&answer.body);
        panic!("{method} {path} is not documented to answer {status}: {body}")
    });
    let Some(content) = resolve(response)["content"].as_object() else {
        assert!(answer.body.is_empty(), "{method} {path} is documented to have an empty body");
        return;
    };
    let kind = answer.header("content-type").split(';').next().unwrap_or_default();
    let media = content.get(kind).unwrap_or_else(|| {
        panic!("{method} {path} is not documented to answer {status} with {kind}")
    });
    if kind == "application/json" {
        valid(&media["schema"], &answer.json(), &format!("{method} {path} {status}"));
    }
}

/// Every method and path of the document.
pub(crate) fn operations() -> Vec<(Method, String)> {
    let paths = DOCUMENT["paths"].as_object().expect("paths are a map");
    let methods = |item: &Value| -> Vec<Method> {
        let keys = item.as_object().expect("a path is a map").keys();
        keys.filter_map(|key| Method::from_bytes(key.to_uppercase().as_bytes()).ok())
            .filter(|method| {
                [Method::GET, Method::POST, Method::PUT, Method::DELETE].contains(method)
            })
            .collect()
    };
    paths
        .iter()
        .flat_map(|(path, item)| methods(item).into_iter().map(|method| (method, path.clone())))
        .collect()
}

fn operation(method: &Method, path: &str) -> Option<&'static Value> {
    let paths = DOCUMENT["paths"].as_object().expect("paths are a map");
    // A literal path is nearer than one with parameters.
    let literal = paths.get(path);
    let item = literal.or_else(|| {
        paths.iter().find(|(template, _)| fits(template, path)).map(|(_, item)| item)
    })?;
    item.get(method.as_str().to_lowercase())
}

fn fits(template: &str, path: &str) -> bool {
    let (template, path): (Vec<&str>, Vec<&str>) =
        (template.split('/').collect(), path.split('/').collect());
    let same = |(expected, actual): (&&str, &&str)| {
        // What stands behind a parameter is no part of it.
        let verb = expected.ends_with(VERB) == actual.ends_with(VERB);
        expected == actual || (expected.starts_with('{') && verb && !actual.is_empty())
    };
    template.len() == path.len() && template.iter().zip(&path).all(same)
}

fn resolve(value: &'static Value) -> &'static Value {
    let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
        return value;
    };
    let pointer = reference.strip_prefix('#').expect("references are inside the document");
    DOCUMENT.pointer(pointer).unwrap_or_else(|| panic!("{reference} leads nowhere"))
}

#[track_caller]
fn valid(schema: &Value, body: &Value, what: &str) {
    let mut root = Map::new();
    root.insert("allOf".to_owned(), json!([schema]));
    root.insert("components".to_owned(), DOCUMENT["components"].clone());
    let validator = jsonschema::draft202012::new(&Value::Object(root));
    let validator = validator.unwrap_or_else(|error| panic!("{what}: bad schema: {error}"));
    let errors: Vec<String> = validator
        .iter_errors(body)
        .map(|error| format!("{}: {error}", error.instance_path()))
        .collect();
    assert!(errors.is_empty(), "{what}: {errors:#?} in {body}");
}
