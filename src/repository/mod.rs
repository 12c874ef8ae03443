//! Sources of models.

mod digest;
mod golden;
mod local;
mod model_yaml;

pub use local::LocalRepository;
