//! Putting the layers together: file, environment, flags.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value as Tree;

use super::Config;
use super::settings::{SETTINGS, Setting};

/// The prefix of the environment variables that are read.
const PREFIX: &str = "ONWARD_";

/// The variable that names the configuration file; the flag is `--config`.
const CONFIG_VARIABLE: &str = "ONWARD_CONFIG";

/// What the configuration is made from.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file that the flag `--config` names.
    pub file: Option<PathBuf>,
    /// The environment; only names that begin with `ONWARD_` are read.
    pub environment: Vec<(OsString, OsString)>,
    /// Flags: a setting's key and its text.
    pub flags: Vec<(String, String)>,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mistake {
    /// Where: a key with its layer, a file.
    pub origin: String,
    /// What, and what was expected.
    pub problem: String,
}

impl fmt::Display for Mistake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.origin, self.problem)
    }
}

/// Everything that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError(pub Vec<Mistake>);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(mistakes) = self;
        let noun = if mistakes.len() == 1 { "mistake" } else { "mistakes" };
        write!(f, "{} {noun} in the configuration", mistakes.len())?;
        mistakes.iter().try_for_each(|mistake| write!(f, "\n  {mistake}"))
    }
}

impl std::error::Error for ConfigError {}

/// Texts by key, each with where it comes from; a later layer replaces an earlier one.
type Texts = BTreeMap<String, (String, String)>;

impl Config {
    /// Reads all layers.
    ///
    /// # Errors
    /// [`ConfigError`] with every mistake there is.
    pub fn read(layers: &Layers) -> Result<Self, ConfigError> {
        let (mut texts, mut mistakes) = (Texts::new(), Vec::new());
        let environment = environment(&layers.environment, &mut mistakes);
        let named = environment.iter().find(|(name, _)| name == CONFIG_VARIABLE);
        let file = layers.file.clone().or_else(|| named.map(|(_, path)| PathBuf::from(path)));
        if let Some(file) = file {
            add_file(&file, &mut texts, &mut mistakes);
        }
        add_environment(&environment, &mut texts, &mut mistakes);
        for (key, text) in &layers.flags {
            texts.insert(key.clone(), (text.clone(), format!("--{key}")));
        }
        let config = assign(&texts, &mut mistakes);
        mistakes.extend(config.contradictions());
        if mistakes.is_empty() { Ok(config) } else { Err(ConfigError(mistakes)) }
    }
}

fn assign(texts: &Texts, mistakes: &mut Vec<Mistake>) -> Config {
    let mut config = Config::default();
    for (key, (text, origin)) in texts {
        let result = match SETTINGS.iter().find(|setting| setting.key == key) {
            Some(setting) => (setting.assign)(&mut config, text)
                .map_err(|expected| format!("{expected}, got '{text}'")),
            None => Err(unknown(key)),
        };
        if let Err(problem) = result {
            mistakes.push(Mistake { origin: origin.clone(), problem });
        }
    }
    config
}

fn unknown(key: &str) -> String {
    match nearest(key, SETTINGS.iter().map(|setting| setting.key.to_owned())) {
        Some(near) => format!("unknown setting, did you mean {near}?"),
        None => "unknown setting".to_owned(),
    }
}

fn nearest(wrong: &str, known: impl Iterator<Item = String>) -> Option<String> {
    let scored = known.map(|key| (strsim::jaro_winkler(wrong, &key), key));
    let close = scored.filter(|(score, _)| *score > 0.8);
    close.max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, key)| key)
}

fn add_file(path: &Path, texts: &mut Texts, mistakes: &mut Vec<Mistake>) {
    let origin = path.display().to_string();
    let read = fs::read_to_string(path).map_err(|error| error.to_string());
    let parsed = read.and_then(|text| {
        if text.trim().is_empty() {
            return Ok(Tree::Null);
        }
        serde_saphyr::from_str::<Tree>(&text).map_err(|error| error.to_string())
    });
    match parsed {
        Ok(tree) => flatten("", &tree, &origin, texts),
        Err(problem) => mistakes.push(Mistake { origin, problem }),
    }
}

/// Turns nested maps into dotted keys, and lists into texts separated by commas.
fn flatten(key: &str, tree: &Tree, file: &str, texts: &mut Texts) {
    let text = match tree {
        Tree::Object(entries) => {
            let dot = if key.is_empty() { "" } else { "." };
            for (name, child) in entries {
                flatten(&format!("{key}{dot}{name}"), child, file, texts);
            }
            return;
        }
        Tree::Null => return,
        Tree::Array(items) => items.iter().map(scalar).collect::<Vec<_>>().join(","),
        other => scalar(other),
    };
    texts.insert(key.to_owned(), (text, format!("{key} in {file}")));
}

fn scalar(tree: &Tree) -> String {
    match tree {
        Tree::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn environment(
    variables: &[(OsString, OsString)],
    mistakes: &mut Vec<Mistake>,
) -> Vec<(String, String)> {
    let mut ours = Vec::new();
    for (name, value) in variables {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        match value.to_str() {
            Some(value) => ours.push((name.to_owned(), value.to_owned())),
            None => mistakes.push(Mistake {
                origin: name.to_owned(),
                problem: "its value is not valid UTF-8".to_owned(),
            }),
        }
    }
    ours
}

fn add_environment(variables: &[(String, String)], texts: &mut Texts, mistakes: &mut Vec<Mistake>) {
    for (name, value) in variables {
        if let Some(setting) = SETTINGS.iter().find(|setting| setting.variable() == *name) {
            texts.insert(setting.key.to_owned(), (value.clone(), name.clone()));
        } else if name != CONFIG_VARIABLE && !is_service_link(name) {
            let problem = match nearest(name, SETTINGS.iter().map(Setting::variable)) {
                Some(near) => format!("unknown variable, did you mean {near}?"),
                None => "unknown variable".to_owned(),
            };
            mistakes.push(Mistake { origin: name.clone(), problem });
        }
    }
}

/// Whether Kubernetes sets the variable for a Service called `onward` or `onward-...`, as in
/// `ONWARD_SERVICE_HOST` and `ONWARD_PORT_8000_TCP_ADDR`.
fn is_service_link(name: &str) -> bool {
    let service = name.contains("_SERVICE_HOST") || name.contains("_SERVICE_PORT");
    let (_, port) = name.split_once("_PORT").unwrap_or_default();
    let docker = name.ends_with("_PORT") || port.contains("_TCP") || port.contains("_UDP");
    service || docker
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn layers(
        file: &str,
        environment: &[(&str, &str)],
        flags: &[(&str, &str)],
    ) -> Result<Config, ConfigError> {
        let mut yaml = tempfile::NamedTempFile::new().unwrap();
        yaml.write_all(file.as_bytes()).unwrap();
        let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        Config::read(&Layers {
            file: Some(yaml.path().to_owned()),
            environment: environment
                .iter()
                .map(|(k, v)| (OsString::from(k), OsString::from(v)))
                .collect(),
            flags: flags.iter().map(owned).collect(),
        })
    }

    #[test]
    fn flags_beat_the_environment_and_the_environment_beats_the_file() {
        let file = "server: {listen: '127.0.0.1:1', workers: 3}\nmodels: {required: [a, b]}\n\
                    inference:\n  queue_capacity: 5\n";
        let environment =
            [("ONWARD_SERVER_LISTEN", "127.0.0.1:2"), ("ONWARD_INFERENCE_QUEUE_CAPACITY", "6")];
        let config = layers(file, &environment, &[("server.listen", "127.0.0.1:3")]).unwrap();
        assert_eq!(config.server.listen.port(), 3);
        assert_eq!(config.server.workers.unwrap().get(), 3);
        assert_eq!(config.inference.queue_capacity.get(), 6);
        assert_eq!(config.models.required.len(), 2);
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let file = "server: {lisen: x}\nlifecycle: {shutdown_timeout: 30}\n";
        let environment = [
            ("ONWARD_MODELS_REPOSITRY", "x"),
            ("ONWARD_SERVICE_HOST", "10.0.0.1"),
            ("ONWARD_PORT_8000_TCP_ADDR", "10.0.0.1"),
            ("PATH", "x"),
        ];
        let error = layers(file, &environment, &[("server.max_body_size", "big")]).unwrap_err();
        let text = error.to_string();
        assert_eq!(error.0.len(), 4, "{text}");
        assert!(text.contains("did you mean server.listen?"), "{text}");
        assert!(text.contains("did you mean ONWARD_MODELS_REPOSITORY?"), "{text}");
        assert!(
            text.contains("expected a duration with its unit, such as 30s or 500ms, got '30'"),
            "{text}"
        );
        assert!(text.contains("--server.max_body_size: expected a size"), "{text}");
    }

    #[test]
    fn a_broken_file_is_an_error_with_its_line() {
        let error = layers("server: {listen: 'x'\nmodels", &[], &[]).unwrap_err().to_string();
        assert!(error.contains("line"), "{error}");
        let missing = Layers { file: Some(PathBuf::from("/nowhere.yaml")), ..Layers::default() };
        assert!(Config::read(&missing).unwrap_err().to_string().contains("/nowhere.yaml"));
    }

    #[test]
    fn a_reachable_address_needs_a_word() {
        let reachable = ("server.listen", "0.0.0.0:8000");
        let error = layers("", &[], &[reachable]).unwrap_err().to_string();
        assert!(error.contains("allow_unauthenticated_management"), "{error}");
        let allowed = ("server.allow_unauthenticated_management", "true");
        layers("", &[], &[reachable, allowed]).unwrap();
        layers("", &[], &[("server.listen", "[::1]:8000")]).unwrap();
    }

    #[test]
    fn the_documented_defaults_are_the_defaults() {
        for setting in SETTINGS {
            let (_, default) = setting.help.rsplit_once('[').unwrap();
            let default = default.trim_end_matches(']').split(':').next().unwrap();
            let text = match default {
                "none" => continue,
                "127.0.0.1" => "127.0.0.1:8000",
                other => other,
            };
            let mut config = Config::default();
            (setting.assign)(&mut config, text).unwrap();
            assert_eq!(config, Config::default(), "{}", setting.key);
        }
    }
}
