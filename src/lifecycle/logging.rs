//! What of the log is written, as operators change it while the program runs.

use std::fmt;

/// What is written at the moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogSettings {
    /// Whether lines of the level INFO are.
    pub info: bool,
    /// Whether those of WARN are.
    pub warning: bool,
    /// Whether those of ERROR are.
    pub error: bool,
    /// Zero for no more than that, one for DEBUG too, two and above for TRACE too.
    pub verbose: u32,
}

/// What is to be written from now on; what is `None` stays as it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LogChange {
    /// Lines of the level INFO.
    pub info: Option<bool>,
    /// Those of WARN.
    pub warning: Option<bool>,
    /// Those of ERROR.
    pub error: Option<bool>,
    /// As in [`LogSettings`].
    pub verbose: Option<u32>,
}

impl LogChange {
    /// This, and of `before` what this is silent about.
    #[must_use]
    pub fn over(self, before: Self) -> Self {
        Self {
            info: self.info.or(before.info),
            warning: self.warning.or(before.warning),
            error: self.error.or(before.error),
            verbose: self.verbose.or(before.verbose),
        }
    }
}

/// Who decides what of the log is written.
pub trait LogControl: fmt::Debug + Send + Sync {
    /// What is written at the moment.
    fn settings(&self) -> LogSettings;

    /// Changes it, for everything that is logged from now on; nothing where that fails.
    ///
    /// # Errors
    /// Why it cannot be changed, in words.
    fn change(&self, change: LogChange) -> Result<(), String>;
}
