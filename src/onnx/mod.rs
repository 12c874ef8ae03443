//! The backend on ONNX Runtime: the only place that names `ort`.

mod allocator;
mod arena;
mod backend;
mod external;
mod instance;
mod lent;
mod library;
mod optimized;
mod providers;
mod raw;
mod session;
mod signature;
mod strings;
mod threads;
mod told;
mod values;

pub use allocator::bound_arenas;
pub use backend::OnnxBackend;
pub use library::{LibraryError, LibrarySearch, OnnxRuntime};

#[cfg(test)]
mod tests;
