use std::num::NonZeroU32;
use std::time::Duration;

use super::*;
use crate::model::VersionRef;

fn read(text: &str) -> Result<ModelSettings, String> {
    let labels = |name: &str| match name {
        "labels.txt" => Ok(vec!["a".to_owned(), "b".to_owned()]),
        other => Err(format!("there is no file '{other}' beside this one")),
    };
    parse(text, (&ModelName::new("m").unwrap(), &labels))
}

#[track_caller]
fn refused(text: &str, told: &str) {
    let error = read(text).unwrap_err();
    assert!(error.contains(told), "{error}");
}

#[track_caller]
fn warned(text: &str, told: &str) {
    let warnings = read(text).unwrap().warnings;
    assert!(warnings.len() == 1 && warnings[0].contains(told), "{warnings:?}");
}

#[test]
fn what_is_honoured_becomes_settings() {
    let settings = read(
        r#"name: "m"
        platform: "onnxruntime_onnx"
        max_batch_size: 8
        input [ { name: "x" data_type: TYPE_FP32 dims: [ 3, -1 ] } ]
        output { name: "y", data_type: TYPE_STRING, dims: 1 }
        instance_group [ { count: 2 kind: KIND_CPU }, { count: 1 } ]
        version_policy: { specific: { versions: [ 1, 3 ] } }"#,
    )
    .unwrap();
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!(settings.instances, NonZeroUsize::new(3));
    let versions = [1, 3].map(|number| Version::new(number).unwrap()).to_vec();
    assert_eq!(settings.version_policy, VersionPolicy::Specific(versions));
    let declared = settings.declared.unwrap();
    assert!(declared.batched);
    assert_eq!(settings.max_batch_size, Some(8));
    assert_eq!(declared.inputs[0].dims, Some(vec![Some(3), None]));
    assert_eq!(declared.outputs[0].datatype, Some(DataType::Bytes));
}

#[test]
fn policies() {
    let policy = |text: &str| read(&format!("version_policy {{ {text} }}")).unwrap().version_policy;
    assert_eq!(policy("all {}"), VersionPolicy::All);
    let two = NonZeroUsize::new(2).unwrap();
    assert_eq!(policy("latest { num_versions: 2 }"), VersionPolicy::Latest(two));
    assert_eq!(policy("latest: {}"), VersionPolicy::default());
    refused("version_policy { latest { num_versions: 0 } }", "num_versions is 1 or more");
    refused("version_policy { specific { } }", "names no version");
    refused("version_policy { newest { } }", "no policy 'newest'");
}

#[test]
fn what_is_not_honoured_is_told() {
    warned(
        "dynamic_batching { preferred_batch_size: [ 4 ] }",
        "preferred_batch_size is not honoured",
    );
    warned("optimization { graph { level: 1 } }", "optimization");
    let accelerated = |name: &str| {
        format!(
            "optimization {{ execution_accelerators {{ gpu_execution_accelerator : \
             [ {{ name : \"{name}\" parameters {{ key: \"a\" value: \"b\" }} }} ] }} }}"
        )
    };
    warned(&accelerated("gpu_of_tomorrow"), "no 'gpu_of_tomorrow'");
    warned(&accelerated("cpu"), "the parameters of 'cpu' have their defaults");
    warned("parameters { key: \"a\" value: { string_value: \"b\" } }", "parameters");
    warned("model_warmup [ { name: \"w\" } ]", "model_warmup");
    warned("instance_group { count: 1 kind: KIND_GPU }", "instance_group.kind");
}

#[test]
fn labels_are_those_of_their_output() {
    let settings = read("output { label_filename: \"labels.txt\" name: \"y\" }").unwrap();
    assert_eq!(settings.labels["y"].texts, ["a", "b"]);
    assert!(settings.warnings.is_empty());
}

#[test]
fn what_would_change_answers_is_refused() {
    refused("name: \"other\"", "line 1: name: it is 'other', but the model's folder is 'm'");
    refused("\nbackend: \"python\"", "line 2: backend: 'python' is not served");
    refused("platform: \"tensorrt_plan\"", "'tensorrt_plan'");
    refused("sequence_batching { }", "would change answers: models with state");
    refused("model_transaction_policy { decoupled: true }", "decoupled");
    refused("model_transaction_policy { decoupled: t }", "decoupled");
    read("model_transaction_policy { decoupled: false }").unwrap();
    read("model_transaction_policy { decoupled: False }").unwrap();
    refused("input { name: \"x\" reshape { shape: [ 1 ] } }", "'reshape'");
    refused("input { name: \"x\" allow_ragged_batch: true }", "'allow_ragged_batch'");
    refused("default_model_filename: \"../secret.onnx\"", "'../secret.onnx'");
    refused("output { name: \"y\" label_filename: \"../labels.txt\" }", "no name of a file");
    refused("output { name: \"y\" label_filename: \"none.txt\" }", "no file 'none.txt'");
}

#[test]
fn mistakes_are_named() {
    refused(
        "max_batchsize: 8",
        "max_batchsize: there is no such field, did you mean max_batch_size?",
    );
    refused("max_batch_size: \"8\"", "expected a whole number");
    refused("max_batch_size: -1", "expected 0 to");
    refused("input { data_type: TYPE_FP32 }", "it has no 'name'");
    refused("input { name: \"x\" data_type: TYPE_FP33 }", "no data_type TYPE_FP33");
    refused("input { name: \"x\" dims: -2 }", "-2");
    refused("input: 5", "expected a message");
    refused("instance_group { count: 1000 }", "256 instances at most");
    refused("instance_group { count: -1 }", "count: expected 0 or more, got -1");
    let many = "instance_group { count: 9223372036854775807 }\n".repeat(3);
    refused(&many, "256 instances at most");
    refused("instance_group { kind: KIND_MODEL }", "KIND_MODEL");
    refused("name: \"m", "line 1: a text has no end");
}

#[test]
fn whether_answers_are_kept_is_read_from_json() {
    let none = |file: &str| Err(format!("there is no file '{file}'"));
    let read = |text: &str| parse_json(text, (&ModelName::new("m").unwrap(), &none));
    let is_kept = |text: &str| read(text).map(|settings| settings.response_cache);
    assert_eq!(is_kept("{}"), Ok(false));
    assert_eq!(is_kept(r#"{"response_cache": {"enable": true}}"#), Ok(true));
    assert_eq!(is_kept(r#"{"responseCache": {"enable": false}}"#), Ok(false));
    let told = "response_cache: enable: expected true or false";
    assert_eq!(is_kept(r#"{"response_cache": {"enable": "often"}}"#), Err(told.to_owned()));
    let told = "response_cache: there is no field 'size'";
    assert_eq!(is_kept(r#"{"response_cache": {"size": 1}}"#), Err(told.to_owned()));
}

#[test]
fn the_same_fields_are_read_from_json() {
    let none = |file: &str| Err(format!("there is no file '{file}'"));
    let read = |text: &str| parse_json(text, (&ModelName::new("m").unwrap(), &none));
    let settings = read(
        r#"{"name": "m", "platform": "onnxruntime_onnx", "maxBatchSize": "8",
            "input": [{"name": "x", "data_type": "TYPE_FP32", "dims": ["3", -1],
                       "format": "FORMAT_NONE", "is_shape_tensor": false, "label_filename": ""}],
            "instance_group": [{"name": "m", "kind": "KIND_CPU", "count": 3, "gpus": []}],
            "version_policy": {"latest": {"num_versions": 2}}, "default_model_filename": "model.onnx",
            "model_transaction_policy": {"decoupled": false}, "parameters": {}, "metric_tags": {},
            "cc_model_filenames": {}, "batch_input": [], "response_cache": null}"#,
    )
    .unwrap();
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!((settings.max_batch_size, settings.instances), (Some(8), NonZeroUsize::new(3)));
    let declared = settings.declared.unwrap();
    assert_eq!(declared.inputs[0].dims, Some(vec![Some(3), None]));
    assert_eq!(declared.inputs[0].datatype, Some(DataType::Fp32));
    let text = r#"{"dynamic_batching": {"max_queue_delay_microseconds": "100",
        "default_priority_level": 2, "priority_levels": "3", "preserve_ordering": false,
        "default_queue_policy": {"max_queue_size": 7}}}"#;
    let settings = read(text).unwrap();
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    assert_eq!(settings.batching.max_delay, Duration::from_micros(100));
    assert_eq!(settings.default_priority, NonZeroU32::new(2));
    assert_eq!(settings.queue_capacity, NonZeroUsize::new(7));
    for (text, told) in [
        (r#"{"colour": 1}"#, "there is no field 'colour'"),
        (r#"{"max_queue_delay_microseconds": -1}"#, "expected 0 or more, got -1"),
        (r#"{"max_queue_delay_microseconds": 60000001}"#, "a minute at most"),
        (r#"{"default_priority_level": 4294967296}"#, "too large"),
        (r#"{"default_queue_policy": {"size": 1}}"#, "there is no field 'size'"),
    ] {
        let problem = read(&format!("{{\"dynamic_batching\": {text}}}")).unwrap_err();
        assert!(problem.starts_with("dynamic_batching: ") && problem.contains(told), "{problem}");
    }
    for (text, told) in [
        ("", "EOF"),
        ("[]", "expected an object"),
        (r#"{"sequence_batching": {}}"#, "sequence_batching: it is not honoured"),
        (r#"{"colour": "blue"}"#, "colour: there is no such field"),
        (
            r#"{"max_batch_size": "many"}"#,
            "max_batch_size: max_batch_size: expected a whole number",
        ),
        (r#"{"output": [{"name": "y", "label_filename": "l.txt"}]}"#, "no file 'l.txt'"),
    ] {
        let error = read(text).unwrap_err();
        assert!(error.contains(told), "{error}");
    }
}

/// An ensemble of `a` and version 3 of `b`.
const ENSEMBLE: &str = r#"platform: "ensemble"
    max_batch_size: 8
    input [ { name: "IN" data_type: TYPE_FP32 dims: [ 4 ] } ]
    output [ { name: "OUT" data_type: TYPE_FP32 dims: [ 4 ] } ]
    ensemble_scheduling { step [
        { model_name: "a" model_version: -1
          input_map { key: "x" value: "IN" } output_map { key: "y" value: "mid" } },
        { model_name: "b" model_version: 3
          input_map { key: "x" value: "mid" } output_map { key: "y" value: "OUT" } }
    ] }"#;

#[test]
fn an_ensemble_is_read() {
    let settings = read(ENSEMBLE).unwrap();
    assert!(settings.warnings.is_empty(), "{:?}", settings.warnings);
    let ensemble = settings.ensemble.unwrap();
    let named = |name: &str| Some(vec![name.to_owned()]);
    assert_eq!((ensemble.inputs, ensemble.outputs), (named("IN"), named("OUT")));
    let [a, b] = ensemble.steps.as_slice() else { panic!("there are two steps") };
    assert_eq!((a.model.as_str(), a.version.is_none()), ("a", true));
    let version = Version::new(3).map(VersionRef::Number);
    assert_eq!((b.model.as_str(), &b.version), ("b", &version));
    assert_eq!((a.inputs["x"].as_str(), b.inputs["x"].as_str()), ("IN", "mid"));
    assert_eq!(b.outputs.as_ref().unwrap()["y"], "OUT");
    let json = r#"{"platform": "ensemble", "ensembleScheduling": {"step": [{"modelName": "a",
        "modelVersion": "-1", "inputMap": {"someInput": "IN"}, "outputMap": {"y": "OUT"}}]}}"#;
    let none = |file: &str| Err(format!("there is no file '{file}'"));
    let settings = parse_json(json, (&ModelName::new("m").unwrap(), &none)).unwrap();
    let ensemble = settings.ensemble.unwrap();
    assert_eq!((&ensemble.inputs, &ensemble.outputs), (&None, &None));
    assert_eq!(ensemble.steps[0].inputs["someInput"], "IN");
}

#[test]
fn what_is_wrong_with_an_ensemble_is_named() {
    let step = "ensemble_scheduling { step { model_name: \"a\" } }";
    warned(&format!("{step} instance_group {{ count: 2 }}"), "instance_group");
    warned(&format!("{step} dynamic_batching {{ max_queue_delay_microseconds: 5 }}"), "its steps");
    refused("platform: \"ensemble\"", "has to have 'ensemble_scheduling'");
    refused(&format!("platform: \"onnxruntime_onnx\" {step}"), "that of an ensemble is 'ensemble'");
    for (inside, told) in [
        ("", "it has no 'step'"),
        ("step { }", "step 1: it has no 'model_name'"),
        ("step { model_name: \"a/b\" }", "step 1: model_name: a model name"),
        ("step { model_name: \"a\" model_version: 0 }", "-1 or a version, got 0"),
        ("step { model_name: \"a\" input_map { key: \"x\" } }", "input_map: it has no 'value'"),
        ("step { model_name: \"a\" stage: 1 }", "there is no field 'stage'"),
        ("stage { }", "there is no field 'stage'"),
    ] {
        refused(&format!("ensemble_scheduling {{ {inside} }}"), told);
    }
    let twice = "input_map { key: \"x\" value: \"a\" } ".repeat(2);
    let text = format!("ensemble_scheduling {{ step {{ model_name: \"a\" {twice} }} }}");
    refused(&text, "'x' is there twice");
}
