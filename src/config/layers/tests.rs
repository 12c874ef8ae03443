use std::io::Write as _;
use std::os::unix::ffi::OsStringExt as _;

use tempfile::NamedTempFile;

use super::*;

fn file(content: impl AsRef<[u8]>) -> NamedTempFile {
    let mut file = NamedTempFile::new().unwrap();
    file.write_all(content.as_ref()).unwrap();
    file
}

fn layers(file: &NamedTempFile, environment: &[(&str, &str)], flags: &[(&str, &str)]) -> Layers {
    let owned = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
    Layers {
        file: Some(file.path().to_owned()),
        environment: environment.iter().map(|(k, v)| (k.into(), v.into())).collect(),
        flags: flags.iter().map(owned).collect(),
    }
}

/// The mistakes in a file, without its name.
fn mistakes(content: impl AsRef<[u8]>) -> Vec<String> {
    let file = file(content);
    let path = file.path().display().to_string();
    let ConfigError(mistakes) = layers(&file, &[], &[]).read().unwrap_err();
    mistakes.iter().map(|mistake| mistake.to_string().replace(&path, "FILE")).collect()
}

#[track_caller]
fn check(content: impl AsRef<[u8]>, expected: &str) {
    assert_eq!(mistakes(content), [expected]);
}

#[test]
fn flags_beat_the_environment_and_the_environment_beats_the_file() {
    let file = file(
        "server: {listen: '127.0.0.1:1', workers: 3}\nmodels: {required: [a, b]}\n\
         inference:\n  queue_capacity: 5\n",
    );
    let environment =
        [("ONWARD_SERVER_LISTEN", "127.0.0.1:2"), ("ONWARD_INFERENCE_QUEUE_CAPACITY", "6")];
    let read = layers(&file, &environment, &[("server.listen", "127.0.0.1:3")]).read().unwrap();
    let config = read.config();
    assert_eq!(config.server.listen.port(), 3);
    assert_eq!(config.server.workers.given().unwrap().get(), 3);
    assert_eq!(config.inference.queue_capacity.get(), 6);
    assert_eq!(config.models.required.len(), 2);
    let origin = |key: &str| {
        let row = read.rows().into_iter().find(|row| row.setting.key == key).unwrap();
        row.origin.to_string().replace(&file.path().display().to_string(), "FILE")
    };
    assert_eq!(origin("server.listen"), "--server.listen");
    assert_eq!(origin("server.workers"), "FILE:1");
    assert_eq!(origin("models.required"), "FILE:2");
    assert_eq!(origin("inference.queue_capacity"), "ONWARD_INFERENCE_QUEUE_CAPACITY");
    assert_eq!(origin("events.history"), "default");
}

#[test]
fn the_file_is_named_by_a_flag_or_else_by_a_variable() {
    let (flagged, named) = (file("events: {history: 1}"), file("events: {history: 2}"));
    let path = named.path().to_str().unwrap();
    let mut layers = layers(&flagged, &[("ONWARD_CONFIG", path)], &[]);
    assert_eq!(layers.read().unwrap().config().events.history.get(), 1);
    layers.file = None;
    assert_eq!(layers.read().unwrap().config().events.history.get(), 2);
}

#[test]
fn every_mistake_is_reported_at_once_in_the_order_of_the_layers() {
    let file = file("lifecycle: {shutdown_timeout: 30}\nserver: {lisen: x}\n");
    let environment = [
        ("ONWARD_MODELS_REPOSITRY", "x"),
        ("ONWARD_SERVICE_HOST", "10.0.0.1"),
        ("ONWARD_PORT", "tcp://10.0.0.1:80"),
        ("ONWARD_PORT_8000_TCP_ADDR", "10.0.0.1"),
        ("ONWARD_SERVER_PORT", "8000"),
        ("PATH", "x"),
    ];
    // What a flag replaces is held to the rules all the same.
    let flags = [("server.max_body_size", "big"), ("lifecycle.shutdown_timeout", "1s")];
    let text = layers(&file, &environment, &flags).read().unwrap_err().to_string();
    let path = file.path().display();
    let expected = format!(
        "5 mistakes in the configuration\n  \
         {path}:1: lifecycle.shutdown_timeout: expected a duration with its unit, such as 30s or \
         500ms, from 0s to 365days, got '30'\n  \
         {path}:2: server.lisen: unknown setting, did you mean server.listen?\n  \
         ONWARD_MODELS_REPOSITRY: unknown variable, did you mean ONWARD_MODELS_REPOSITORY?\n  \
         ONWARD_SERVER_PORT: unknown variable, did you mean ONWARD_SERVER_PORT_FILE?\n  \
         --server.max_body_size: expected a size, such as 64MiB, from 1B to 1024GiB, got 'big'"
    );
    assert_eq!(text, expected);
}

#[test]
fn what_nests_wrongly_is_told_at_every_level() {
    check("[server]\n", "FILE: has to be made of sections, such as server");
    check("server\n", "FILE: has to be made of sections, such as server");
    check("\nserver: 5\n", "FILE:2: server: is a section, with settings such as listen in it");
    check("server: [a]\n", "FILE:1: server: is a section, with settings such as listen in it");
    check(
        "server:\n  listen: {host: a}\n",
        "FILE:2: server.listen: is a setting and takes a value, not a section",
    );
    check(
        "server:\n  listen: [a]\n",
        "FILE:2: server.listen: expected an address and a port, such as 127.0.0.1:8000, got a list",
    );
    check(
        "models:\n  required: [[a]]\n",
        "FILE:2: models.required: an item of the list is not a single value",
    );
    check("models:\n  required: [~]\n", "FILE:2: models.required: an item of the list is empty");
    check(
        "models:\n  required:\n",
        "FILE:2: models.required: has no value; leave the line out for the default",
    );
    check("? [server]\n: 1\n", "FILE:1: a key has to be a name");
}

#[test]
fn names_that_are_not_known_are_told_with_those_that_are() {
    check("sever: {listen: x}\n", "FILE:1: sever: unknown section, did you mean server?");
    check("colors: {red: 1}\n", "FILE:1: colors: unknown section");
    check("colors:\n", "FILE:1: colors: unknown section");
    check("\nlisten: x\n", "FILE:2: listen: unknown section, did you mean server.listen?");
    check(
        "server.listen: x\n",
        "FILE:1: server.listen: has to be written as listen in the section server",
    );
    check(
        "models: {listen: x}\n",
        "FILE:1: models.listen: unknown setting, did you mean server.listen?",
    );
    check("server:\n  color:\n", "FILE:2: server.color: unknown setting");
}

#[test]
fn what_comes_twice_is_told_with_both_lines() {
    check(
        "server:\n  workers: 1\n  workers: 2\n",
        "FILE:3: server.workers: is there twice, first in line 2",
    );
    check(
        "server: {workers: 1}\n\nserver: {}\n",
        "FILE:3: server: is there twice, first in line 1",
    );
}

#[test]
fn a_file_that_cannot_be_read_is_one_mistake() {
    let [broken] = &mistakes("server: {listen: 'x'\nmodels")[..] else { panic!() };
    assert!(broken.starts_with("FILE:2: "), "{broken}");
    check(b"a: 1\n\xff", "FILE:2: is not valid UTF-8 here");
    check(vec![b' '; (1 << 20) + 1], "FILE: is larger than 1048576 bytes");
    let read = |path: &str| {
        let layers = Layers { file: Some(PathBuf::from(path)), ..Layers::default() };
        layers.read().unwrap_err().to_string()
    };
    assert!(read("/nowhere.yaml").contains("/nowhere.yaml: cannot be read: No such file"));
    assert!(read("/").contains("/: cannot be read: "));
    assert!(read("/dev/zero").contains("/dev/zero: is larger than"));
    assert!(read("").contains(": cannot be read: "));
}

#[test]
fn a_value_that_is_out_of_bounds_is_a_mistake() {
    check(
        "events: {history: 1000000000000}\n",
        "FILE:1: events.history: expected a whole number from 1 to 1048576, got '1000000000000'",
    );
    check(
        "lifecycle:\n  health_interval: 0s\n",
        "FILE:2: lifecycle.health_interval: expected a duration with its unit, such as 30s or 500ms, \
         from 1ms to 365days, got '0s'",
    );
}

#[test]
fn a_reachable_address_needs_a_word() {
    let empty = file("");
    let read = |flags: &[(&str, &str)]| layers(&empty, &[], flags).read();
    let reachable = ("server.listen", "0.0.0.0:8000");
    let error = read(&[reachable]).unwrap_err().to_string();
    assert!(error.contains("--server.listen: 0.0.0.0:8000 can be reached by others"), "{error}");
    read(&[reachable, ("server.allow_unauthenticated_management", "true")]).unwrap();
    read(&[("server.listen", "[::1]:8000"), ("server.grpc_listen", "off")]).unwrap();
    let error = read(&[("server.grpc_listen", "0.0.0.0:1")]).unwrap_err().to_string();
    assert!(error.contains("--server.grpc_listen: 0.0.0.0:1 can be reached by others"), "{error}");
    let [told] = &mistakes("server:\n  listen: '0.0.0.0:1'\n")[..] else { panic!() };
    assert!(told.starts_with("FILE:2: server.listen: 0.0.0.0:1 can be reached"), "{told}");
}

#[test]
fn only_a_folder_is_watched() {
    let of = |mode: &str, repository: &str| {
        format!("models:\n  mode: {mode}\n  repository: {repository}\n")
    };
    for (mode, repository) in [("watch", "models"), ("watch", "./s3"), ("poll", "s3://bucket")] {
        layers(&file(of(mode, repository)), &[], &[]).read().unwrap();
    }
    for store in ["s3://bucket/models", "GS://bucket", "https://host/models"] {
        let [told] = &mistakes(of("watch", store))[..] else { panic!() };
        assert!(told.starts_with("FILE:2: models.mode: an object store gives no notice"), "{told}");
    }
}

#[test]
fn a_repository_is_a_folder_or_in_a_store_that_there_is() {
    let of = |repository: &str| format!("models:\n  repository: {repository}\n");
    for repository in ["./models", "https://host/models", "./a b://c"] {
        layers(&file(of(repository)), &[], &[]).read().unwrap();
    }
    for repository in ["ftp://nope/x", "file:///srv/models"] {
        let [told] = &mistakes(of(repository))[..] else { panic!("{repository}") };
        assert!(told.starts_with("FILE:2: models.repository: there is no kind of"), "{told}");
        assert!(told.contains("s3://, gs://, az://"), "{told}");
    }
}

#[test]
fn what_is_not_unicode_is_a_mistake_and_no_crash() {
    let bytes = |text: &[u8]| OsString::from_vec(text.to_vec());
    let environment = vec![
        (bytes(b"ONWARD_SERVER_LISTEN"), bytes(b"\xff")),
        (bytes(b"ONWARD_\xff"), bytes(b"x")),
        (bytes(b"OTHER_\xff"), bytes(b"\xff")),
    ];
    let layers = Layers { environment, ..Layers::default() };
    let ConfigError(mistakes) = layers.read().unwrap_err();
    let told: Vec<String> = mistakes.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "ONWARD_SERVER_LISTEN: its value is not valid UTF-8",
            "ONWARD_\u{fffd}: its name is not valid UTF-8"
        ]
    );
}

/// The table, in which one setting is a secret.
fn with_a_secret() -> &'static [Setting] {
    let secret = |setting: &Setting| Setting {
        secret: setting.key == "models.repository" || setting.key == "server.workers",
        ..*setting
    };
    Vec::leak(SETTINGS.iter().map(secret).collect())
}

#[test]
fn a_secret_is_read_and_never_shown() {
    let file = file("models:\n  repository: swordfish\n");
    let layers = layers(&file, &[], &[]);
    let read = layers.read_by(with_a_secret()).unwrap();
    assert_eq!(read.config().models.repository, PathBuf::from("swordfish"));
    assert!(read.yaml().contains("repository: \"***\""), "{}", read.yaml());
    assert!(!read.yaml().contains("swordfish") && !read.json().to_string().contains("swordfish"));
    let other = Layers { flags: vec![("models.repository".into(), "trout".into())], ..layers };
    let reloaded = read.reloaded(other.read_by(with_a_secret()).unwrap());
    assert_eq!(reloaded.ignored, ["models.repository"]);
    let told = format!("{:?}", reloaded.effective.rows());
    assert!(!told.contains("trout"), "{told}");
}

#[test]
fn a_secret_is_not_told_in_a_mistake_and_its_mask_is_one() {
    let file = file("models:\n  repository: '***'\nserver:\n  workers: swordfish\n");
    let error = layers(&file, &[], &[]).read_by(with_a_secret()).unwrap_err().to_string();
    assert!(error.contains(":2: models.repository: the secret is masked"), "{error}");
    assert!(error.contains(":4: server.workers: expected a whole number"), "{error}");
    assert!(!error.contains("swordfish"), "{error}");
}
