//! A real S3 API: moto's server, which `make moto` installs.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;

/// The server, with one bucket called `bucket`; killed when dropped.
#[derive(Debug)]
pub(crate) struct Moto {
    child: Child,
    /// Such as `http://127.0.0.1:1234`.
    pub(crate) endpoint: String,
}

impl Moto {
    /// Starts it and waits until it listens.
    pub(crate) fn start() -> Self {
        let home = packages();
        assert!(home.join("installed").exists(), "run `make moto` first, or all by `make test`");
        let mut command = Command::new("python3");
        command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]).env("PYTHONPATH", home);
        let mut child =
            command.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("python3");
        let mut log = BufReader::new(child.stderr.take().expect("it is a pipe")).lines();
        let line = log.by_ref().map_while(Result::ok).find(|line| line.contains("Running on"));
        let line = line.expect("it tells where it listens");
        let endpoint = line.split_whitespace().last().expect("the address comes last").to_owned();
        // Read on, so that it never waits for its log.
        thread::spawn(move || log.for_each(drop));
        Self { child, endpoint }
    }

    /// What a client needs to know, by the names of `object_store`.
    pub(crate) fn options(&self) -> Vec<(String, String)> {
        let options = [
            ("aws_access_key_id", "test"),
            ("aws_secret_access_key", "test"),
            ("aws_region", "us-east-1"),
            ("aws_endpoint_url", &self.endpoint),
            ("aws_allow_http", "true"),
        ];
        options.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec()
    }
}

/// Where `make moto` puts them.
fn packages() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let target = option_env!("CARGO_TARGET_DIR").map_or_else(|| here.join("target"), PathBuf::from);
    target.join("moto")
}

impl Drop for Moto {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}
