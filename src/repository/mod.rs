//! Sources of models.

mod digest;
mod local;
mod model_yaml;

pub use local::LocalRepository;
