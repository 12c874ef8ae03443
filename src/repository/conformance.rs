//! What every source of models has to do, whatever it is.

mod bare;

use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;
use url::Url;

use super::{LocalRepository, RemoteOptions, RemoteRepository};
use crate::model::{ModelName, ModelSource, SourceError, Version, VersionId, VersionPolicy};
use moto::Moto;

/// A source and a way to fill it.
trait Fixture {
    fn put(&self, path: &str, content: &[u8]);
    fn remove(&self, path: &str);
    fn source(&self) -> &dyn ModelSource;
}

struct Local(TempDir, LocalRepository);

impl Local {
    fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let repository = LocalRepository::open(root.path()).unwrap();
        Self(root, repository)
    }
}

impl Fixture for Local {
    fn put(&self, path: &str, content: &[u8]) {
        let file = self.0.path().join(path);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, content).unwrap();
    }

    fn remove(&self, path: &str) {
        fs::remove_file(self.0.path().join(path)).unwrap();
    }

    fn source(&self) -> &dyn ModelSource {
        &self.1
    }
}

struct Memory {
    runtime: Runtime,
    store: Arc<InMemory>,
    cache: TempDir,
    repository: RemoteRepository,
}

impl Memory {
    fn new() -> Self {
        let (runtime, store) = (Runtime::new().unwrap(), Arc::new(InMemory::new()));
        let cache = tempfile::tempdir().unwrap();
        let repository = open(&store, cache.path(), &runtime);
        Self { runtime, store, cache, repository }
    }
}

fn open(store: &Arc<InMemory>, cache: &Path, runtime: &Runtime) -> RemoteRepository {
    let store: Arc<dyn ObjectStore> = Arc::<InMemory>::clone(store);
    let place = (store, Key::from("some/where"));
    RemoteRepository::over(place, (cache, 1 << 20), runtime.handle().clone()).unwrap()
}

impl Fixture for Memory {
    fn put(&self, path: &str, content: &[u8]) {
        let key = Key::from(format!("some/where/{path}"));
        self.runtime.block_on(self.store.put(&key, content.to_vec().into())).unwrap();
    }

    fn remove(&self, path: &str) {
        let key = Key::from(format!("some/where/{path}"));
        self.runtime.block_on(self.store.delete(&key)).unwrap();
    }

    fn source(&self) -> &dyn ModelSource {
        &self.repository
    }
}

#[path = "../../tests/it/support/moto.rs"]
mod moto;

/// A bucket of a real S3 API, and a client of its own to fill it.
struct S3 {
    runtime: Runtime,
    client: Box<dyn ObjectStore>,
    cache: TempDir,
    repository: RemoteRepository,
    moto: Moto,
}

impl S3 {
    fn new() -> Self {
        let (runtime, moto) = (Runtime::new().unwrap(), Moto::start());
        let cache = tempfile::tempdir().unwrap();
        let repository = s3(moto.options(), cache.path(), &runtime);
        let url = Url::parse("s3://bucket/some/where").unwrap();
        let (client, _) = object_store::parse_url_opts(&url, moto.options()).unwrap();
        let put = runtime.block_on(bucket(&moto.endpoint));
        assert!(put.is_ok_and(|status| status == 200));
        Self { runtime, client, cache, repository, moto }
    }
}

/// The repository as the server opens it.
fn s3(options: Vec<(String, String)>, cache: &Path, runtime: &Runtime) -> RemoteRepository {
    let url = Url::parse("s3://bucket/some/where").unwrap();
    let options = RemoteOptions { url, options, cache: cache.to_owned(), cache_size: 1 << 20 };
    RemoteRepository::open(&options, runtime.handle().clone()).unwrap()
}

/// Makes the bucket.
async fn bucket(endpoint: &str) -> reqwest::Result<u16> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let scope = "AWS4-HMAC-SHA256 Credential=test/20200101/us-east-1/s3/aws4_request";
    let request = client.put(format!("{endpoint}/bucket")).header("authorization", scope);
    Ok(request.send().await?.status().as_u16())
}

impl Fixture for S3 {
    fn put(&self, path: &str, content: &[u8]) {
        let key = Key::from(format!("some/where/{path}"));
        self.runtime.block_on(self.client.put(&key, content.to_vec().into())).unwrap();
    }

    fn remove(&self, path: &str) {
        let key = Key::from(format!("some/where/{path}"));
        self.runtime.block_on(self.client.delete(&key)).unwrap();
    }

    fn source(&self) -> &dyn ModelSource {
        &self.repository
    }
}

fn id(model: &str, version: u64) -> VersionId {
    let model = ModelName::new(model).unwrap();
    VersionId { model, version: Version::new(version).unwrap() }
}

const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

fn each(check: fn(&dyn Fixture)) {
    check(&Local::new());
    check(&Memory::new());
    check(&S3::new());
}

fn digest(fixture: &dyn Fixture, id: &VersionId) -> String {
    let files = fixture.source().fetch(id).unwrap();
    fixture.source().digest(&files).unwrap()
}

#[test]
fn models_and_versions_are_listed_in_order() {
    each(|fixture| {
        for path in ["b/10", "b/9", "b/01", "b/notes", "a/1", ".git/1"] {
            fixture.put(&format!("{path}/model.onnx"), b"abc");
        }
        fixture.put("README.md", b"hello");
        fixture.put("settings/model.yaml", b"");
        let listed: Vec<(String, Vec<u64>)> = fixture
            .source()
            .list()
            .unwrap()
            .into_iter()
            .map(|model| {
                (
                    model.name.to_string(),
                    model.versions.iter().map(|version| version.number()).collect(),
                )
            })
            .collect();
        let expected = [("a", vec![1]), ("b", vec![9, 10]), ("settings", vec![])];
        assert_eq!(listed, expected.map(|(name, versions)| (name.to_owned(), versions)));
    });
}

#[test]
fn what_is_not_there_is_named() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        fixture.put("b/1/weights.bin", b"abc");
        let source = fixture.source();
        let nope = ModelName::new("nope").unwrap();
        assert!(matches!(source.model(&nope), Err(SourceError::UnknownModel(_))));
        assert!(matches!(source.settings(&nope), Err(SourceError::UnknownModel(_))));
        assert!(matches!(source.fetch(&id("nope", 1)), Err(SourceError::UnknownModel(_))));
        assert!(matches!(source.fetch(&id("a", 2)), Err(SourceError::UnknownVersion(_))));
        let error = source.fetch(&id("b", 1)).unwrap_err().to_string();
        assert!(error.contains("model.onnx"), "{error}");
    });
}

#[test]
fn settings_are_read_and_follow_what_is_there() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        let settings = || fixture.source().settings(&ModelName::new("a").unwrap());
        assert_eq!(settings().unwrap().version_policy, VersionPolicy::default());
        fixture.put("a/model.yaml", b"version_policy: all\n");
        assert_eq!(settings().unwrap().version_policy, VersionPolicy::All);
        fixture.put("a/model.yaml", b"\nversion_policy: some\n");
        let error = settings().unwrap_err().to_string();
        assert!(error.contains("model.yaml") && error.contains('2'), "{error}");
        fixture.remove("a/model.yaml");
        fixture.put("a/config.pbtxt", b"version_policy { all {} }");
        assert_eq!(settings().unwrap().version_policy, VersionPolicy::All);
    });
}

#[test]
fn content_has_the_same_digest_wherever_it_is() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        assert_eq!(digest(fixture, &id("a", 1)), ABC);
        assert_eq!(digest(fixture, &id("a", 1)), ABC, "again");
        fixture.put("a/1/data/weights.bin", b"w");
        let files = fixture.source().fetch(&id("a", 1)).unwrap();
        let beside = files.graph.parent().unwrap().join("data/weights.bin");
        assert_eq!(fs::read(beside).unwrap(), b"w");
        let two = fixture.source().digest(&files).unwrap();
        assert_eq!(fixture.source().size(&files).unwrap(), 4);
        assert_ne!(two, ABC);
        fixture.put("a/1/data/weights.bin", b"x");
        assert_ne!(digest(fixture, &id("a", 1)), two);
        fixture.remove("a/1/data/weights.bin");
        assert_eq!(digest(fixture, &id("a", 1)), ABC);
    });
}

#[test]
fn a_manifest_tells_what_is_complete() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"ab");
        let manifest =
            format!(r#"{{"files": [{{"path": "model.onnx", "size": 3, "sha256": "{ABC}"}}]}}"#);
        fixture.put("a/1/manifest.json", manifest.as_bytes());
        let error = fixture.source().fetch(&id("a", 1)).unwrap_err().to_string();
        assert!(error.contains("has 2 bytes, 3 by manifest.json"), "{error}");
        fixture.put("a/1/model.onnx", b"abc");
        assert_eq!(digest(fixture, &id("a", 1)), ABC);
    });
}

#[test]
fn samples_come_with_the_model() {
    each(|fixture| {
        fixture.put("a/1/model.onnx", b"abc");
        let tensor = r#"{"name": "y", "shape": [1], "datatype": "FP32", "data": [1]}"#;
        let sample = format!(r#"{{"inputs": [], "outputs": [{tensor}]}}"#);
        fixture.put("a/golden/all.json", sample.as_bytes());
        fixture.put("a/golden/1/one.json", sample.as_bytes());
        fixture.source().settings(&ModelName::new("a").unwrap()).unwrap();
        let samples = fixture.source().samples(&id("a", 1)).unwrap();
        let names: Vec<_> = samples.iter().map(|sample| sample.name.as_str()).collect();
        assert_eq!(names, ["one.json", "all.json"]);
    });
}

#[test]
fn content_that_rots_in_the_cache_is_fetched_again() {
    let fixture = Memory::new();
    fixture.put("a/1/model.onnx", b"abc");
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
    let blob = fixture.cache.path().join("blobs").join(ABC);
    fs::write(&blob, b"abd").unwrap();
    assert_eq!(digest(&fixture, &id("a", 1)), ABC);
    // Another process finds what this one has left.
    let reopened = open(&fixture.store, fixture.cache.path(), &fixture.runtime);
    let files = reopened.fetch(&id("a", 1)).unwrap();
    assert_eq!(reopened.digest(&files).unwrap(), ABC);
}

/// Stands between a client and a server, and cuts every connection once so many bytes have come back.
struct Cutter {
    address: String,
    cuts: Arc<AtomicUsize>,
    asked: Arc<Mutex<String>>,
}

impl Cutter {
    fn before(server: &str, limit: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let (cuts, asked) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<String>>::default());
        let (counted, heard) = (Arc::clone(&cuts), Arc::clone(&asked));
        let server = server.trim_start_matches("http://").to_owned();
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let upstream = TcpStream::connect(&server).unwrap();
                let (from, to) = (client.try_clone().unwrap(), upstream.try_clone().unwrap());
                let heard = Arc::clone(&heard);
                thread::spawn(move || {
                    forward(from, to, |bytes| {
                        heard.lock().unwrap().push_str(&String::from_utf8_lossy(bytes));
                        true
                    });
                });
                let (counted, mut left) = (Arc::clone(&counted), limit);
                thread::spawn(move || {
                    forward(upstream, client, |bytes| {
                        let goes_on = bytes.len() <= left;
                        left = left.saturating_sub(bytes.len());
                        counted.fetch_add(usize::from(!goes_on), Ordering::SeqCst);
                        goes_on
                    });
                });
            }
        });
        Self { address, cuts, asked }
    }
}

/// Copies until one side ends, or `watch` says that it is enough.
fn forward(mut from: TcpStream, mut to: TcpStream, mut watch: impl FnMut(&[u8]) -> bool) {
    let mut buffer = [0; 16 << 10];
    while let Ok(count @ 1..) = from.read(&mut buffer) {
        if !watch(&buffer[..count]) || to.write_all(&buffer[..count]).is_err() {
            break;
        }
    }
    // They may be closed already.
    from.shutdown(Shutdown::Both).ok();
    to.shutdown(Shutdown::Both).ok();
}

#[test]
fn a_download_goes_on_where_its_connection_broke() {
    let fixture = S3::new();
    let content: Vec<u8> = (0..2_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    fixture.put("a/1/model.onnx", &content);
    let whole = digest(&fixture, &id("a", 1));
    let cutter = Cutter::before(&fixture.moto.endpoint, 300_000);
    let mut options = fixture.moto.options();
    options.retain(|(name, _)| name != "aws_endpoint_url");
    options.push(("aws_endpoint_url".to_owned(), cutter.address.clone()));
    let cache = tempfile::tempdir().unwrap();
    let repository = s3(options, cache.path(), &fixture.runtime);
    let files = repository.fetch(&id("a", 1)).unwrap();
    assert_eq!(repository.digest(&files).unwrap(), whole);
    let cuts = cutter.cuts.load(Ordering::SeqCst);
    assert!(cuts >= 5, "{cuts} connections were cut");
    let asked = cutter.asked.lock().unwrap().to_lowercase();
    assert!(asked.contains("range: bytes="), "it went on, and did not begin anew");
    drop(fixture.cache);
}

#[test]
fn a_download_goes_on_in_another_life() {
    let fixture = S3::new();
    let content = vec![7_u8; 1_000_000];
    fixture.put("a/1/model.onnx", &content);
    // What an earlier life has left of it.
    let parts = fixture.cache.path().join("parts");
    let whole = digest(&fixture, &id("a", 1));
    let known = fs::read_dir(fixture.cache.path().join("known")).unwrap().next().unwrap().unwrap();
    let (name, blob) = (known.file_name(), fixture.cache.path().join("blobs").join(&whole));
    fs::write(parts.join(name), &content[..400_000]).unwrap();
    fs::remove_file(blob).unwrap();
    let cutter = Cutter::before(&fixture.moto.endpoint, usize::MAX);
    let mut options = fixture.moto.options();
    options.retain(|(name, _)| name != "aws_endpoint_url");
    options.push(("aws_endpoint_url".to_owned(), cutter.address.clone()));
    let repository = s3(options, fixture.cache.path(), &fixture.runtime);
    let files = repository.fetch(&id("a", 1)).unwrap();
    assert_eq!(repository.digest(&files).unwrap(), whole);
    assert!(cutter.asked.lock().unwrap().to_lowercase().contains("range: bytes=400000-"));
}
