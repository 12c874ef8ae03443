//! The composition root: what the server is made of.

mod assembly;
mod begun;
mod checking;
mod cpu;
mod front;
mod interfaces;
mod listener;
mod listeners;
mod managed;
mod reload;
mod secure;
mod traces;

use std::net::SocketAddr;

pub use assembly::AssemblyError;
pub use checking::{CheckError, CheckedModel, CheckedVersion, check};
pub use listener::ListenError;
pub use managed::PlaceError;
pub use reload::Configuration;

use crate::auth::Following;
use crate::lifecycle::checks::RuntimeWatch;
use crate::lifecycle::{Application, Ending, HealthRegistry, SignalSource};
use listeners::Listeners;

/// The whole server. Two of them fit in one process.
#[derive(Debug)]
pub struct App {
    application: Application,
    listeners: Listeners,
    _watch: RuntimeWatch,
    _following: Option<Following>,
}

impl App {
    /// The address that is listened on, once it is.
    pub fn address(&self) -> Option<SocketAddr> {
        self.listeners.http.address()
    }

    /// The address that is listened on for gRPC alone, once it is.
    pub fn grpc_address(&self) -> Option<SocketAddr> {
        self.listeners.grpc.as_ref()?.address()
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
