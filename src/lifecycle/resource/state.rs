//! A resource's states and the one function that moves between them.

use std::fmt;

/// Where a resource is in its life.
///
/// ```text
/// UNINITIALIZED -> INITIALIZING -> READY <-> DEGRADED
///                    ^   |           |          |
///                    |   v           +----+-----+
///                    | FAILED <-+         v
///                    |   |      +----- CLEANING -> CLEANED
///                    +---+----------------------------+
/// ```
///
/// Forbidden: cleaning what was not set up, and cleaning twice what was set up once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResourceState {
    /// Registered only.
    Uninitialized,
    /// Its initialiser runs, or waits to be tried again.
    Initializing,
    /// In use.
    Ready,
    /// In use, but its health check fails.
    Degraded,
    /// Its cleaner runs.
    Cleaning,
    /// Its cleaner has run.
    Cleaned,
    /// Its initialiser or its cleaner failed.
    Failed,
}

/// What happens to a resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ResourceEvent {
    /// Its initialiser begins.
    Initialize,
    /// Its initialiser has succeeded.
    Initialized,
    /// Its health check fails.
    Degrade,
    /// Its health check passes again.
    Recover,
    /// Its cleaner begins.
    Clean,
    /// Its cleaner has succeeded.
    Cleaned,
    /// Its initialiser or its cleaner failed.
    Fail,
}

/// An event that the state does not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible in state {state}")]
pub struct IllegalResourceTransition {
    /// The state the resource is in.
    pub state: ResourceState,
    /// The event it does not admit.
    pub event: ResourceEvent,
}

impl ResourceState {
    /// Every state.
    pub const ALL: [Self; 7] = [
        Self::Uninitialized,
        Self::Initializing,
        Self::Ready,
        Self::Degraded,
        Self::Cleaning,
        Self::Cleaned,
        Self::Failed,
    ];

    /// The state after an event.
    ///
    /// # Errors
    /// [`IllegalResourceTransition`].
    pub const fn next(self, event: ResourceEvent) -> Result<Self, IllegalResourceTransition> {
        use ResourceEvent as E;
        Ok(match (self, event) {
            (Self::Uninitialized | Self::Cleaned | Self::Failed, E::Initialize) => {
                Self::Initializing
            }
            (Self::Initializing, E::Initialized) | (Self::Degraded, E::Recover) => Self::Ready,
            (Self::Ready, E::Degrade) => Self::Degraded,
            (Self::Ready | Self::Degraded, E::Clean) => Self::Cleaning,
            (Self::Cleaning, E::Cleaned) => Self::Cleaned,
            (Self::Initializing | Self::Cleaning, E::Fail) => Self::Failed,
            (state, event) => return Err(IllegalResourceTransition { state, event }),
        })
    }

    /// Whether there is something to use, and to clean up.
    pub const fn is_live(self) -> bool {
        matches!(self, Self::Ready | Self::Degraded)
    }

    /// The state's name, such as `READY`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uninitialized => "UNINITIALIZED",
            Self::Initializing => "INITIALIZING",
            Self::Ready => "READY",
            Self::Degraded => "DEGRADED",
            Self::Cleaning => "CLEANING",
            Self::Cleaned => "CLEANED",
            Self::Failed => "FAILED",
        }
    }
}

impl fmt::Display for ResourceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [ResourceEvent; 7] = [
        ResourceEvent::Initialize,
        ResourceEvent::Initialized,
        ResourceEvent::Degrade,
        ResourceEvent::Recover,
        ResourceEvent::Clean,
        ResourceEvent::Cleaned,
        ResourceEvent::Fail,
    ];

    /// Rows in the order of [`ResourceState::ALL`], columns in the order of `EVENTS`.
    const TABLE: [[Option<ResourceState>; 7]; 7] = {
        use ResourceState as S;
        const NO: Option<ResourceState> = None;
        const BEGIN: Option<ResourceState> = Some(S::Initializing);
        const CLEAN: Option<ResourceState> = Some(S::Cleaning);
        const FAIL: Option<ResourceState> = Some(S::Failed);
        [
            [BEGIN, NO, NO, NO, NO, NO, NO],
            [NO, Some(S::Ready), NO, NO, NO, NO, FAIL],
            [NO, NO, Some(S::Degraded), NO, CLEAN, NO, NO],
            [NO, NO, NO, Some(S::Ready), CLEAN, NO, NO],
            [NO, NO, NO, NO, NO, Some(S::Cleaned), FAIL],
            [BEGIN, NO, NO, NO, NO, NO, NO],
            [BEGIN, NO, NO, NO, NO, NO, NO],
        ]
    };

    #[test]
    fn every_state_and_event() {
        for (state, row) in ResourceState::ALL.into_iter().zip(TABLE) {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let expected = expected.ok_or(IllegalResourceTransition { state, event });
                assert_eq!(state.next(event), expected, "{state} on {event:?}");
            }
        }
    }

    proptest! {
        /// Whatever happens in whatever order: what is cleaned was set up, once each time.
        #[test]
        fn any_sequence_of_events(events in prop::collection::vec(prop::sample::select(&EVENTS), 0..64)) {
            let (mut state, mut set_up, mut cleaned) = (ResourceState::Uninitialized, 0, 0);
            for event in events {
                let Ok(next) = state.next(event) else { continue };
                match event {
                    ResourceEvent::Initialized => set_up += 1,
                    ResourceEvent::Clean => cleaned += 1,
                    _ => {}
                }
                state = next;
                prop_assert_eq!(set_up - cleaned, i32::from(state.is_live()));
            }
        }
    }
}
