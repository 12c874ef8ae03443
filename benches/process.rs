//! The memory of a process. Linux only.

#![allow(dead_code, reason = "each benchmark takes its pick")]

use anyhow::{Context, Result};

/// What a process has of the machine's memory, in units of 10^6 bytes.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct Memory {
    pub(crate) resident: f64,
    /// The part of `resident` that no file backs.
    pub(crate) anonymous: f64,
    /// The most that `resident` ever was.
    pub(crate) peak: f64,
}

impl Memory {
    pub(crate) fn of(process: u32) -> Result<Self> {
        let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
        let megabytes = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let kibibytes =
                line.and_then(|rest| rest.trim_matches([':', '\t', ' ']).strip_suffix(" kB"));
            let kibibytes = kibibytes.with_context(|| format!("the status has no {name}"))?;
            Ok::<f64, anyhow::Error>(kibibytes.trim().parse::<f64>()? * 1024.0 / 1e6)
        };
        Ok(Self {
            resident: megabytes("VmRSS")?,
            anonymous: megabytes("RssAnon")?,
            peak: megabytes("VmHWM")?,
        })
    }
}

/// The processor's time that a process has had, in seconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Time {
    /// In its own code.
    pub(crate) user: f64,
    /// In the kernel for it.
    pub(crate) system: f64,
}

/// What the kernel counts such time in, for programs: hundredths of a second.
const TICKS: f64 = 100.0;

impl Time {
    pub(crate) fn of(process: u32) -> Result<Self> {
        let text = std::fs::read_to_string(format!("/proc/{process}/stat"))?;
        // What comes before is the program's name, which may have spaces.
        let (_, fields) = text.rsplit_once(')').context("the name is in parentheses")?;
        let mut fields = fields.split_whitespace().skip(11).map(str::parse::<f64>);
        let mut seconds = || fields.next().context("it has such a field");
        Ok(Self { user: seconds()?? / TICKS, system: seconds()?? / TICKS })
    }

    /// What came after that.
    pub(crate) fn since(self, before: Self) -> Self {
        Self { user: self.user - before.user, system: self.system - before.system }
    }
}
