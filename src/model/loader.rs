//! Where models come from, and what is said about them beside their files.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::batching::BatchingSettings;
use super::declared::DeclaredSignature;
use super::ensemble::EnsembleDefinition;
use super::golden::GoldenSample;
use super::hints::Hints;
use super::names::{ModelName, Version, VersionId};
use super::overriding::{Laid, Overrides};
use crate::inference::{ExecutionProvider, ModelFiles, Signature};

/// The most instances that a version may have.
pub const MOST_INSTANCES: usize = 256;

/// Which of the versions there are should be served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum VersionPolicy {
    /// The so many highest.
    Latest(NonZeroUsize),
    /// All of them.
    All,
    /// Exactly these; each must be there.
    Specific(Vec<Version>),
}

impl Default for VersionPolicy {
    fn default() -> Self {
        Self::Latest(NonZeroUsize::MIN)
    }
}

impl VersionPolicy {
    /// The versions to serve, lowest first. `available` is sorted.
    pub fn select(&self, available: &[Version]) -> Vec<Version> {
        match self {
            Self::Latest(count) => {
                available[available.len().saturating_sub(count.get())..].to_vec()
            }
            Self::All => available.to_vec(),
            Self::Specific(wanted) => {
                let mut wanted = wanted.clone();
                wanted.sort_unstable();
                wanted.dedup();
                wanted
            }
        }
    }
}

/// How one model is to be served; the server's defaults hold where it is silent.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ModelSettings {
    /// Which versions to load when none is named.
    pub version_policy: VersionPolicy,
    /// Instances per version.
    pub instances: Option<NonZeroUsize>,
    /// What runs the model's nodes; the engine's default where there is none.
    pub execution_providers: Vec<ExecutionProvider>,
    /// Requests that may wait per version.
    pub queue_capacity: Option<NonZeroUsize>,
    /// What a version must answer before it is ready.
    pub warm_up: WarmUp,
    /// The sizes of the batches of a generated warm-up, for models with a free first dimension.
    pub warm_up_batches: Vec<NonZeroUsize>,
    /// How long the warm-up by batches may take; what it has not come to by then is left out.
    pub warm_up_budget: Option<Duration>,
    /// Whether it is loaded only when the first request for it comes.
    pub lazy: bool,
    /// Whether it is never evicted.
    pub pin: bool,
    /// How long it may be unused before it is evicted; the manager's default where `None`, zero for
    /// ever.
    pub idle_ttl: Option<Duration>,
    /// What the graph's signature has to be.
    pub declared: Option<DeclaredSignature>,
    /// The largest batch, where somebody has said; zero for a model without batches.
    pub max_batch_size: Option<u32>,
    /// How its requests share runs.
    pub batching: BatchingSettings,
    /// The priority of requests that name none.
    pub default_priority: Option<NonZeroU32>,
    /// Whether its answers are kept for requests that come again.
    pub response_cache: bool,
    /// What each place of an output means, by the output's name.
    pub labels: BTreeMap<String, Labels>,
    /// What it is made of, where it is an ensemble.
    pub ensemble: Option<EnsembleDefinition>,
    /// What was set and is not honoured, in words.
    pub warnings: Vec<String>,
}

impl ModelSettings {
    /// Whether the first dimension of everything that a model with this signature takes and gives is that of
    /// a batch: as was said, or else because all of them are free.
    pub fn is_batched(&self, signature: &Signature) -> bool {
        self.max_batch_size.map_or_else(|| signature.is_batched(), |most| most > 0)
    }
}

/// What each place of an output means.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Labels {
    /// The name of the file that says so, where it is one.
    pub file: Option<String>,
    /// One for each place; empty for a place without one.
    pub texts: Vec<String>,
}

/// What a version must answer before it is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum WarmUp {
    /// Zeros in a shape made from the signature.
    #[default]
    Generated,
    /// Nothing: for a model that no generated input fits.
    Off,
}

/// A model as a source has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvailableModel {
    /// Its name.
    pub name: ModelName,
    /// Its versions, lowest first.
    pub versions: Vec<Version>,
}

/// A model in its source, seen from afar.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glance {
    /// Whether it can be loaded: it has a version that nobody seems to be writing at the moment.
    pub settled: bool,
    /// The versions that somebody seems to be writing, lowest first.
    pub unsettled: Vec<Version>,
    /// A text that is another one when anything of the model has changed but those versions.
    pub stamp: String,
}

/// Why a source could not give what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The source has no such model.
    #[error("the repository has no model '{0}'")]
    UnknownModel(ModelName),
    /// The source has the model, but not this version of it.
    #[error("the repository has no version {version} of model '{model}'", version = .0.version, model = .0.model)]
    UnknownVersion(VersionId),
    /// What the source has is not usable.
    #[error("{what}: {problem}")]
    Invalid {
        /// The file or folder.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Reading failed.
    #[error("cannot read {what}")]
    Io {
        /// The file or folder.
        what: String,
        /// What the system said.
        source: std::io::Error,
    },
}

impl SourceError {
    /// Whether the same question may be answered in a moment, though nobody has done anything about it.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self, Self::Io { source, .. } if is_of_the_moment(source))
    }
}

/// Whether what the system said is of the moment. What is not known to be is not: a start that waited for
/// it would wait in vain.
fn is_of_the_moment(error: &std::io::Error) -> bool {
    use ErrorKind as Kind;
    // EIO, ENFILE and EMFILE, which have no kind.
    let is_unnamed = error.raw_os_error().is_some_and(|code| [5, 23, 24].contains(&code));
    is_unnamed
        || matches!(
            error.kind(),
            Kind::Interrupted
                | Kind::TimedOut
                | Kind::WouldBlock
                | Kind::ConnectionReset
                | Kind::ConnectionRefused
                | Kind::ConnectionAborted
                | Kind::NotConnected
                | Kind::BrokenPipe
                | Kind::UnexpectedEof
                | Kind::NetworkDown
                | Kind::NetworkUnreachable
                | Kind::HostUnreachable
                | Kind::AddrNotAvailable
                | Kind::StaleNetworkFileHandle
                | Kind::ResourceBusy
                | Kind::ExecutableFileBusy
                | Kind::Deadlock
                | Kind::OutOfMemory
                // Others use the disk too, and give back what they took.
                | Kind::StorageFull
                | Kind::QuotaExceeded
        )
}

/// A repository of models. Calls may block and come from threads made for it.
pub trait ModelSource: Send + Sync + 'static {
    /// Every model there is, by name. A model that cannot be read is left out and logged; it is
    /// reported in full by [`ModelSource::model`].
    ///
    /// # Errors
    /// [`SourceError::Io`] when the repository itself cannot be read.
    fn list(&self) -> Result<Vec<AvailableModel>, SourceError>;

    /// One model's versions.
    ///
    /// # Errors
    /// [`SourceError`].
    fn model(&self, name: &ModelName) -> Result<AvailableModel, SourceError>;

    /// How one model is to be served.
    ///
    /// # Errors
    /// [`SourceError`].
    fn settings(&self, name: &ModelName) -> Result<ModelSettings, SourceError>;

    /// Brings one version to local disk.
    ///
    /// # Errors
    /// [`SourceError`].
    fn fetch(&self, id: &VersionId) -> Result<ModelFiles, SourceError>;

    /// Reads every file of a fetched version once and gives the SHA-256 over all of them, in
    /// lower-case hexadecimal.
    ///
    /// # Errors
    /// [`SourceError`], also when the content is not what the source says it is.
    fn digest(&self, files: &ModelFiles) -> Result<String, SourceError>;

    /// Whether a model has changed, without reading it.
    ///
    /// # Errors
    /// [`SourceError`].
    fn glance(&self, name: &ModelName) -> Result<Glance, SourceError>;

    /// Begins to tell of changes as they come; `None` for a source that cannot. Whoever follows the
    /// source asks again at every round, so that what has gone stale is renewed, and looks at
    /// everything afterwards. Hints may be missed and may come for nothing.
    ///
    /// # Errors
    /// [`SourceError`] when it could, but does not at the moment.
    fn hints(&self) -> Result<Option<Hints>, SourceError> {
        Ok(None)
    }

    /// The bytes of a fetched version's files.
    ///
    /// # Errors
    /// [`SourceError::Io`].
    fn size(&self, _files: &ModelFiles) -> Result<u64, SourceError> {
        Ok(0)
    }

    /// Requests with the answers that a version has to give; none where it has none.
    ///
    /// # Errors
    /// [`SourceError`], also when a sample cannot be read.
    fn samples(&self, _id: &VersionId) -> Result<Vec<GoldenSample>, SourceError> {
        Ok(Vec::new())
    }

    /// Lays what a load brings over a model from now on, in the place of what was laid over it before;
    /// `None` lays nothing there.
    ///
    /// # Errors
    /// [`SourceError`]; then nothing is changed.
    fn lay(&self, name: &ModelName, overrides: Option<Overrides>) -> Result<Laid, SourceError> {
        match overrides {
            None => Ok(Laid::nothing()),
            Some(_) => Err(SourceError::Invalid {
                what: format!("the load of '{name}'"),
                problem: "a load cannot bring anything here".to_owned(),
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Error;

    use super::*;

    fn versions(numbers: &[u64]) -> Vec<Version> {
        numbers.iter().map(|number| Version::new(*number).unwrap()).collect()
    }

    #[test]
    fn only_what_is_known_to_be_of_the_moment_may_pass() {
        let may_pass = |source: Error| {
            let what = String::new();
            SourceError::Io { what, source }.may_pass()
        };
        for kind in [ErrorKind::Interrupted, ErrorKind::StorageFull, ErrorKind::ConnectionRefused] {
            assert!(may_pass(kind.into()), "{kind}");
        }
        // EIO, ENOMEM, EBUSY, ENFILE, EMFILE, ENOSPC.
        for code in [5, 12, 16, 23, 24, 28] {
            assert!(may_pass(Error::from_raw_os_error(code)), "{code}");
        }
        // ENOENT, ENXIO, EACCES, EINVAL, EFBIG.
        for code in [2, 6, 13, 22, 27] {
            assert!(!may_pass(Error::from_raw_os_error(code)), "{code}");
        }
        let folder = tempfile::tempdir().unwrap();
        let own = folder.path().join("loop");
        std::os::unix::fs::symlink(&own, &own).unwrap();
        assert!(!may_pass(own.canonicalize().unwrap_err()));
        assert!(!may_pass(Error::other("what nobody knows")));
        let problem = String::new();
        assert!(!SourceError::Invalid { what: String::new(), problem }.may_pass());
    }

    #[test]
    fn policies_select() {
        let available = versions(&[1, 2, 10]);
        let latest = |count| VersionPolicy::Latest(NonZeroUsize::new(count).unwrap());
        assert_eq!(latest(1).select(&available), versions(&[10]));
        assert_eq!(latest(2).select(&available), versions(&[2, 10]));
        assert_eq!(latest(9).select(&available), available);
        assert_eq!(VersionPolicy::All.select(&available), available);
        let specific = VersionPolicy::Specific(versions(&[2, 1, 2]));
        assert_eq!(specific.select(&available), versions(&[1, 2]));
        assert!(latest(1).select(&[]).is_empty());
    }
}
