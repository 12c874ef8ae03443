//! The composition root: what the server is made of.

mod assembly;
mod listener;
mod managed;
mod reload;

use std::net::SocketAddr;
use std::sync::Arc;

pub use assembly::AssemblyError;
pub use listener::ListenError;
pub use managed::PlaceError;
pub use reload::Configuration;

use crate::lifecycle::checks::RuntimeWatch;
use crate::lifecycle::{Application, Ending, HealthRegistry, SignalSource};
use listener::Listener;

/// The whole server. Two of them fit in one process.
#[derive(Debug)]
pub struct App {
    application: Application,
    listener: Arc<Listener>,
    _watch: RuntimeWatch,
}

impl App {
    /// The address that is listened on, once it is.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listener.address()
    }

    /// Its health, to which checks may be added at any time.
    pub fn health(&self) -> &HealthRegistry {
        self.application.health()
    }

    /// Starts, serves until a signal comes or its end is requested, and stops, in the order of
    /// [`Application`].
    ///
    /// Not cancel safe: dropping the future leaves connections and models as they are.
    pub async fn run(self, signals: SignalSource) -> Ending {
        self.application.run(signals).await
    }
}
