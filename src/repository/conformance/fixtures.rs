//! Every source of models, with a way to fill it.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{ObjectStore, ObjectStoreExt as _};
use tempfile::TempDir;
use tokio::runtime::Runtime;

use super::stores::{Protocol, StoreServer};
use crate::model::ModelSource;
use crate::repository::{LocalRepository, OverlayRepository, RemoteOptions, RemoteRepository};

/// Where the repository is in a store.
pub(super) const FOLDER: &str = "some/where";

/// A source and a way to fill it.
pub(super) trait Fixture {
    fn name(&self) -> String;
    fn put(&self, path: &str, content: &[u8]);
    fn remove(&self, path: &str);
    fn source(&self) -> &dyn ModelSource;
}

pub(super) struct Local(TempDir, LocalRepository);

impl Local {
    pub(super) fn new() -> Self {
        let root = tempfile::tempdir().unwrap();
        let repository = LocalRepository::open(root.path()).unwrap();
        Self(root, repository)
    }
}

impl Fixture for Local {
    fn name(&self) -> String {
        "a local folder".to_owned()
    }

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

/// A local folder with nothing over it.
pub(super) struct Overlaid(Local, OverlayRepository);

impl Overlaid {
    pub(super) fn new() -> Self {
        let below = Local::new();
        let repository = OverlayRepository::new(below.1.clone());
        Self(below, repository)
    }
}

impl Fixture for Overlaid {
    fn name(&self) -> String {
        "overlay".to_owned()
    }

    fn put(&self, path: &str, content: &[u8]) {
        self.0.put(path, content);
    }

    fn remove(&self, path: &str) {
        self.0.remove(path);
    }

    fn source(&self) -> &dyn ModelSource {
        &self.1
    }
}

pub(super) struct Memory {
    pub(super) runtime: Runtime,
    pub(super) store: Arc<InMemory>,
    pub(super) cache: TempDir,
    pub(super) repository: RemoteRepository,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self::with_cache_of(1 << 20)
    }

    pub(super) fn with_cache_of(size: u64) -> Self {
        let (runtime, store) = (Runtime::new().unwrap(), Arc::new(InMemory::new()));
        let cache = tempfile::tempdir().unwrap();
        let repository = over(Arc::<InMemory>::clone(&store), (cache.path(), size), &runtime);
        Self { runtime, store, cache, repository }
    }

    /// Another repository over the same cache, as another process has it.
    pub(super) fn another(&self, store: impl ObjectStore) -> RemoteRepository {
        over(Arc::new(store), (self.cache.path(), 1 << 20), &self.runtime)
    }
}

/// A repository in a store of this process.
pub(super) fn over(
    store: Arc<dyn ObjectStore>,
    cache: (&Path, u64),
    runtime: &Runtime,
) -> RemoteRepository {
    let place = (store, Key::from(FOLDER));
    RemoteRepository::in_store(place, cache, runtime.handle().clone()).unwrap()
}

pub(super) fn key(path: &str) -> Key {
    Key::parse(format!("{FOLDER}/{path}")).unwrap()
}

impl Fixture for Memory {
    fn name(&self) -> String {
        "memory".to_owned()
    }

    fn put(&self, path: &str, content: &[u8]) {
        self.runtime.block_on(self.store.put(&key(path), content.to_vec().into())).unwrap();
    }

    fn remove(&self, path: &str) {
        self.runtime.block_on(self.store.delete(&key(path))).unwrap();
    }

    fn source(&self) -> &dyn ModelSource {
        &self.repository
    }
}

/// A server that speaks what a real store does.
pub(super) struct Real {
    pub(super) runtime: Runtime,
    pub(super) server: StoreServer,
    pub(super) cache: TempDir,
    pub(super) repository: RemoteRepository,
}

impl Real {
    pub(super) fn new(protocol: Protocol) -> Self {
        let (runtime, server) = (Runtime::new().unwrap(), StoreServer::start(protocol));
        runtime.block_on(server.prepare());
        let cache = tempfile::tempdir().unwrap();
        let repository = reach(&server, &server.endpoint, (cache.path(), &runtime));
        Self { runtime, server, cache, repository }
    }
}

/// The repository in a store as the server opens it, which reaches it by `endpoint`.
pub(super) fn reach(
    server: &StoreServer,
    endpoint: &str,
    (cache, runtime): (&Path, &Runtime),
) -> RemoteRepository {
    let (url, options) = server.seen_at(endpoint, FOLDER);
    let options = RemoteOptions { url, options, cache: cache.to_owned(), cache_size: 1 << 20 };
    RemoteRepository::open(&options, runtime.handle().clone()).unwrap()
}

impl Fixture for Real {
    fn name(&self) -> String {
        format!("{:?}", self.server.protocol)
    }

    fn put(&self, path: &str, content: &[u8]) {
        self.runtime.block_on(self.server.put(&format!("{FOLDER}/{path}"), content));
    }

    fn remove(&self, path: &str) {
        self.runtime.block_on(self.server.remove(&format!("{FOLDER}/{path}")));
    }

    fn source(&self) -> &dyn ModelSource {
        &self.repository
    }
}
