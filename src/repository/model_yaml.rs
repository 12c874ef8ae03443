//! `model.yaml`: what an operator says of a model, beside its versions.

use std::collections::BTreeMap;
use std::fmt;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{self, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Deserializer};

use super::ensemble_yaml::EnsembleYaml;
use super::labels::{ReadLabels, check_name};
use crate::inference::ExecutionProvider;
use crate::model::{
    BatchingMode, BatchingSettings, LONGEST_DELAY, Labels, MOST_INSTANCES, ModelSettings, PadValue,
    Version, VersionPolicy, WarmUp,
};
use crate::units;

/// The file's content. Every key is optional; an unknown one is an error.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ModelYaml {
    version_policy: Option<PolicyYaml>,
    instances: Option<NonZeroUsize>,
    execution_providers: Vec<ProviderYaml>,
    queue_capacity: Option<NonZeroUsize>,
    warm_up: Option<WarmUpYaml>,
    lazy: bool,
    pin: bool,
    idle_ttl: Option<String>,
    max_batch_size: Option<u32>,
    batching: Option<BatchingYaml>,
    default_priority: Option<NonZeroU32>,
    response_cache: bool,
    labels: BTreeMap<String, LabelsYaml>,
    ensemble: Option<EnsembleYaml>,
}

/// How requests share runs, or whether they do.
#[derive(Debug)]
enum BatchingYaml {
    Switch(bool),
    How(HowYaml),
}

/// Read by hand, as names of inputs such as `y` would be taken for truth values otherwise.
impl<'de> Deserialize<'de> for BatchingYaml {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BatchingVisitor)
    }
}

struct BatchingVisitor;

impl<'de> Visitor<'de> for BatchingVisitor {
    type Value = BatchingYaml;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("on, off, or {max_size: 16, max_delay: 2ms, pad: {INPUT: 0}}")
    }

    fn visit_bool<E: de::Error>(self, on: bool) -> Result<BatchingYaml, E> {
        Ok(BatchingYaml::Switch(on))
    }

    fn visit_str<E: de::Error>(self, word: &str) -> Result<BatchingYaml, E> {
        match word {
            "on" => Ok(BatchingYaml::Switch(true)),
            "off" => Ok(BatchingYaml::Switch(false)),
            _ => Err(E::invalid_value(Unexpected::Str(word), &self)),
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<BatchingYaml, A::Error> {
        HowYaml::deserialize(MapAccessDeserializer::new(map)).map(BatchingYaml::How)
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct HowYaml {
    max_size: Option<NonZeroUsize>,
    max_delay: Option<String>,
    #[serde(default)]
    pad: BTreeMap<String, f64>,
}

#[derive(Debug, Deserialize)]
#[serde(
    untagged,
    expecting = "labels, each a text (in quotes where YAML takes it for something else), or the name of a file of them beside this one"
)]
enum LabelsYaml {
    File(String),
    Inline(Vec<LabelYaml>),
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum LabelYaml {
    Text(String),
    Number(i64),
}

/// The name of an execution provider.
#[derive(Debug, Deserialize)]
#[serde(try_from = "String")]
struct ProviderYaml(ExecutionProvider);

impl TryFrom<String> for ProviderYaml {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        let names = || ExecutionProvider::ALL.map(ExecutionProvider::name).join(", ");
        let known = ExecutionProvider::from_name(&name).map(Self);
        known.ok_or_else(|| format!("there is no '{name}', expected some of {}", names()))
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "snake_case")]
enum PolicyYaml {
    Latest(NonZeroUsize),
    Specific(Vec<VersionYaml>),
    #[serde(untagged)]
    Named(PolicyName),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum PolicyName {
    All,
}

/// A version as a number or, as the protocol writes it, as a string.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum VersionYaml {
    Number(u64),
    Text(String),
}

#[derive(Debug, Deserialize)]
#[serde(untagged, expecting = "generated, off, or {batch_sizes: [1, 8], budget: 10s}")]
enum WarmUpYaml {
    /// YAML takes some words for truth values.
    Switch(bool),
    Word(WarmUpWord),
    Batches(BatchesYaml),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum WarmUpWord {
    Generated,
    Off,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct BatchesYaml {
    batch_sizes: Vec<NonZeroUsize>,
    budget: Option<String>,
}

/// Reads the file's text, and the files of labels that it names; the error tells the line.
pub(super) fn parse(text: &str, read_labels: ReadLabels<'_>) -> Result<ModelSettings, String> {
    let empty = text.lines().all(|line| line.trim().is_empty() || line.trim().starts_with('#'));
    let yaml: ModelYaml = if empty {
        ModelYaml::default()
    } else {
        let options = serde_saphyr::options! { with_snippet: false };
        serde_saphyr::from_str_with_options(text, options).map_err(|error| told(&error, text))?
    };
    has_no_other_runner(&yaml)?;
    let (warm_up, warm_up_batches, warm_up_budget) = warm_up(yaml.warm_up)?;
    let version_policy = yaml.version_policy.map(policy).transpose()?.unwrap_or_default();
    let idle_ttl = yaml.idle_ttl.map(|text| duration("idle_ttl", &text)).transpose()?;
    let labels = yaml.labels.into_iter().map(|(output, given)| {
        let labels = labels(given, read_labels);
        let labels = labels.map_err(|problem| format!("labels.{output}: {problem}"))?;
        Ok((output, labels))
    });
    let labels = labels.collect::<Result<_, String>>()?;
    let ensemble = yaml.ensemble.map(EnsembleYaml::read).transpose()?;
    let batching = yaml.batching.map(batching).transpose()?.unwrap_or_default();
    let ModelYaml { instances, queue_capacity, lazy, pin, max_batch_size, .. } = yaml;
    let default_priority = yaml.default_priority;
    if instances.is_some_and(|count| count.get() > MOST_INSTANCES) {
        return Err(format!("instances: expected {MOST_INSTANCES} at most"));
    }
    let providers = yaml.execution_providers.into_iter().map(|ProviderYaml(provider)| provider);
    Ok(ModelSettings {
        version_policy,
        instances,
        execution_providers: providers.collect(),
        queue_capacity,
        warm_up,
        warm_up_batches,
        warm_up_budget,
        lazy,
        pin,
        idle_ttl,
        declared: None,
        ensemble,
        max_batch_size,
        batching,
        default_priority,
        response_cache: yaml.response_cache,
        labels,
        warnings: Vec::new(),
    })
}

/// An ensemble has nothing that runs it but its steps.
fn has_no_other_runner(yaml: &ModelYaml) -> Result<(), String> {
    let of_steps = [
        ("instances", yaml.instances.is_some()),
        ("execution_providers", !yaml.execution_providers.is_empty()),
        ("queue_capacity", yaml.queue_capacity.is_some()),
        ("batching", yaml.batching.is_some()),
    ];
    let given = of_steps.into_iter().find(|(_, is_given)| *is_given);
    match given.filter(|_| yaml.ensemble.is_some()) {
        Some((key, _)) => Err(format!("{key}: an ensemble has none of its own, its steps have")),
        None => Ok(()),
    }
}

/// What is asked, the batches too, and how long that may take.
type WarmUpSettings = (WarmUp, Vec<NonZeroUsize>, Option<Duration>);

fn warm_up(yaml: Option<WarmUpYaml>) -> Result<WarmUpSettings, String> {
    let budget = |text: String| duration("warm_up.budget", &text);
    Ok(match yaml {
        None | Some(WarmUpYaml::Switch(true) | WarmUpYaml::Word(WarmUpWord::Generated)) => {
            (WarmUp::Generated, Vec::new(), None)
        }
        Some(WarmUpYaml::Switch(false) | WarmUpYaml::Word(WarmUpWord::Off)) => {
            (WarmUp::Off, Vec::new(), None)
        }
        Some(WarmUpYaml::Batches(batches)) => {
            (WarmUp::Generated, batches.batch_sizes, batches.budget.map(budget).transpose()?)
        }
    })
}

/// What is wrong in one line, with its place: the line, and the key in it.
fn told(error: &serde_saphyr::Error, text: &str) -> String {
    let whole = error.to_string();
    let problem = whole.split(" at line ").next().unwrap_or(&whole).replace('\n', " ");
    let Some(line) = error.location().map(|place| place.line()).filter(|line| *line > 0) else {
        return problem;
    };
    let index = usize::try_from(line - 1).unwrap_or(usize::MAX);
    let key = text.lines().nth(index).and_then(|line| line.split_once(':'));
    let key = key.map(|(key, _)| format!("{}: ", key.trim())).unwrap_or_default();
    format!("line {line}: {key}{problem}")
}

fn labels(given: LabelsYaml, read: ReadLabels<'_>) -> Result<Labels, String> {
    match given {
        LabelsYaml::Inline(labels) => {
            Ok(Labels { file: None, texts: labels.into_iter().map(label).collect() })
        }
        LabelsYaml::File(name) => {
            check_name(&name)?;
            Ok(Labels { texts: read(&name)?, file: Some(name) })
        }
    }
}

fn label(yaml: LabelYaml) -> String {
    match yaml {
        LabelYaml::Text(text) => text,
        LabelYaml::Number(number) => number.to_string(),
    }
}

fn duration(key: &str, text: &str) -> Result<Duration, String> {
    let wrong = || format!("{key}: expected a duration such as 10s, got '{text}'");
    units::duration(text).ok_or_else(wrong)
}

fn batching(yaml: BatchingYaml) -> Result<BatchingSettings, String> {
    let HowYaml { max_size, max_delay, pad } = match yaml {
        BatchingYaml::How(how) => how,
        BatchingYaml::Switch(on) => {
            let mode = if on { BatchingMode::On } else { BatchingMode::Off };
            return Ok(BatchingSettings { mode, ..BatchingSettings::default() });
        }
    };
    let max_delay = max_delay.map(|text| duration("batching.max_delay", &text)).transpose()?;
    let max_delay = max_delay.unwrap_or_default();
    if max_delay > LONGEST_DELAY {
        return Err("batching.max_delay: a minute at most".to_owned());
    }
    let pad = pad.into_iter().map(|(input, value)| (input, PadValue(value))).collect();
    Ok(BatchingSettings { mode: BatchingMode::Auto, max_size, max_delay, pad })
}

fn policy(yaml: PolicyYaml) -> Result<VersionPolicy, String> {
    match yaml {
        PolicyYaml::Latest(count) => Ok(VersionPolicy::Latest(count)),
        PolicyYaml::Named(PolicyName::All) => Ok(VersionPolicy::All),
        PolicyYaml::Specific(versions) if versions.is_empty() => {
            Err("version_policy.specific names no version".to_owned())
        }
        PolicyYaml::Specific(versions) => {
            versions.into_iter().map(version).collect::<Result<_, _>>().map(VersionPolicy::Specific)
        }
    }
}

fn version(yaml: VersionYaml) -> Result<Version, String> {
    match yaml {
        VersionYaml::Number(number) => {
            Version::new(number).ok_or_else(|| "a version is 1 or more".to_owned())
        }
        VersionYaml::Text(text) => text.parse().map_err(|error| format!("{error}")),
    }
}

#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing {
    //! `model.yaml`, fuzzed.

    use super::super::fuzzing::labels;
    use super::{MOST_INSTANCES, parse};

    /// A text: what is wrong with it is told in one line.
    pub fn model_yaml(text: &[u8]) {
        let Ok(text) = str::from_utf8(text) else { return };
        match parse(text, &labels) {
            Ok(settings) => {
                assert!(settings.instances.is_none_or(|count| count.get() <= MOST_INSTANCES));
            }
            Err(problem) => assert!(!problem.is_empty() && !problem.contains('\n'), "{problem:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::VersionRef;

    fn parse(text: &str) -> Result<ModelSettings, String> {
        super::parse(text, &|name| match name {
            "labels.txt" => Ok(vec!["cat".to_owned(), "dog".to_owned()]),
            other => Err(format!("there is no file '{other}'")),
        })
    }

    #[test]
    fn a_mistake_is_one_line_with_its_place() {
        for (text, place) in [
            ("instances: 2\nnonsense: 1\n", "line 2: nonsense: "),
            ("pin: true\nlazy: [\n", "line "),
            ("instances: many\n", "line 1: instances: "),
        ] {
            let problem = parse(text).unwrap_err();
            assert!(problem.starts_with(place) && !problem.contains('\n'), "{problem}");
            assert!(!problem.contains("-->") && !problem.contains(" | "), "{problem}");
        }
    }

    #[test]
    fn labels_are_given_or_read() {
        let text = "max_batch_size: 8\nlabels: {x: labels.txt, y: [7, 'yes', '']}";
        let settings = parse(text).unwrap();
        assert_eq!(settings.max_batch_size, Some(8));
        assert_eq!(settings.labels["x"].texts, ["cat", "dog"]);
        assert_eq!(settings.labels["y"].texts, ["7", "yes", ""]);
    }

    #[test]
    fn every_key_is_read() {
        let text = "version_policy:\n  specific: [\"1\", 3]\ninstances: 2\nqueue_capacity: 7\n\
                    warm_up: off\n";
        let settings = parse(text).unwrap();
        let versions = [1, 3].map(|number| Version::new(number).unwrap()).to_vec();
        assert_eq!(settings.version_policy, VersionPolicy::Specific(versions));
        assert_eq!(settings.instances, NonZeroUsize::new(2));
        assert_eq!(settings.queue_capacity, NonZeroUsize::new(7));
        assert_eq!(settings.warm_up, WarmUp::Off);
        let policy = |text| parse(text).unwrap().version_policy;
        assert_eq!(policy("version_policy: all"), VersionPolicy::All);
        let two = NonZeroUsize::new(2).unwrap();
        assert_eq!(policy("version_policy: {latest: 2}"), VersionPolicy::Latest(two));
        assert_eq!(parse("").unwrap(), ModelSettings::default());
        assert_eq!(parse("# nothing\n").unwrap(), ModelSettings::default());
    }

    #[test]
    fn batching_is_switched_or_described() {
        let batching = |text| parse(text).unwrap().batching;
        assert_eq!(batching("pin: true"), BatchingSettings::default());
        assert_eq!(batching("batching: off").mode, BatchingMode::Off);
        assert_eq!(batching("batching: 'on'").mode, BatchingMode::On);
        let text = "batching: {max_size: 16, max_delay: 2ms, pad: {ids: 0}}\ndefault_priority: 3";
        let expected = BatchingSettings {
            mode: BatchingMode::Auto,
            max_size: NonZeroUsize::new(16),
            max_delay: Duration::from_millis(2),
            pad: BTreeMap::from([("ids".to_owned(), PadValue(0.0))]),
        };
        assert_eq!(batching(text), expected);
        assert_eq!(parse(text).unwrap().default_priority, NonZeroU32::new(3));
    }

    #[test]
    fn an_ensemble_is_read_with_names_that_look_like_truth_values() {
        let text = "ensemble:\n  inputs: [y]\n  steps:\n    - model: a\n      version: 2\n      \
                    inputs: {n: y}\n    - {model: b, version: stable, outputs: {y: on}}\n";
        let ensemble = parse(text).unwrap().ensemble.unwrap();
        assert_eq!((ensemble.inputs, ensemble.outputs), (Some(vec!["y".to_owned()]), None));
        let [a, b] = ensemble.steps.as_slice() else { panic!("there are two steps") };
        assert_eq!((a.inputs["n"].as_str(), a.outputs.is_none()), ("y", true));
        assert_eq!(b.outputs.as_ref().unwrap()["y"], "on");
        assert!(matches!(a.version, Some(VersionRef::Number(_))));
        assert!(matches!(b.version, Some(VersionRef::Alias(_))));
    }

    #[test]
    fn mistakes_are_named() {
        let mistakes = [
            ("instanzes: 2", "instanzes"),
            ("execution_providers: [gpu]", "'gpu', expected some of cpu, cuda"),
            ("execution_providers: cuda", "execution_providers"),
            ("instances: 0", "instances"),
            ("instances: 257", "256 at most"),
            ("version_policy: {specific: []}", "names no version"),
            ("version_policy: {specific: [0]}", "1 or more"),
            ("version_policy: {specific: [one]}", "one"),
            ("instances: [", "line 1"),
            ("labels: {x: none.txt}", "labels.x: there is no file 'none.txt'"),
            ("labels: {x: ../labels.txt}", "labels.x: '../labels.txt' is no name"),
            ("max_batch_size: -1", "max_batch_size"),
            ("labels: {x: [yes]}", "in quotes"),
            ("batching: often", "on, off, or {max_size"),
            ("batching: {max_delay: 2h}", "batching.max_delay: a minute at most"),
            ("batching: {max_delay: soon}", "batching.max_delay: expected a duration"),
            ("ensemble: {steps: []}", "ensemble.steps: expected one at least"),
            ("ensemble: {steps: [{model: a/b}]}", "ensemble.steps: step 1: model: a model name"),
            ("ensemble: {steps: [{model: a, version: 0}]}", "step 1: version: a version is 1"),
            ("queue_capacity: 1\nensemble: {steps: [{model: a}]}", "queue_capacity: an ensemble"),
        ];
        for (text, named) in mistakes {
            let error = parse(text).unwrap_err();
            assert!(error.contains(named), "{text:?} gave: {error}");
        }
    }

    /// The file that editors check a `model.yaml` by.
    const SCHEMA: &str = include_str!("../../docs/model.schema.json");

    #[test]
    fn the_schema_has_the_keys_of_the_parser() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let mut keys: Vec<&str> =
            schema["properties"].as_object().unwrap().keys().map(String::as_str).collect();
        // The error for an unknown key names all that there are.
        let error = parse("unheard_of: 1\n").unwrap_err();
        let line = error.lines().next().unwrap();
        let (_, named) = line.split_once("expected one of").expect("it names them");
        let mut known: Vec<&str> = named.split('`').skip(1).step_by(2).collect();
        if known.is_empty() {
            known = named.split([',', ' ']).filter(|key| !key.is_empty()).collect();
        }
        keys.sort_unstable();
        known.sort_unstable();
        assert_eq!(keys, known, "{error}");
    }

    /// What both have to judge alike.
    const JUDGED: &[&str] = &[
        "",
        "version_policy: all",
        "version_policy: some",
        "version_policy: {latest: 2}",
        "version_policy: {latest: 0}",
        "version_policy: {specific: [1, '3']}",
        "version_policy: {specific: []}",
        "version_policy: {specific: [0]}",
        "version_policy: {specific: ['01']}",
        "instances: 257",
        "instances: many",
        "execution_providers: [cuda, cpu]",
        "execution_providers: []",
        "execution_providers: [gpu]",
        "execution_providers: cuda",
        "queue_capacity: 0",
        "warm_up: generated",
        "warm_up: off",
        "warm_up: sometimes",
        "warm_up: {batch_sizes: [1, 8], budget: 10s}",
        "warm_up: {batch_sizes: [0]}",
        "warm_up: {budget: 10s}",
        "lazy: true\npin: false\nidle_ttl: 10m\ndefault_priority: 2\nresponse_cache: true",
        "lazy: perhaps",
        "labels: {x: labels.txt, y: [yes, maybe]}",
        "labels: {x: 1}",
        "labels: {x: [0, 1]}",
        "labels: {x: [0.5]}",
        "labels: {x: [yes, no]}",
        "labels: [cat]",
        "batching: off",
        "batching: auto",
        "batching: {}",
        "batching: {max_size: 16, max_delay: 2ms, pad: {x: 0, y: -0.5}}",
        "batching: {max_size: 0}",
        "batching: {max_delay: 2}",
        "batching: {pad: {x: zero}}",
        "batching: {size: 4}",
        "default_priority: 0",
        "max_batch_size: 0",
        "max_batch_size: -1",
        "nonsense: 1",
        "ensemble: {steps: [{model: a}, {model: b, version: 2}]}",
        "ensemble: {inputs: [x], outputs: [z], steps: [{model: a, version: stable, inputs: {x: t}}]}",
        "ensemble: {steps: [{model: a, version: '3', outputs: {z: t}}]}",
        "ensemble: {steps: []}",
        "ensemble: {}",
        "ensemble: {steps: [{}]}",
        "ensemble: {steps: [{model: a, version: 0}]}",
        "ensemble: {steps: [{model: a, version: '01'}]}",
        "ensemble: {steps: [{model: a/b}]}",
        "ensemble: {steps: [{model: a, outputs: [z]}]}",
        "ensemble: {steps: [{model: a, name: z}]}",
        "ensemble: {inputs: x, steps: [{model: a}]}",
        "ensemble: {steps: [{model: a}]}\ninstances: 2",
        "ensemble: {steps: [{model: a}]}\nbatching: off",
        "ensemble: {steps: [{model: a}]}\nlazy: true",
    ];

    #[test]
    fn the_schema_judges_as_the_parser_does() {
        let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
        let validator = jsonschema::draft202012::new(&schema).unwrap();
        for text in JUDGED.iter().copied() {
            let value: serde_json::Value = if text.is_empty() {
                serde_json::Value::Null
            } else {
                serde_saphyr::from_str(text).unwrap()
            };
            assert_eq!(validator.is_valid(&value), parse(text).is_ok(), "{text}");
        }
    }
}
