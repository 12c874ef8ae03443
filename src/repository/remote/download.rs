//! Downloads that go on where they broke off, also in another life of the process.

use std::io::{self, ErrorKind};
use std::time::Duration;

use futures_util::StreamExt;
use object_store::{Error, GetOptions, GetRange, GetResult, ObjectMeta, ObjectStore};
use tokio::io::AsyncWriteExt;
use tokio::time::sleep;
use tracing::warn;

use super::part::Part;
use super::store::kind;

/// How often a download that brings nothing new is tried.
const ATTEMPTS: u32 = 6;

/// The wait before the second attempt; it doubles.
const PAUSE: Duration = Duration::from_millis(100);

/// Why an object could not be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error(transparent)]
    Store(#[from] Error),
    #[error("it cannot be written into the cache")]
    Local(#[from] io::Error),
    #[error("it has changed since it was listed")]
    Changed,
    #[error("the store has sent {have} of its {size} bytes")]
    Length { have: u64, size: u64 },
}

/// Fills a part with what is missing of an object.
///
/// # Errors
/// [`Broken`]. What has come is kept in the part, for the next time.
pub(super) async fn fill(
    store: &dyn ObjectStore,
    object: &ObjectMeta,
    part: &Part,
) -> Result<(), Broken> {
    let (mut attempt, mut most) = (0, part.length()?);
    while let Err(broken) = go_on(store, object, part).await {
        let have = part.length()?;
        attempt = if have > most { 0 } else { attempt + 1 };
        most = most.max(have);
        if attempt >= ATTEMPTS || broken.is_final() {
            return Err(broken);
        }
        warn!(object = %object.location, have, size = object.size, error = %broken, "download broke off, it goes on");
        sleep(PAUSE * 2_u32.pow(attempt)).await;
    }
    Ok(())
}

/// Appends what is missing to the part, as far as one answer brings it.
async fn go_on(store: &dyn ObjectStore, object: &ObjectMeta, part: &Part) -> Result<(), Broken> {
    let size = object.size;
    if part.length()? < size || size == 0 {
        let got = ask(store, object, part).await?;
        append(got, part).await?;
    }
    let have = part.length()?;
    if have > size {
        part.clear()?;
    }
    if have == size { Ok(()) } else { Err(Broken::Length { have, size }) }
}

/// Asks for what is missing of what was listed.
async fn ask(
    store: &dyn ObjectStore,
    object: &ObjectMeta,
    part: &Part,
) -> Result<GetResult, Broken> {
    let have = part.length()?;
    let range = (have > 0).then_some(GetRange::Offset(have));
    let got = store.get_opts(&object.location, GetOptions { range, ..GetOptions::default() }).await;
    if matches!(got, Err(Error::NotSupported { .. })) {
        // What gives no ranges is asked for all of it.
        part.clear()?;
    }
    let got = got?;
    // Not left to the store: not each of them knows conditions, or has the same form for tags everywhere.
    if is_same(object, &got.meta) { Ok(got) } else { Err(Broken::Changed) }
}

async fn append(got: GetResult, part: &Part) -> Result<(), Broken> {
    let (mut chunks, mut end) = (got.into_stream(), part.end()?);
    let mut outcome = Ok(());
    while let Some(chunk) = chunks.next().await {
        match chunk {
            Ok(bytes) => end.write_all(&bytes).await?,
            Err(error) => {
                outcome = Err(Broken::Store(error));
                break;
            }
        }
    }
    // What has come is kept, whatever happens next.
    end.flush().await?;
    end.sync_data().await?;
    outcome
}

/// Whether what is sent is what was listed, as far as the store tells.
fn is_same(listed: &ObjectMeta, sent: &ObjectMeta) -> bool {
    let (seconds, sent_seconds) =
        (listed.last_modified.timestamp(), sent.last_modified.timestamp());
    let is_same_state = match (tag(listed), tag(sent)) {
        (Some(listed), Some(sent)) => listed == sent,
        // Headers have whole seconds, or none at all.
        _ => seconds == sent_seconds || sent_seconds == 0,
    };
    listed.size == sent.size && is_same_state
}

/// An object's tag without what is around it: some listings leave the quotes away.
fn tag(object: &ObjectMeta) -> Option<&str> {
    let tag = object.e_tag.as_deref()?;
    Some(tag.trim_start_matches("W/").trim_matches('"'))
}

impl Broken {
    /// What it is like, as an error of the system.
    pub(super) fn kind(&self) -> ErrorKind {
        match self {
            Self::Store(error) => kind(error),
            Self::Local(error) => error.kind(),
            // Whoever lists it again sees what it is now.
            Self::Changed => ErrorKind::Interrupted,
            Self::Length { .. } => ErrorKind::UnexpectedEof,
        }
    }

    /// Whether trying again would lead to the same.
    fn is_final(&self) -> bool {
        match self {
            Self::Store(error) => matches!(
                error,
                Error::NotFound { .. }
                    | Error::PermissionDenied { .. }
                    | Error::Unauthenticated { .. }
                    | Error::NotImplemented { .. }
                    | Error::UnknownConfigurationKey { .. }
            ),
            Self::Local(_) | Self::Changed => true,
            Self::Length { have, size } => have > size,
        }
    }
}
