//! An object on its way to local disk, out of the cache or out of the store.

use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use object_store::{Error, ObjectMeta};
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::cache::Cache;
use super::download::{self, Broken};
use super::part::Part;
use super::store::{Store, failed};
use crate::model::SourceError;

/// How long another's download is waited for while it gets no further.
const PATIENCE: Duration = Duration::from_mins(5);

/// How often it is looked at. Nothing tells of what another process has done.
const GLANCE: Duration = Duration::from_millis(50);

/// What becomes a file.
#[derive(Debug, Clone)]
pub(super) struct Delivery {
    pub(super) store: Store,
    pub(super) cache: Arc<Cache>,
    pub(super) object: ObjectMeta,
    /// Where it is to be. Its folder is there, and nobody else writes it.
    pub(super) target: PathBuf,
}

impl Delivery {
    /// Puts it there. Whoever wants the same at the same time waits for this one, also in another process.
    pub(super) async fn run(self) -> Result<(), SourceError> {
        let (mut seen, mut since) = (0, Instant::now());
        loop {
            if self.is_cached().await? {
                debug!(object = %self.object.location, "is in the cache");
                return Ok(());
            }
            if let Some(part) = self.cache.part(&self.object).map_err(self.local())? {
                // Whoever had it may have ended just now.
                if !self.is_cached().await? {
                    return self.download(part).await;
                }
                part.tidy();
                return Ok(());
            }
            let progress = self.cache.progress(&self.object);
            if progress != seen {
                (seen, since) = (progress, Instant::now());
            }
            if since.elapsed() > PATIENCE {
                let problem = "another process downloads it, and gets no further";
                return Err(failed(&self.object.location, (ErrorKind::TimedOut, problem)));
            }
            sleep(GLANCE).await;
        }
    }

    async fn is_cached(&self) -> Result<bool, SourceError> {
        self.blocking(|this| this.cache.place(&this.object, &this.target)).await
    }

    async fn download(&self, part: Part) -> Result<(), SourceError> {
        // Then neither is gone on with what was there before, nor kept in mind what it is.
        let is_vague = self.store.is_vague(&self.object);
        if is_vague {
            part.clear().map_err(self.local())?;
        }
        match download::fill(self.store.client.as_ref(), &self.object, &part).await {
            Ok(()) => {}
            Err(broken) => {
                part.tidy();
                return self.given_up(broken);
            }
        }
        let take_in = move |this: &Self| {
            let digest = this.cache.take_in(&part, &this.target)?;
            if is_vague { Ok(()) } else { this.cache.remember(&this.object, &digest) }
        };
        self.blocking(take_in).await
    }

    fn given_up(&self, broken: Broken) -> Result<(), SourceError> {
        match broken {
            // What some tools put in the place of a folder; its name ends with a slash.
            Broken::Store(Error::NotFound { .. }) if self.object.size == 0 => Ok(()),
            Broken::Local(error) => Err(self.local()(error)),
            broken => Err(failed(&self.object.location, (broken.kind(), broken))),
        }
    }

    /// Large files take their time to be read, and others are being downloaded on this thread.
    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, SourceError> {
        let this = self.clone();
        let done = spawn_blocking(move || work(&this)).await;
        done.unwrap_or_else(|error| Err(io::Error::other(error))).map_err(self.local())
    }

    fn local(&self) -> impl Fn(io::Error) -> SourceError + '_ {
        |error| self.cache.unwritable(self.object.location.as_ref(), error)
    }
}
