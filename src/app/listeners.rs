//! What is served where: REST and gRPC on one port, gRPC alone on another.

use std::sync::Arc;

use super::front::Front;
use super::interfaces::InterfaceCounts;
use super::listener::{ListenError, Listener, Place};
use crate::config::ServerConfig;
use crate::grpc;
use crate::http::{self, InFlight, Protocols, Rest, Served};
use crate::lifecycle::{Application, Resource};

/// The sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) http: Arc<Listener>,
    pub(super) grpc: Option<Arc<Listener>>,
}

impl Listeners {
    /// Those of the configuration, over the two interfaces.
    pub(super) fn new(
        config: &ServerConfig,
        (rest, grpc): (http::Parts, grpc::Parts),
        counts: &InterfaceCounts,
    ) -> Self {
        let (in_flight, closing) = (rest.in_flight.clone(), rest.closing.clone());
        let grpc = Front::of_grpc(grpc::router(grpc), in_flight.clone());
        let both = grpc.clone().with_rest(Rest::new(rest));
        let listener = |place, front, (protocols, open): (_, &InFlight)| {
            let served = Served { answers: Arc::new(front), protocols, open: open.clone() };
            Arc::new(Listener::new(place, served, in_flight.clone(), closing.clone()))
        };
        Self {
            http: listener(
                http_place(config),
                both,
                (Protocols::Http1And2, &counts.http_connections),
            ),
            grpc: grpc_place(config)
                .map(|place| listener(place, grpc, (Protocols::Http2, &counts.grpc_connections))),
        }
    }

    /// Has them opened before the application is ready, and drained at its end. They stop taking
    /// connections at the same time.
    pub(super) fn register(&self, application: &Application) {
        for listener in std::iter::once(&self.http).chain(&self.grpc) {
            let (opening, draining) = (Arc::clone(listener), Arc::clone(listener));
            let open = move || {
                let opened = opening.open();
                async move { opened as Result<_, ListenError> }
            };
            application.resources().register(Resource::new(listener.name(), open).lasting());
            let drain = move |deadline| async move { draining.drain(deadline).await };
            application.on_drain(listener.name(), drain);
        }
    }
}

fn http_place(config: &ServerConfig) -> Place {
    Place {
        name: "http",
        listen: config.listen,
        setting: "server.listen",
        port_file: config.port_file.clone(),
        told: "listening",
    }
}

fn grpc_place(config: &ServerConfig) -> Option<Place> {
    let listen = *config.grpc_listen.on()?;
    let (setting, told) = ("server.grpc_listen", "listening for gRPC");
    Some(Place { name: "grpc", listen, setting, port_file: None, told })
}
