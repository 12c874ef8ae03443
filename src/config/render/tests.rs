use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::auth::Role;
use crate::config::{Layers, SETTINGS};
use crate::inference::ExecutionProvider;
use crate::lifecycle::EventKind;

fn read(path: &Path) -> Effective {
    let layers = Layers { file: Some(path.to_owned()), ..Layers::default() };
    layers.read().unwrap_or_else(|error| panic!("{error}"))
}

/// Writes each setting that is given as JSON, which is YAML too.
fn written(settings: &[(&str, Tree)]) -> String {
    let mut root = json!({});
    for (key, value) in settings {
        let (section, name) = key.split_once('.').unwrap();
        root[section][name] = value.clone();
    }
    // Escaped, since YAML does not admit every character as it is.
    let mut units = [0; 2];
    let mut text = String::new();
    for c in root.to_string().chars() {
        if c.is_ascii() && !c.is_control() {
            text.push(c);
            continue;
        }
        let units = c.encode_utf16(&mut units).iter();
        text.extend(units.map(|unit| format!("\\u{unit:04x}")));
    }
    text
}

/// What a file with these settings is printed as is read back as the same.
fn check_round_trip(settings: &[(&str, Tree)]) {
    let home = TempDir::new().unwrap();
    let (first, second) = (home.path().join("first.yaml"), home.path().join("second.yaml"));
    fs::write(&first, written(settings)).unwrap();
    let original = read(&first);
    fs::write(&second, original.yaml()).unwrap();
    let back = read(&second);
    assert_eq!(back.config(), original.config(), "{}", original.yaml());
    let schema = jsonschema::draft202012::new(&crate::config::schema()).unwrap();
    let options = serde_saphyr::options! { strict_booleans: true };
    let tree: Tree = serde_saphyr::from_str_with_options(&original.yaml(), options).unwrap();
    let errors: Vec<_> = schema.iter_errors(&tree).map(|error| error.to_string()).collect();
    assert!(errors.is_empty(), "{errors:?} in {}", original.yaml());
}

#[test]
fn the_defaults_are_read_back() {
    check_round_trip(&[]);
}

#[test]
fn each_value_tells_where_it_comes_from() {
    let home = TempDir::new().unwrap();
    // A name that would end the comment, and with it hide or add settings.
    let file = home.path().join("a\nserver: {}.yaml");
    fs::write(&file, "server:\n  workers: 2\n").unwrap();
    let layers = Layers {
        file: Some(file),
        environment: vec![("ONWARD_MODELS_REQUIRED".into(), "a, b".into())],
        flags: vec![("telemetry.log_level".into(), "debug".into())],
    };
    let yaml = layers.read().unwrap().yaml();
    let line = |start: &str| {
        let found = yaml.lines().find(|line| line.trim_start().starts_with(start));
        found.unwrap_or_else(|| panic!("no {start} in\n{yaml}")).to_owned()
    };
    assert!(line("workers: 2 ").ends_with("/a\\nserver: {}.yaml:2"));
    assert!(line("required: [a, b] ").ends_with(" # ONWARD_MODELS_REQUIRED"));
    assert!(line("log_level: debug ").ends_with(" # --telemetry.log_level"));
    assert!(line("history: 4096 ").ends_with(" # default"));
    assert_eq!(yaml.lines().filter(|line| line.contains(" # ")).count(), SETTINGS.len());
}

fn path() -> impl Strategy<Value = String> {
    "[^\0]{1,40}"
}

fn duration(least: Duration) -> impl Strategy<Value = Tree> {
    let least = u64::try_from(least.as_nanos()).unwrap();
    let year = Duration::from_hours(24 * 365).as_nanos();
    let longest = u64::try_from(year).unwrap();
    let nanos = prop_oneof![least..=longest, (0..=3600_u64).prop_map(|s| s * 1_000_000_000)];
    let text = |nanos: u64| humantime::format_duration(Duration::from_nanos(nanos)).to_string();
    nanos.prop_map(move |nanos| json!(text(nanos.max(least))))
}

fn size() -> impl Strategy<Value = Tree> {
    let units = prop::sample::select(vec!["", "B", "kB", "KiB", "MB", "MiB", "GB", "GiB"]);
    (1..=1024_u32, units).prop_map(|(number, unit)| json!(format!("{number}{unit}")))
}

fn address() -> impl Strategy<Value = Tree> {
    let v4 = any::<u16>().prop_map(|port| json!(format!("127.0.0.1:{port}")));
    let v6 = any::<u16>().prop_map(|port| json!(format!("[::1]:{port}")));
    prop_oneof![v4, v6]
}

fn names() -> impl Strategy<Value = Tree> {
    let awkward =
        vec!["null", "~", "true", "1.50", "a,b", "a: b", "#", "- a", "[", "x #y", "'", "*a"];
    let name = prop_oneof![
        "[^./\\\\\\p{C}][^/\\\\\\p{C}]{0,30}",
        prop::sample::select(awkward).prop_map(str::to_owned)
    ];
    prop::collection::vec(name, 0..5).prop_map(|names| json!(names))
}

fn text() -> impl Strategy<Value = Tree> {
    let awkward = vec!["null", "~", "true", "1.50", "a: b", "x #y", "*a", "/realm/roles", " a "];
    prop::sample::select(awkward).prop_map(|text| json!(text))
}

fn urls() -> impl Strategy<Value = Tree> {
    prop::collection::vec("https?:/{2}[a-z]{1,9}(:[1-9][0-9]{0,3})?/[a-z,#?=&%20]{0,20}", 0..4)
        .prop_map(|urls| json!(urls))
}

fn some_of(all: &[&'static str]) -> impl Strategy<Value = Tree> + use<> {
    let some = prop::sample::subsequence(all.to_vec(), 0..=all.len());
    prop_oneof![Just(json!("auto")), some.prop_map(|some| json!(some))]
}

fn count(largest: u32) -> impl Strategy<Value = Tree> {
    (1..=largest).prop_map(|count| json!(count))
}

/// A value for the setting, of all that it may have.
fn value(key: &'static str) -> BoxedStrategy<Tree> {
    let setting = SETTINGS.iter().find(|setting| setting.key == key).unwrap();
    let least = setting.bounds.and_then(|(low, _)| crate::units::duration(low));
    let word = |word: &'static str| Just(json!(word));
    match (setting.placeholder, setting.default) {
        ("ADDRESS:PORT", _) => address().boxed(),
        ("FILE", default) => prop_oneof![word(default), path().prop_map(|p| json!(p))].boxed(),
        ("FOLDER", _) => path().prop_map(|path| json!(path)).boxed(),
        ("COUNT", "auto") => prop_oneof![word("auto"), count(256)].boxed(),
        ("COUNT", _) => count(100).boxed(),
        ("PERCENT", _) => (0..=100_u8).prop_map(|share| json!(format!("{share}%"))).boxed(),
        ("SIZE", _) => size().boxed(),
        ("DURATION", _) => duration(least.unwrap()).boxed(),
        ("BOOL", _) => any::<bool>().prop_map(|truth| json!(truth)).boxed(),
        ("NAMES", _) => names().boxed(),
        ("URLS", _) => urls().boxed(),
        ("URL", _) => {
            let url = "https?:/{2}[a-z]{1,9}(:[1-9][0-9]{0,3})?/[a-z]{0,20}";
            prop_oneof![word("none"), url.prop_map(|url| json!(url))].boxed()
        }
        ("PROTOCOL", _) => prop_oneof![word("grpc"), word("http/protobuf")].boxed(),
        ("RATIO", _) => (0..=1_000_000_u32).prop_map(|part| json!(f64::from(part) / 1e6)).boxed(),
        // Others are masked.
        ("HEADERS", _) => Just(json!([])).boxed(),
        ("TEXT", _) => prop_oneof![word("none"), text()].boxed(),
        ("CLAIM", _) => text().boxed(),
        ("ROLES", _) => {
            let some = prop::sample::subsequence(Role::ALL.map(Role::name).to_vec(), 0..=3);
            some.prop_map(|some| json!(some)).boxed()
        }
        ("KINDS", _) => some_of(&EventKind::ALL.map(EventKind::name)).boxed(),
        ("PROVIDERS", _) => some_of(&ExecutionProvider::ALL.map(ExecutionProvider::name)).boxed(),
        ("MODE", _) => {
            prop_oneof![word("none"), word("explicit"), word("poll"), word("watch")].boxed()
        }
        ("PROFILE", _) => prop_oneof![word("throughput"), word("latency")].boxed(),
        ("FORMAT", _) => prop_oneof![word("text"), word("json")].boxed(),
        ("FILTER", _) => {
            let filters =
                vec!["off", "warn", "info,onward::http=debug", "[request{id=7}]=trace", "5"];
            prop::sample::select(filters).prop_map(|filter| json!(filter)).boxed()
        }
        other => panic!("no values for {other:?}"),
    }
}

fn configuration() -> impl Strategy<Value = Vec<(&'static str, Tree)>> {
    let keys = SETTINGS.iter().map(|setting| setting.key);
    let values = keys.map(|key| prop::option::of(value(key).prop_map(move |value| (key, value))));
    values.collect::<Vec<_>>().prop_map(|given| whole(sound(given.into_iter().flatten().collect())))
}

/// What is said of callers needs all of it.
fn sound(mut given: Vec<(&'static str, Tree)>) -> Vec<(&'static str, Tree)> {
    if given.iter().any(|(key, _)| key.starts_with("auth.")) {
        for key in ["auth.jwks_file", "auth.jwt_issuer", "auth.jwt_audience"] {
            if !given.iter().any(|(name, value)| *name == key && *value != "none") {
                given.retain(|(name, _)| *name != key);
                given.push((key, json!("x")));
            }
        }
    }
    given
}

/// Without TLS where there is but half of it, which is a mistake.
fn whole(given: Vec<(&'static str, Tree)>) -> Vec<(&'static str, Tree)> {
    let has = |key| given.iter().any(|(other, value)| *other == key && value != "none");
    let is_whole = has("server.tls_certificate") && has("server.tls_key");
    let fits = |key: &str| is_whole || !key.starts_with("server.tls_");
    given.into_iter().filter(|(key, _)| fits(key)).collect()
}

proptest! {
    #[test]
    fn whatever_is_printed_is_read_back_as_the_same(settings in configuration()) {
        check_round_trip(&settings);
    }

    #[test]
    fn no_text_makes_the_reader_panic(text in "(server|models|:|\n|  |- |\\[|\\{|[^\0]|\0){0,60}") {
        let home = TempDir::new().unwrap();
        let file = home.path().join("any.yaml");
        fs::write(&file, &text).unwrap();
        let layers = Layers { file: Some(file), ..Layers::default() };
        if let Ok(read) = layers.read() {
            prop_assert!(!read.yaml().is_empty());
        }
    }
}

#[test]
fn paths_that_look_like_something_else_are_read_back() {
    for path in [
        "./none",
        "none.yaml",
        "NULL",
        "~",
        "1.50",
        "off",
        "a: b",
        "x # y",
        " ",
        "\u{a0}",
        "é\u{85}",
    ] {
        check_round_trip(&[("server.port_file", json!(path))]);
    }
    let none = [("server.port_file", json!("none")), ("models.repository", json!("none"))];
    check_round_trip(&none);
    let home = TempDir::new().unwrap();
    let file = home.path().join("onward.yaml");
    fs::write(&file, written(&none)).unwrap();
    let config = read(&file).config().clone();
    assert_eq!((config.server.port_file, config.models.repository), (None, PathBuf::from("none")));
}
