//! TLS of the listeners, and what becomes of it while the server runs.

use std::convert::Infallible;
use std::future::ready;
use std::sync::Arc;

use tokio::task::JoinHandle;

use crate::causes;
use crate::config::ServerConfig;
use crate::lifecycle::{Event, EventBus, Resource};
use crate::tls::{Tls, TlsError};

/// The TLS of the configuration, where there is to be one. Blocks while its files are read.
///
/// # Errors
/// [`TlsError`].
pub(super) fn open(config: &ServerConfig) -> Result<Option<Arc<Tls>>, TlsError> {
    config.tls().map(Tls::open).transpose().map(|tls| tls.map(Arc::new))
}

/// The task that notices when files have changed.
pub(super) fn following(tls: &Arc<Tls>, events: &EventBus) -> Resource<JoinHandle<()>> {
    let (tls, events) = (Arc::clone(tls), events.clone());
    let init = move || {
        let (tls, events) = (Arc::clone(&tls), events.clone());
        let following = tls.follow(move |result| tell(&events, result));
        ready(Ok::<_, Infallible>(tokio::spawn(following)))
    };
    let follower = Resource::new("tls", init).lasting().not_critical();
    let follower = follower.check(|following| {
        let ended = following.is_finished();
        ready(if ended { Err("its files are no longer followed".to_owned()) } else { Ok(()) })
    });
    follower.clean(|following| {
        following.abort();
        ready(Ok::<_, Infallible>(()))
    })
}

/// Reads the files anew, because somebody has asked for it.
pub(super) fn reload(tls: &Tls, events: &EventBus) {
    match tls.reload() {
        Ok(same) if same.is_empty() => {}
        other => tell(events, other),
    }
}

fn tell(events: &EventBus, result: Result<Vec<&'static str>, TlsError>) {
    let (changed, detail) = match result {
        Ok(changed) => (changed.into_iter().map(str::to_owned).collect(), String::new()),
        Err(error) => (Vec::new(), causes::of_error(&error)),
    };
    events.publish(Event::Configuration { changed, ignored: Vec::new(), detail });
}
