//! Answers that are kept, for requests that come again.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quick_cache::sync::{Cache, DefaultLifecycle};
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter};
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio::time::Instant;

use super::usage::{Spent, Total};

use crate::inference::{ExecutionProvider, PreparedRequest, Tensor};

/// Large inputs that are hashed at once.
const HASHED_AT_ONCE: usize = 2;

/// As large a part of the cache has a lock of its own, so that nobody waits long for one; and no answer can be
/// larger.
const PART: u64 = 64 << 20;

/// From so many bytes on, inputs are hashed by a thread that serves no connections: SHA-256 takes a quarter of
/// a millisecond for them where the processor does not help.
const LARGE: u64 = 64 * 1024;

/// What keeps an answer besides its elements, about.
const OVERHEAD: u64 = 256;

/// How large an answer is taken to be, for the notes that are taken of those that were dropped.
const USUAL: u64 = 4096;

type Hash = [u8; 32];
type Answers =
    Cache<Key, Arc<[Tensor]>, Weight, DefaultHashBuilder, DefaultLifecycle<Key, Arc<[Tensor]>>>;

/// A request, by the digest of the version that it is for and by all that its answer depends on. Hashes that
/// nobody can find two texts of, as one caller's answer must not become another's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Key {
    version: Hash,
    request: Hash,
}

#[derive(Clone)]
struct Weight;

impl Weighter<Key, Arc<[Tensor]>> for Weight {
    fn weight(&self, _: &Key, answer: &Arc<[Tensor]>) -> u64 {
        answer.iter().map(|tensor| tensor.footprint() as u64).sum::<u64>() + OVERHEAD
    }
}

/// The answers of all versions whose models' settings ask for it, in so many bytes. Those that are asked for
/// again stay longest.
pub(super) struct ResponseCache {
    answers: Answers,
    /// How many loaded versions have the same answers.
    versions: Mutex<HashMap<Hash, usize>>,
    hashing: Semaphore,
}

/// What is kept at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct ResponseCacheReport {
    /// Answers.
    pub answers: u64,
    /// The bytes that they take, about.
    pub bytes: u64,
    /// The bytes that they may take.
    pub capacity: u64,
}

impl ResponseCache {
    pub(super) fn new(capacity: u64) -> Self {
        let usual = usize::try_from(capacity / USUAL).unwrap_or(usize::MAX);
        let parts = (capacity / PART).clamp(1, 64);
        let options = OptionsBuilder::new()
            .weight_capacity(capacity)
            .estimated_items_capacity(usual.clamp(16, 1 << 20))
            .shards(usize::try_from(parts).unwrap_or(1))
            .build();
        let options = options.expect("both capacities are given");
        let hasher = DefaultHashBuilder::default();
        Self {
            answers: Cache::with_options(options, Weight, hasher, DefaultLifecycle::default()),
            versions: Mutex::default(),
            hashing: Semaphore::new(HASHED_AT_ONCE),
        }
    }

    pub(super) fn report(&self) -> ResponseCacheReport {
        let (answers, bytes) = (self.answers.len() as u64, self.answers.weight());
        ResponseCacheReport { answers, bytes, capacity: self.answers.capacity() }
    }

    /// The part of a version with this digest that is run by these.
    pub(super) fn of_version(
        self: &Arc<Self>,
        digest: &str,
        providers: &[ExecutionProvider],
    ) -> VersionCache {
        let mut hash = Sha256::new_with_prefix(digest);
        for provider in providers {
            hash.update([",", provider.name()].concat());
        }
        let version = hash.finalize().into();
        *self.versions().entry(version).or_default() += 1;
        VersionCache {
            all: Arc::clone(self),
            version,
            hits: Total::default(),
            misses: Total::default(),
        }
    }

    fn versions(&self) -> MutexGuard<'_, HashMap<Hash, usize>> {
        self.versions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A version is gone, and its answers with the last one that has them.
    fn let_go(&self, version: Hash) {
        let mut versions = self.versions();
        let users = versions.entry(version).or_insert(1);
        *users -= 1;
        if *users == 0 {
            versions.remove(&version);
            // Under the lock, so that one that begins now keeps what it finds out.
            self.answers.retain(|key, _| key.version != version);
        }
    }
}

impl fmt::Debug for ResponseCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseCache").field("report", &self.report()).finish()
    }
}

/// The answers of one version, which are dropped with it.
#[derive(Debug)]
pub(super) struct VersionCache {
    all: Arc<ResponseCache>,
    version: Hash,
    hits: Total,
    misses: Total,
}

/// What became of a request of a version whose answers are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CacheLookup {
    /// Its answer was there.
    Hit,
    /// It was run.
    Miss,
}

impl CacheLookup {
    /// As it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
        }
    }
}

/// How often an answer was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CacheUse {
    /// Requests whose answer was there, and what it took to find it.
    pub hits: Spent,
    /// Requests that were run, as theirs was not, and what it took to see that.
    pub misses: Spent,
}

impl VersionCache {
    /// The answer of a request, as outputs in the order asked for; or else the key under which it is to be
    /// kept. Counts. Cancel safe.
    pub(super) async fn find(&self, request: &PreparedRequest) -> Result<Vec<Tensor>, Key> {
        let begun = Instant::now();
        let key = self.key(request).await;
        let kept = self.all.answers.get(&key);
        let count = if kept.is_some() { &self.hits } else { &self.misses };
        count.add(begun.elapsed());
        kept.map(|outputs| outputs.to_vec()).ok_or(key)
    }

    async fn key(&self, request: &PreparedRequest) -> Key {
        let version = self.version;
        if !is_laborious(request) {
            return Key { version, request: hash(request) };
        }
        // One that is cancelled while it waits is not hashed.
        let permit = self.all.hashing.acquire().await;
        let large = request.clone();
        let hashed = spawn_blocking(move || hash(&large)).await;
        // Only at the end of the runtime is it not run.
        let request = hashed.unwrap_or_else(|_| hash(request));
        drop(permit);
        Key { version, request }
    }

    /// Keeps the answer of a request, unless it is larger than all that may be kept.
    pub(super) fn keep(&self, key: Key, outputs: &[Tensor]) {
        let size: usize = outputs.iter().map(Tensor::footprint).sum();
        // It would be copied for nothing.
        if size as u64 <= self.all.answers.shard_capacity() {
            self.all.answers.insert(key, outputs.iter().map(Tensor::detached).collect());
        }
    }

    pub(super) fn usage(&self) -> CacheUse {
        CacheUse { hits: self.hits.read(), misses: self.misses.read() }
    }
}

impl Drop for VersionCache {
    fn drop(&mut self) {
        self.all.let_go(self.version);
    }
}

/// Whether it takes long to look for the answer of a request.
pub(super) fn is_laborious(request: &PreparedRequest) -> bool {
    request.size() >= LARGE
}

/// Of all that an answer depends on beside the version. Lengths come before what they are of, so that no two
/// requests are one text.
fn hash(request: &PreparedRequest) -> Hash {
    let mut hash = Sha256::new();
    let number = |hash: &mut Sha256, number: usize| hash.update((number as u64).to_le_bytes());
    number(&mut hash, request.outputs().len());
    for output in request.outputs() {
        number(&mut hash, *output);
    }
    // Which input it is follows from its place, and the datatype from that.
    for input in request.inputs() {
        number(&mut hash, usize::from(input.is_some()));
        let Some(tensor) = input else { continue };
        number(&mut hash, tensor.shape().len());
        for size in tensor.shape() {
            number(&mut hash, *size);
        }
        match (tensor.as_bytes(), tensor.as_strings()) {
            (Some(bytes), _) => hash.update(bytes),
            (None, elements) => {
                for element in elements.unwrap_or_default() {
                    number(&mut hash, element.len());
                    hash.update(element);
                }
            }
        }
    }
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::inference::{DataType, Dim, InferenceRequest, NamedTensor, Signature, TensorSpec};

    fn signature() -> Signature {
        let free = || Dim::Dynamic("n".to_owned());
        let spec = |name: &str, datatype, optional| TensorSpec {
            name: name.to_owned(),
            datatype,
            shape: Some(vec![free(), free()]),
            optional,
        };
        Signature {
            inputs: vec![
                spec("x", DataType::Uint8, false),
                spec("u", DataType::Uint8, true),
                spec("v", DataType::Uint8, true),
                spec("text", DataType::Bytes, true),
            ],
            outputs: vec![spec("y", DataType::Uint8, false), spec("z", DataType::Uint8, false)],
        }
    }

    fn bytes(shape: [usize; 2], values: &[u8]) -> Tensor {
        Tensor::from_vec(shape.to_vec(), values.to_vec()).unwrap()
    }

    fn request(inputs: &[(&str, Tensor)], outputs: &[&str]) -> PreparedRequest {
        let named = |(name, tensor): &(&str, Tensor)| NamedTensor {
            name: (*name).to_owned(),
            tensor: tensor.clone(),
        };
        let request = InferenceRequest {
            inputs: inputs.iter().map(named).collect(),
            outputs: outputs.iter().map(|name| (*name).to_owned()).collect(),
        };
        PreparedRequest::new(&signature(), request).unwrap()
    }

    #[test]
    fn requests_that_differ_in_anything_have_other_keys() {
        let x = || ("x", bytes([1, 4], &[1, 2, 3, 4]));
        let one = || bytes([1, 1], &[1]);
        let text = |elements: &[&'static str]| {
            let elements = elements.iter().map(|text| Bytes::from_static(text.as_bytes()));
            let elements: Vec<_> = elements.collect();
            ("text", Tensor::from_strings(vec![1, elements.len()], elements).unwrap())
        };
        let requests = [
            request(&[x()], &[]),
            request(&[x()], &["y"]),
            request(&[x()], &["z"]),
            request(&[x()], &["z", "y"]),
            request(&[("x", bytes([2, 2], &[1, 2, 3, 4]))], &[]),
            request(&[("x", bytes([4, 1], &[1, 2, 3, 4]))], &[]),
            request(&[("x", bytes([1, 4], &[1, 2, 3, 5]))], &[]),
            request(&[x(), ("u", one())], &[]),
            request(&[x(), ("v", one())], &[]),
            request(&[x(), text(&["ab", "c"])], &[]),
            request(&[x(), text(&["a", "bc"])], &[]),
        ];
        let hashes: std::collections::HashSet<Hash> = requests.iter().map(hash).collect();
        assert_eq!(hashes.len(), requests.len());
        assert_eq!(hash(&requests[0]), hash(&request(&[x()], &["y", "z"])));
    }

    #[tokio::test]
    async fn answers_are_those_of_their_version_and_go_with_it() {
        let cache = Arc::new(ResponseCache::new(1 << 20));
        let (one, other) = (cache.of_version("one", &[]), cache.of_version("other", &[]));
        let request = request(&[("x", bytes([1, 1], &[7]))], &[]);
        one.keep(one.find(&request).await.unwrap_err(), &[bytes([1, 1], &[8])]);
        assert_eq!(one.find(&request).await, Ok(vec![bytes([1, 1], &[8])]));
        other.keep(other.find(&request).await.unwrap_err(), &[bytes([1, 1], &[9])]);
        assert_eq!((one.usage().hits.count, one.usage().misses.count), (1, 1));
        let again = cache.of_version("one", &[]);
        drop(one);
        assert_eq!(again.find(&request).await, Ok(vec![bytes([1, 1], &[8])]));
        let elsewhere = cache.of_version("one", &[ExecutionProvider::Cuda]);
        assert!(elsewhere.find(&request).await.is_err());
        drop(again);
        assert_eq!(cache.report().answers, 1);
        assert_eq!(other.find(&request).await, Ok(vec![bytes([1, 1], &[9])]));
        drop(other);
        assert_eq!(cache.report(), ResponseCacheReport { capacity: 1 << 20, ..Default::default() });
    }

    #[tokio::test]
    async fn the_bytes_are_bounded_and_those_that_are_kept_are_their_own() {
        let cache = Arc::new(ResponseCache::new(100_000));
        let version = cache.of_version("one", &[]);
        // A part of a batch keeps the whole of it, if nobody copies it.
        let batch = Bytes::from(vec![1; 1 << 20]);
        let part = Tensor::from_bytes(DataType::Uint8, vec![1, 9000], batch.slice(..9000)).unwrap();
        for number in 0..100 {
            let request = request(&[("x", bytes([1, 1], &[number]))], &[]);
            version.keep(version.key(&request).await, std::slice::from_ref(&part));
            assert!(cache.report().bytes <= 100_000);
        }
        assert!(cache.report().answers >= 9, "{:?}", cache.report());
        drop(part);
        assert!(batch.is_unique());
        // One that is larger than all may be is not kept, and drives nothing out.
        let before = cache.report();
        let huge = Tensor::zeros(DataType::Uint8, vec![1, 200_000]).unwrap();
        let large = request(&[("x", huge.clone())], &[]);
        version.keep(version.find(&large).await.unwrap_err(), &[huge]);
        assert!(version.find(&large).await.is_err());
        assert_eq!(cache.report(), before);
    }
}
