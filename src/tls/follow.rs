//! Noticing that the files have changed.

use std::sync::Arc;

use tokio::task::spawn_blocking;
use tokio::time::interval;

use super::files::{Content, TlsError};
use super::{Tls, TlsFiles};
use crate::settled::{LOOK, Settled};

impl Tls {
    /// Takes what the files say whenever that has changed, and tells what has become of it: the settings
    /// whose files say something else, or why what was in use stays so.
    ///
    /// Cancel safe.
    pub async fn follow(self: Arc<Self>, tell: impl Fn(Result<Vec<&'static str>, TlsError>)) {
        let mut looks = interval(LOOK);
        let mut in_use = self.in_use().clone();
        let mut found = Settled::begin(Some(in_use.clone()));
        loop {
            looks.tick().await;
            let now = self.in_use().clone();
            if now != in_use {
                found.took(Some(now.clone()));
                in_use = now;
            }
            let read = look(self.files.clone()).await;
            if found.look(&read.as_ref().ok().cloned(), false) {
                match read.and_then(|content| self.take(content)) {
                    // They were put back, or read for somebody who has asked.
                    Ok(same) if same.is_empty() => {}
                    other => tell(other),
                }
            }
        }
    }
}

async fn look(files: TlsFiles) -> Result<Content, TlsError> {
    let read = spawn_blocking(move || files.read()).await;
    read.expect("reading files does not panic, and nobody aborts it")
}
