//! What is refused at the start, and the command that makes keys.

use std::fs;

use reqwest::Method;
use tempfile::TempDir;

use super::{Keys, ask};
use crate::support::onnx::add_constant;
use crate::support::process::{onward, run};
use crate::support::{Repository, Server};

/// The exit code and what is told of a configuration.
fn check(settings: &[(&str, &str)]) -> (i32, String) {
    let mut command = onward();
    command.args(["config", "--check"]);
    for (key, value) in settings {
        command.arg(format!("--{key}")).arg(value);
    }
    let (code, _, error) = run(&mut command);
    (code, error)
}

#[test]
fn a_reachable_server_needs_credentials() {
    let reachable = ("server.listen", "0.0.0.0:0");
    let keys = ("auth.keys_file", "keys.yaml");
    assert_eq!(check(&[reachable, keys]).0, 0);
    assert_eq!(check(&[reachable, keys, ("auth.anonymous_roles", "read,infer")]).0, 0);
    for settings in [
        &[reachable][..],
        &[reachable, keys, ("auth.anonymous_roles", "read,manage")],
        &[("server.grpc_listen", "[::]:0")],
    ] {
        let (code, error) = check(settings);
        assert_eq!(code, 78, "{settings:?}");
        assert!(error.contains("auth.keys_file"), "{error}");
    }
}

#[test]
fn what_guards_less_than_it_seems_is_a_mistake() {
    let jwks = ("auth.jwks_file", "jwks.json");
    let (issuer, audience) = (("auth.jwt_issuer", "i"), ("auth.jwt_audience", "a"));
    assert_eq!(check(&[jwks, issuer, audience]).0, 0);
    for (settings, told) in [
        (&[jwks][..], "auth.jwt_issuer and auth.jwt_audience"),
        (&[jwks, issuer], "auth.jwt_issuer and auth.jwt_audience"),
        (&[jwks, audience], "auth.jwt_issuer and auth.jwt_audience"),
        (&[issuer], "auth.jwks_file"),
        (&[audience, ("auth.keys_file", "k")], "auth.jwks_file"),
        (&[("auth.anonymous_roles", "read")], "everybody may do everything"),
        (&[("auth.anonymous_roles", "admin")], "some of read, infer, manage"),
    ] {
        let (code, error) = check(settings);
        assert_eq!(code, 78, "{settings:?}");
        assert!(error.contains(told), "{error}");
    }
}

#[test]
fn a_file_that_is_no_file_of_keys_ends_the_start() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("keys.yaml");
    let start = || {
        let mut command = onward();
        command.args(["serve", "--server.listen", "127.0.0.1:0", "--auth.keys_file"]).arg(&path);
        command.arg("--models.repository").arg(home.path());
        let (code, _, error) = run(&mut command);
        assert_eq!(code, 78, "{error}");
        error
    };
    assert!(start().contains("auth.keys_file: "));
    fs::write(&path, "keys: [{name: a, sha256: onw_secret, roles: [read]}]").unwrap();
    let error = start();
    assert!(
        error.contains("entry 1, a: sha256 has to be") && !error.contains("onw_secret"),
        "{error}"
    );
}

#[tokio::test]
async fn a_key_that_the_command_makes_lets_in() {
    let make = |arguments: &[&str]| run(onward().arg("key").args(arguments));
    let (code, output, _) =
        make(&["--name", "ci", "--role", "infer", "--role", "read", "--model", "own*"]);
    assert_eq!(code, 0);
    let (key, entry) = output.split_once('\n').unwrap();
    assert!(key.starts_with("onw_") && !entry.contains(&key[4..]), "{output}");
    let keys = Keys::new();
    fs::write(keys.path(), format!("keys:\n{entry}")).unwrap();
    let repository = Repository::of("own", &add_constant(1.0));
    let path = keys.path();
    let settings = [("auth.keys_file", path.to_str().unwrap())];
    let server = Server::start_with(repository, &settings).await;
    for (path, expected) in
        [("/v2/models/own", 200), ("/lifecycle/models/own", 200), ("/v2/models/x", 403)]
    {
        let answer = ask(&server, Some(key), (Method::GET, path), "").await;
        assert_eq!(answer.status().as_u16(), expected, "{path}");
    }
    for wrong in [&["--name", "ci"][..], &["--role", "infer"], &["--name", "ci", "--role", "admin"]]
    {
        assert_eq!(make(wrong).0, 2, "{wrong:?}");
    }
    let (code, output, error) = make(&["--name", "ci", "--role", "infer", "--expires", "soon"]);
    assert_eq!((code, output.as_str()), (1, ""));
    assert!(error.contains("expires has to be a time"), "{error}");
}
