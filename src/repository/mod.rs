//! Sources of models.

mod config_pbtxt;
mod digest;
mod golden;
mod local;
mod model_yaml;

pub use local::LocalRepository;
