//! A store that errs, and what tests with it have in common.

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::stream::BoxStream;
use futures_util::{FutureExt, StreamExt, TryFutureExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use object_store::path::Path as Key;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};

use super::id;
use crate::causes;
use crate::model::ModelSource;

/// What happens before a request is answered.
pub(super) type Hook = Box<dyn Fn(&Key) -> BoxFuture<'static, Result<()>> + Send + Sync>;

/// A store that errs.
pub(super) struct Faulty {
    store: Arc<InMemory>,
    pub(super) before_list: Hook,
    pub(super) before_get: Hook,
    fault: Fault,
}

#[derive(PartialEq)]
pub(super) enum Fault {
    None,
    /// Answers have a length, and end before it.
    Silent,
    /// Objects have neither tags nor versions.
    Untagged,
    /// Nor are they as old when they are had as when they are listed.
    Aging,
    /// Objects cannot be had from the middle on.
    NoRanges,
    /// Folders are listed one by one.
    Shallow,
}

impl Faulty {
    pub(super) fn new(store: &Arc<InMemory>, fault: Fault) -> Self {
        let nothing = || -> Hook { Box::new(|_| async { Ok(()) }.boxed()) };
        let (before_list, before_get) = (nothing(), nothing());
        Self { store: Arc::clone(store), before_list, before_get, fault }
    }

    fn is_untagged(&self) -> bool {
        matches!(self.fault, Fault::Untagged | Fault::Aging)
    }
}

fn told(mut object: ObjectMeta, untagged: bool) -> ObjectMeta {
    if untagged {
        (object.e_tag, object.version) = (None, None);
    }
    object
}

/// What is not there, for whoever should not have asked.
pub(super) fn refused(key: &Key) -> Error {
    Error::NotFound { path: key.to_string(), source: "it is not to be asked for".into() }
}

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

impl fmt::Display for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

#[async_trait::async_trait]
impl ObjectStore for Faulty {
    async fn put_opts(
        &self,
        location: &Key,
        payload: PutPayload,
        options: PutOptions,
    ) -> Result<PutResult> {
        self.store.put_opts(location, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        location: &Key,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store.put_multipart_opts(location, options).await
    }

    async fn get_opts(&self, location: &Key, mut options: GetOptions) -> Result<GetResult> {
        if options.head {
            return self.store.get_opts(location, options).await;
        }
        (self.before_get)(location).await?;
        if self.fault == Fault::NoRanges && options.range.is_some() {
            let source = "this store gives no ranges".into();
            return Err(Error::NotSupported { source });
        }
        options.if_match = options.if_match.filter(|_| !self.is_untagged());
        let mut got = self.store.get_opts(location, options).await?;
        got.meta = told(got.meta, self.is_untagged());
        if self.fault == Fault::Aging {
            got.meta.last_modified += Duration::from_hours(1);
        }
        if self.fault == Fault::Silent {
            got.payload = GetResultPayload::Stream(stream::empty().boxed());
        }
        Ok(got)
    }

    fn delete_stream(
        &self,
        locations: BoxStream<'static, Result<Key>>,
    ) -> BoxStream<'static, Result<Key>> {
        self.store.delete_stream(locations)
    }

    fn list(&self, prefix: Option<&Key>) -> BoxStream<'static, Result<ObjectMeta>> {
        let below = prefix.cloned().unwrap_or_default();
        if self.fault == Fault::Shallow {
            let source = "this store lists no trees".into();
            let error = Error::PermissionDenied { path: below.to_string(), source };
            return stream::iter([Err(error)]).boxed();
        }
        let (listed, untagged) = (self.store.list(prefix), self.is_untagged());
        let waited = (self.before_list)(&below);
        let told = move |object| told(object, untagged);
        let listed = async move { waited.await.map(|()| listed.map_ok(told)) };
        listed.try_flatten_stream().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Key>) -> Result<ListResult> {
        let mut listed = self.store.list_with_delimiter(prefix).await?;
        let objects = listed.objects.into_iter();
        listed.objects = objects.map(|object| told(object, self.is_untagged())).collect();
        Ok(listed)
    }

    async fn copy_opts(&self, from: &Key, to: &Key, options: CopyOptions) -> Result<()> {
        self.store.copy_opts(from, to, options).await
    }
}

/// Whatever `work` gives, unless it never ends.
#[track_caller]
pub(super) fn ends<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    let (done, result) = mpsc::channel();
    thread::spawn(move || done.send(work()));
    result.recv_timeout(Duration::from_mins(1)).expect("it ends, and does not panic")
}

pub(super) fn names(folder: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> =
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    names.sort();
    names
}

/// Why nothing could be fetched, with all causes.
#[track_caller]
pub(super) fn problem(source: &dyn ModelSource) -> String {
    causes::of_error(&source.fetch(&id("a", 1)).unwrap_err())
}

/// Leaves of an object what a life that ended while it was downloaded would have.
pub(super) fn leave_a_part(cache: &Path, (digest, content): (&str, &[u8])) {
    let known = names(&cache.join("known")).remove(0);
    fs::write(cache.join("parts").join(known.file_name().unwrap()), content).unwrap();
    fs::remove_file(cache.join("blobs").join(digest)).unwrap();
}
