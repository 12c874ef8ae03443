//! The application's states and the one function that moves between them.

use std::fmt;

/// Where an application is in its life.
///
/// ```text
/// UNINITIALIZED -> INITIALIZING -> READY -> STARTING -> RUNNING -> STOPPING -> STOPPED
///                        |           |         |           |          |
///                        +-----------+----+----+-----------+----------+
///                                         v
///                                       ERROR ------> STOPPING
/// ```
///
/// READY, STARTING and INITIALIZING may go to STOPPING too, so that an early signal still cleans up.
/// Forbidden: skipping a state on the way up, leaving STOPPED, and any way back to RUNNING.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppState {
    /// Nothing was done yet.
    Uninitialized,
    /// Resources are being initialised and listeners bound.
    Initializing,
    /// Initialised, not started.
    Ready,
    /// Start-up handlers run.
    Starting,
    /// Serving.
    Running,
    /// Draining, then cleaning up.
    Stopping,
    /// Everything was cleaned up.
    Stopped,
    /// A step failed; only clean-up is left.
    Error,
}

/// What happens to an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AppEvent {
    /// Initialisation begins.
    Initialize,
    /// Initialisation is complete.
    Initialized,
    /// Start-up begins.
    Start,
    /// Start-up is complete.
    Started,
    /// Shutdown begins.
    Stop,
    /// Shutdown is complete.
    Stopped,
    /// A step failed.
    Fail,
}

/// An event that the state does not admit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{event:?} is not possible in state {state}")]
pub struct IllegalTransition {
    /// The state the application is in.
    pub state: AppState,
    /// The event that was refused.
    pub event: AppEvent,
}

impl AppState {
    /// Every state, in the order of a life.
    pub const ALL: [Self; 8] = [
        Self::Uninitialized,
        Self::Initializing,
        Self::Ready,
        Self::Starting,
        Self::Running,
        Self::Stopping,
        Self::Stopped,
        Self::Error,
    ];

    /// The state after `event`.
    ///
    /// # Errors
    /// [`IllegalTransition`] for every pair that the drawing on [`AppState`] does not have.
    pub const fn next(self, event: AppEvent) -> Result<Self, IllegalTransition> {
        use AppEvent as E;
        match (self, event) {
            (Self::Uninitialized, E::Initialize) => Ok(Self::Initializing),
            (Self::Initializing, E::Initialized) => Ok(Self::Ready),
            (Self::Ready, E::Start) => Ok(Self::Starting),
            (Self::Starting, E::Started) => Ok(Self::Running),
            (
                Self::Initializing | Self::Ready | Self::Starting | Self::Running | Self::Error,
                E::Stop,
            ) => Ok(Self::Stopping),
            (Self::Stopping, E::Stopped) => Ok(Self::Stopped),
            (
                Self::Initializing | Self::Ready | Self::Starting | Self::Running | Self::Stopping,
                E::Fail,
            ) => Ok(Self::Error),
            (state, event) => Err(IllegalTransition { state, event }),
        }
    }

    /// The state's name, such as `RUNNING`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uninitialized => "UNINITIALIZED",
            Self::Initializing => "INITIALIZING",
            Self::Ready => "READY",
            Self::Starting => "STARTING",
            Self::Running => "RUNNING",
            Self::Stopping => "STOPPING",
            Self::Stopped => "STOPPED",
            Self::Error => "ERROR",
        }
    }
}

impl fmt::Display for AppState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const EVENTS: [AppEvent; 7] = [
        AppEvent::Initialize,
        AppEvent::Initialized,
        AppEvent::Start,
        AppEvent::Started,
        AppEvent::Stop,
        AppEvent::Stopped,
        AppEvent::Fail,
    ];

    /// Rows in the order of [`AppState::ALL`], columns in the order of `EVENTS`.
    const TABLE: [[Option<AppState>; 7]; 8] = {
        use AppState as S;
        const NO: Option<AppState> = None;
        const STOP: Option<AppState> = Some(S::Stopping);
        const FAIL: Option<AppState> = Some(S::Error);
        [
            [Some(S::Initializing), NO, NO, NO, NO, NO, NO],
            [NO, Some(S::Ready), NO, NO, STOP, NO, FAIL],
            [NO, NO, Some(S::Starting), NO, STOP, NO, FAIL],
            [NO, NO, NO, Some(S::Running), STOP, NO, FAIL],
            [NO, NO, NO, NO, STOP, NO, FAIL],
            [NO, NO, NO, NO, NO, Some(S::Stopped), FAIL],
            [NO, NO, NO, NO, NO, NO, NO],
            [NO, NO, NO, NO, STOP, NO, NO],
        ]
    };

    #[test]
    fn every_state_and_event() {
        for (state, row) in AppState::ALL.into_iter().zip(TABLE) {
            for (event, expected) in EVENTS.into_iter().zip(row) {
                let expected = expected.ok_or(IllegalTransition { state, event });
                assert_eq!(state.next(event), expected, "{state} on {event:?}");
            }
        }
    }

    /// How far up a state is; the way down has no number.
    fn height(state: AppState) -> Option<usize> {
        AppState::ALL[..5].iter().position(|known| *known == state)
    }

    proptest! {
        /// Whatever happens in whatever order: states are climbed one at a time, nothing leaves
        /// STOPPED, and nothing that stops runs again.
        #[test]
        fn any_sequence_of_events(events in prop::collection::vec(prop::sample::select(&EVENTS), 0..64)) {
            let (mut state, mut going_down) = (AppState::Uninitialized, false);
            for event in events {
                let Ok(next) = state.next(event) else { continue };
                prop_assert_ne!(state, AppState::Stopped);
                match (height(state), height(next)) {
                    (Some(before), Some(after)) => prop_assert_eq!(after, before + 1),
                    (_, None) => going_down = true,
                    (None, Some(_)) => prop_assert!(false, "{} went up to {}", state, next),
                }
                prop_assert_eq!(going_down, height(next).is_none());
                state = next;
            }
        }
    }
}
