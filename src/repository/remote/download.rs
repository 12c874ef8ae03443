//! Downloads that go on where they broke off, also in another life of the process.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::{GetOptions, GetRange, ObjectMeta, ObjectStore};
use tokio::fs::{self, File, OpenOptions};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;
use tracing::{debug, warn};

use super::cache::Cache;
use super::failed;
use crate::model::SourceError;

/// How often a download that brings nothing new is tried.
const ATTEMPTS: u32 = 6;

/// The wait before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// The content of an object as a local file.
///
/// # Errors
/// [`SourceError::Io`] when it cannot be had, or has changed in the meantime.
pub(super) async fn fetch(
    store: &dyn ObjectStore,
    cache: &Cache,
    object: &ObjectMeta,
) -> Result<PathBuf, SourceError> {
    let what = object.location.as_ref();
    let local = |error: io::Error| SourceError::Io { what: what.to_owned(), source: error };
    // Hashing and linking are short, and this thread is one of those that load models.
    if let Some(blob) = cache.known(object) {
        debug!(object = what, "is in the cache");
        return Ok(blob);
    }
    let part = cache.part(object);
    let (mut attempt, mut have) = (0, length(&part).await);
    while have < object.size {
        let result = go_on(store, object, (&part, have)).await;
        let now = length(&part).await;
        attempt = if now > have { 0 } else { attempt + 1 };
        have = now;
        match result {
            Ok(()) => {}
            Err(Broken::Store(error)) if is_final(&error) || attempt >= ATTEMPTS => {
                return Err(failed(what, error));
            }
            Err(Broken::Local(error)) => return Err(local(error)),
            Err(Broken::Store(error)) => {
                let pause = PAUSE * 2_u32.pow(attempt);
                warn!(object = what, have, size = object.size, %error, "download broke off, it goes on");
                sleep(pause).await;
            }
        }
    }
    if have > object.size {
        fs::remove_file(&part).await.map_err(local)?;
        let problem = format!("it has more than the {} bytes that it should", object.size);
        return Err(local(io::Error::other(problem)));
    }
    if object.size == 0 {
        File::create(&part).await.map_err(local)?;
    }
    cache.take_in(object).map_err(local)
}

enum Broken {
    Store(object_store::Error),
    Local(io::Error),
}

/// Appends what is missing to the part.
async fn go_on(
    store: &dyn ObjectStore,
    object: &ObjectMeta,
    (part, have): (&Path, u64),
) -> Result<(), Broken> {
    let options = GetOptions {
        if_match: object.e_tag.clone(),
        range: (have > 0).then_some(GetRange::Offset(have)),
        ..GetOptions::default()
    };
    let got = store.get_opts(&object.location, options).await.map_err(Broken::Store)?;
    let file = OpenOptions::new().create(true).append(true).open(part).await;
    let mut file = file.map_err(Broken::Local)?;
    let mut chunks = got.into_stream();
    let mut outcome = Ok(());
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(bytes) => file.write_all(&bytes).await.map_err(Broken::Local)?,
            Err(error) => {
                outcome = Err(Broken::Store(error));
                break;
            }
        }
    }
    // What has come is kept, whatever happens next.
    file.flush().await.map_err(Broken::Local)?;
    file.sync_data().await.map_err(Broken::Local)?;
    outcome
}

async fn length(path: &Path) -> u64 {
    fs::metadata(path).await.map_or(0, |metadata| metadata.len())
}

/// Whether trying again would lead to the same.
fn is_final(error: &object_store::Error) -> bool {
    use object_store::Error as E;
    matches!(
        error,
        E::NotFound { .. }
            | E::Precondition { .. }
            | E::NotModified { .. }
            | E::PermissionDenied { .. }
            | E::Unauthenticated { .. }
            | E::NotSupported { .. }
            | E::NotImplemented { .. }
            | E::UnknownConfigurationKey { .. }
    )
}
