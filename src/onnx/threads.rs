//! The threads that one run may use inside ONNX Runtime.

use std::thread::JoinHandle;

use ort::Error;
use ort::environment::ThreadManager;

use crate::inference::Spawner;

/// Lets ONNX Runtime have its threads from a [`Spawner`]. A session makes them when it is made, which is
/// on a thread that gives way, as they would for the rest of their lives.
pub(super) struct Threads(pub(super) Spawner);

impl ThreadManager for Threads {
    type Thread = JoinHandle<()>;

    fn create(&self, work: impl FnOnce() + Send + 'static) -> ort::Result<Self::Thread> {
        self.0.spawn("onnxruntime", work).map_err(Error::wrap)
    }

    fn join(thread: Self::Thread) -> ort::Result<()> {
        thread.join().map_err(|_| Error::new("a thread of ONNX Runtime panicked"))
    }
}
