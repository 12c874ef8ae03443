//! What is served where: REST and gRPC on one port, gRPC alone on another.

use std::sync::Arc;

use super::front::Front;
use super::interfaces::InterfaceCounts;
use super::listener::{ListenError, Listener, Place};
use crate::admission::{Gate, Rates};
use crate::config::ServerConfig;
use crate::grpc::{self, Grpc};
use crate::http::{self, Bounds, InFlight, Protocols, Rest, Served};
use crate::lifecycle::{Application, Resource};
use crate::tls::Tls;
use crate::trail::Trails;

/// The sockets.
#[derive(Debug)]
pub(super) struct Listeners {
    pub(super) http: Arc<Listener>,
    pub(super) grpc: Option<Arc<Listener>>,
    management: Option<Arc<Listener>>,
}

/// What is around the interfaces.
pub(super) struct Around<'a> {
    pub(super) counts: &'a InterfaceCounts,
    pub(super) tls: Option<&'a Arc<Tls>>,
    pub(super) trails: &'a Trails,
}

impl Listeners {
    /// Those of the configuration, over the two interfaces.
    pub(super) fn new(
        config: &ServerConfig,
        (rest, grpc): (http::Parts, grpc::Parts),
        Around { counts, tls, trails }: Around<'_>,
    ) -> Self {
        let (in_flight, closing) = (rest.in_flight.clone(), rest.closing.clone());
        let grpc = Front::of_grpc(Grpc::new(grpc), in_flight.clone(), trails.clone());
        let both = grpc.clone().with_rest(Rest::new(rest));
        let listener = |place, front, (protocols, open): (_, &InFlight)| {
            let (answers, open) = (Arc::new(front), open.clone());
            let (tls, bounds) = (tls.cloned(), bounds(config));
            let served = Served { answers, protocols, tls, bounds, open };
            Arc::new(Listener::new(place, served, in_flight.clone(), closing.clone()))
        };
        let gate = Gate { refused: Arc::clone(&counts.refused), ..gate(config) };
        let public = both.clone().behind(gate.clone());
        let of_grpc = |place| {
            let protocols = (Protocols::Http2, &counts.grpc_connections);
            listener(place, grpc.clone().behind(gate), protocols)
        };
        let both_protocols = Protocols::Http1And2;
        let management = management_place(config);
        Self {
            http: listener(http_place(config), public, (both_protocols, &counts.http_connections)),
            grpc: grpc_place(config).map(of_grpc),
            management: management.map(|place| {
                listener(place, both, (both_protocols, &counts.management_connections))
            }),
        }
    }

    /// Has them opened before the application is ready, and drained at its end. They stop taking
    /// connections at the same time.
    pub(super) fn register(&self, application: &Application) {
        for listener in std::iter::once(&self.http).chain(&self.grpc).chain(&self.management) {
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

/// What those listeners let in at which strangers may ask.
fn gate(config: &ServerConfig) -> Gate {
    let rates = config.rate_limit.on().map(|rate| {
        let burst = config.rate_burst.given().unwrap_or(rate);
        Arc::new(Rates::new(*rate, *burst))
    });
    Gate { is_public: config.management_listen.on().is_some(), rates, ..Gate::default() }
}

fn bounds(config: &ServerConfig) -> Bounds {
    let connections = config.max_connections.get();
    Bounds { connections, header_timeout: config.header_timeout }
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

fn management_place(config: &ServerConfig) -> Option<Place> {
    let listen = *config.management_listen.on()?;
    let (setting, told) = ("server.management_listen", "listening for management");
    Some(Place { name: "management", listen, setting, port_file: None, told })
}
