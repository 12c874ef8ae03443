//! What is written down: every change, and everything that was denied.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tracing::{info, warn};

use crate::lifecycle::{Event, EventBus};

/// How many events of denied requests there are at most in a window; lines of the log are for all.
const FAILURES: u64 = 10;
const WINDOW: Duration = Duration::from_mins(1);

/// What is answered without a good credential: the status of HTTP, and the code of gRPC.
const UNAUTHENTICATED: [u16; 2] = [401, 16];

/// What is answered to who may not do it.
const FORBIDDEN: [u16; 2] = [403, 7];

/// The longest path that is written down, in bytes.
const LONGEST: usize = 256;

/// Whether somebody was answered so who may not do what they wanted: by a status of HTTP, or a code of gRPC.
pub fn is_denied(status: u16) -> bool {
    UNAUTHENTICATED.contains(&status) || FORBIDDEN.contains(&status)
}

/// What somebody wants to do.
#[derive(Debug, Clone)]
pub struct Act {
    /// Who, such as `key:ci`; never a credential.
    pub who: String,
    /// The method of the request, or `gRPC`.
    pub method: String,
    /// Its path.
    pub path: String,
    /// The model that it names.
    pub model: Option<String>,
    /// The other end of the connection.
    pub peer: SocketAddr,
    /// What the request is found by in the log, and by its caller.
    pub request_id: Option<String>,
}

/// Writes into the log and into the stream of events.
#[derive(Debug)]
pub struct Audit {
    events: EventBus,
    failures: Mutex<Failures>,
    /// Those that were denied for want of a credential, and those that were not for their caller.
    unauthenticated: AtomicU64,
    forbidden: AtomicU64,
}

/// Failures since the window began.
#[derive(Debug, Default)]
struct Failures {
    since: Option<Instant>,
    told: u64,
    /// Those of which there was no event.
    untold: u64,
}

impl Failures {
    /// Whether there is to be an event of one more, and how many went without before it.
    fn one_more(&mut self, now: Instant) -> Option<u64> {
        if self.since.is_none_or(|since| now.duration_since(since) >= WINDOW) {
            (self.since, self.told) = (Some(now), 0);
        }
        if self.told < FAILURES {
            self.told += 1;
            return Some(std::mem::take(&mut self.untold));
        }
        self.untold += 1;
        None
    }
}

impl Audit {
    /// One that publishes there.
    pub fn new(events: EventBus) -> Self {
        let (failures, unauthenticated, forbidden) = Default::default();
        Self { events, failures, unauthenticated, forbidden }
    }

    /// How many requests were denied by now, by why.
    pub fn report(&self) -> [(&'static str, u64); 2] {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        [("unauthenticated", read(&self.unauthenticated)), ("forbidden", read(&self.forbidden))]
    }

    /// A change that is about to be made.
    pub fn change(self: &Arc<Self>, act: Act) -> Pending {
        Pending { audit: Arc::clone(self), act: Some(bounded(act)) }
    }

    /// Writes down that something was denied, and why.
    pub fn denied(&self, act: Act, status: u16, reason: &str) {
        let act = bounded(act);
        let is_unknown = UNAUTHENTICATED.contains(&status);
        let count = if is_unknown { &self.unauthenticated } else { &self.forbidden };
        count.fetch_add(1, Ordering::Relaxed);
        let Act { who, method, path, model, peer, request_id } = &act;
        warn!(
            target: "onward::audit",
            who, method, path, model, %peer, status, request_id, reason, "denied"
        );
        let mut failures = self.failures.lock().unwrap_or_else(PoisonError::into_inner);
        let untold = failures.one_more(Instant::now());
        drop(failures);
        if let Some(untold) = untold {
            self.publish(act, Some(status), untold);
        }
    }

    /// Writes down a change that its handler has answered.
    fn answered(&self, act: Act, status: u16) {
        if is_denied(status) {
            self.denied(act, status, "not for this caller");
        } else {
            self.changed(act, Some(status));
        }
    }

    fn changed(&self, act: Act, status: Option<u16>) {
        let Act { who, method, path, model, peer, request_id } = &act;
        info!(
            target: "onward::audit",
            who, method, path, model, %peer, status, request_id, "change"
        );
        self.publish(act, status, 0);
    }

    fn publish(&self, act: Act, status: Option<u16>, untold: u64) {
        let Act { who, method, path, model, peer, request_id } = act;
        let peer = peer.to_string();
        let event = Event::Audit { who, method, path, model, peer, request_id, status, untold };
        self.events.publish(event);
    }
}

/// A change whose answer is not known yet. Where it is dropped before, whoever asked for it did not wait,
/// and that is written down.
#[must_use]
#[derive(Debug)]
pub struct Pending {
    audit: Arc<Audit>,
    act: Option<Act>,
}

impl Pending {
    /// Names the model, where only the message does.
    pub fn named(&mut self, model: &str) {
        if let Some(act) = &mut self.act {
            act.model = Some(shortened(model));
        }
    }

    /// Writes nothing down: it was not a change.
    pub fn withdraw(mut self) {
        self.act = None;
    }

    /// Writes down how it was answered, which may be that it was denied: a status of HTTP, or a code of gRPC.
    pub fn answered(mut self, status: u16) {
        if let Some(act) = self.act.take() {
            self.audit.answered(act, status);
        }
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        if let Some(act) = self.act.take() {
            self.audit.changed(act, None);
        }
    }
}

/// Without what a caller can make as long as they like.
fn bounded(act: Act) -> Act {
    let model = act.model.map(|model| shortened(&model));
    Act { path: shortened(&act.path), model, ..act }
}

fn shortened(text: &str) -> String {
    if text.len() <= LONGEST {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(LONGEST)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_of_failures_are_bounded() {
        let (mut failures, begin) = (Failures::default(), Instant::now());
        let told = (0..1000).filter(|_| failures.one_more(begin).is_some()).count();
        assert_eq!(u64::try_from(told), Ok(FAILURES));
        assert_eq!(failures.one_more(begin + WINDOW), Some(1000 - FAILURES));
        assert_eq!(failures.one_more(begin + WINDOW), Some(0));
    }

    #[test]
    fn what_a_caller_makes_up_is_cut_short() {
        assert_eq!(shortened("/v2"), "/v2");
        assert!(shortened(&"ü".repeat(5000)).len() <= LONGEST + 3);
    }
}
