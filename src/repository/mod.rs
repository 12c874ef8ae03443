//! Sources of models.

mod bare;
mod config_pbtxt;
mod digest;
mod ensemble_yaml;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzzing;
mod golden;
mod labels;
mod local;
mod manifest;
mod model_yaml;
mod overlay;
mod remote;
mod settling;
mod sightings;
mod watching;

#[cfg(test)]
mod conformance;

pub use local::LocalRepository;
pub use overlay::OverlayRepository;
pub use remote::{RemoteOptions, RemoteRepository};
