//! The states of one model version and the one function that moves between them.

use std::fmt;

/// Where a version is in its life. `S` is what serves requests; only a state that serves has it.
///
/// ```text
/// NEW -> FETCHING -> VERIFYING -> LOADING -> WARMING -> READY -> DRAINING -> UNLOADING -> UNLOADED
///            |           |           |          |
///            +-----------+-----+-----+----------+
///                              v
///                            FAILED
/// ```
///
/// Forbidden: failing after READY (what serves goes on serving until it is retired), and any way out
/// of FAILED or UNLOADED (a new attempt is a new record).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionState<S> {
    /// Nothing was done yet.
    New,
    /// Its files are brought to local disk.
    Fetching,
    /// Its files are checked.
    Verifying,
    /// The engine reads it.
    Loading,
    /// Its instances answer their first requests.
    Warming,
    /// It takes requests.
    Ready(S),
    /// It finishes the requests it has and takes no new one.
    Draining(S),
    /// Its memory is given back.
    Unloading,
    /// Nothing of it is left.
    Unloaded,
    /// It could not be made ready.
    Failed(FailureReason),
}

/// Why a version could not be made ready, in words that tell what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailureReason {
    /// The state in which it failed.
    pub phase: StateKind,
    /// The whole chain of causes.
    pub message: String,
}

/// What happens to a version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionEvent<S> {
    /// Fetching begins.
    Fetch,
    /// The files are on local disk.
    Fetched,
    /// The files are what they should be.
    Verified,
    /// The engine has read it.
    Loaded,
    /// It has answered its warm-up.
    Warmed(S),
    /// It is to take no new request.
    Retire,
    /// Its last request was answered.
    Drained,
    /// Its memory was given back.
    Released,
    /// A step on the way to READY failed.
    Fail(String),
}

/// A state without its data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "each is documented on VersionState")]
pub enum StateKind {
    New,
    Fetching,
    Verifying,
    Loading,
    Warming,
    Ready,
    Draining,
    Unloading,
    Unloaded,
    Failed,
}

/// An event that the state does not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event} is not possible in state {state}")]
pub struct IllegalTransition {
    /// The state the version is in.
    pub state: StateKind,
    /// The event that was refused.
    pub event: &'static str,
}

impl StateKind {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 10] = [
        Self::New,
        Self::Fetching,
        Self::Verifying,
        Self::Loading,
        Self::Warming,
        Self::Ready,
        Self::Draining,
        Self::Unloading,
        Self::Unloaded,
        Self::Failed,
    ];

    /// The state's name, such as `READY`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::New => "NEW",
            Self::Fetching => "FETCHING",
            Self::Verifying => "VERIFYING",
            Self::Loading => "LOADING",
            Self::Warming => "WARMING",
            Self::Ready => "READY",
            Self::Draining => "DRAINING",
            Self::Unloading => "UNLOADING",
            Self::Unloaded => "UNLOADED",
            Self::Failed => "FAILED",
        }
    }
}

impl fmt::Display for StateKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl<S> VersionEvent<S> {
    /// The event's name, such as `fetch`.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Fetched => "fetched",
            Self::Verified => "verified",
            Self::Loaded => "loaded",
            Self::Warmed(_) => "warmed",
            Self::Retire => "retire",
            Self::Drained => "drained",
            Self::Released => "released",
            Self::Fail(_) => "fail",
        }
    }
}

impl<S: Clone> VersionState<S> {
    /// The state without its data.
    pub const fn kind(&self) -> StateKind {
        match self {
            Self::New => StateKind::New,
            Self::Fetching => StateKind::Fetching,
            Self::Verifying => StateKind::Verifying,
            Self::Loading => StateKind::Loading,
            Self::Warming => StateKind::Warming,
            Self::Ready(_) => StateKind::Ready,
            Self::Draining(_) => StateKind::Draining,
            Self::Unloading => StateKind::Unloading,
            Self::Unloaded => StateKind::Unloaded,
            Self::Failed(_) => StateKind::Failed,
        }
    }

    /// The state after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`] for every pair that the drawing on [`VersionState`] does not have.
    pub fn next(&self, event: VersionEvent<S>) -> Result<Self, IllegalTransition> {
        use VersionEvent as E;
        match (self, event) {
            (Self::New, E::Fetch) => Ok(Self::Fetching),
            (Self::Fetching, E::Fetched) => Ok(Self::Verifying),
            (Self::Verifying, E::Verified) => Ok(Self::Loading),
            (Self::Loading, E::Loaded) => Ok(Self::Warming),
            (Self::Warming, E::Warmed(serving)) => Ok(Self::Ready(serving)),
            (Self::Ready(serving), E::Retire) => Ok(Self::Draining(serving.clone())),
            (Self::Draining(_), E::Drained) => Ok(Self::Unloading),
            (Self::Unloading, E::Released) => Ok(Self::Unloaded),
            (
                Self::Fetching | Self::Verifying | Self::Loading | Self::Warming,
                E::Fail(message),
            ) => Ok(Self::Failed(FailureReason { phase: self.kind(), message })),
            (state, event) => Err(IllegalTransition { state: state.kind(), event: event.name() }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type State = VersionState<()>;
    type Event = VersionEvent<()>;

    fn states() -> Vec<State> {
        let reason = FailureReason { phase: StateKind::Loading, message: "bad".to_owned() };
        vec![
            State::New,
            State::Fetching,
            State::Verifying,
            State::Loading,
            State::Warming,
            State::Ready(()),
            State::Draining(()),
            State::Unloading,
            State::Unloaded,
            State::Failed(reason),
        ]
    }

    fn events() -> Vec<Event> {
        vec![
            Event::Fetch,
            Event::Fetched,
            Event::Verified,
            Event::Loaded,
            Event::Warmed(()),
            Event::Retire,
            Event::Drained,
            Event::Released,
            Event::Fail("bad".to_owned()),
        ]
    }

    #[test]
    fn every_state_and_event() {
        use StateKind as K;
        const NO: Option<K> = None;
        const FAIL: Option<K> = Some(K::Failed);
        let table = [
            [Some(K::Fetching), NO, NO, NO, NO, NO, NO, NO, NO],
            [NO, Some(K::Verifying), NO, NO, NO, NO, NO, NO, FAIL],
            [NO, NO, Some(K::Loading), NO, NO, NO, NO, NO, FAIL],
            [NO, NO, NO, Some(K::Warming), NO, NO, NO, NO, FAIL],
            [NO, NO, NO, NO, Some(K::Ready), NO, NO, NO, FAIL],
            [NO, NO, NO, NO, NO, Some(K::Draining), NO, NO, NO],
            [NO, NO, NO, NO, NO, NO, Some(K::Unloading), NO, NO],
            [NO, NO, NO, NO, NO, NO, NO, Some(K::Unloaded), NO],
            [NO; 9],
            [NO; 9],
        ];
        for (state, row) in states().iter().zip(table) {
            for (event, expected) in events().into_iter().zip(row) {
                let refusal = IllegalTransition { state: state.kind(), event: event.name() };
                let next = state.next(event).map(|next| next.kind());
                assert_eq!(next, expected.ok_or(refusal), "{refusal}");
            }
        }
    }

    #[test]
    fn a_failure_remembers_the_phase() {
        let failed = State::Warming.next(Event::Fail("NaN".to_owned())).unwrap();
        let reason = FailureReason { phase: StateKind::Warming, message: "NaN".to_owned() };
        assert_eq!(failed, State::Failed(reason));
    }
}
