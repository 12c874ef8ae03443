//! What is counted of both interfaces, for the metrics.

use std::sync::Arc;

use crate::admission::Refused;
use crate::auth::Audit;
use crate::grpc::{MethodCounts, MethodReport};
use crate::http::{InFlight, RouteCounts, RouteReport};
use crate::lifecycle::EventBus;
use crate::metrics::{GrpcMethod, HttpRoute, Interfaces, SpanCounts};
use crate::telemetry::{LinesReport, Logs};
use crate::trail::{Recorder, SpansReport};

/// Classes of statuses, each with whether it is told of a route that has never given it.
const CLASSES: [(&str, bool); 5] =
    [("1xx", false), ("2xx", true), ("3xx", false), ("4xx", true), ("5xx", true)];

/// The counts. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct InterfaceCounts {
    pub(super) http: Arc<RouteCounts>,
    pub(super) grpc: Arc<MethodCounts>,
    /// Those that were not let in.
    pub(super) refused: Arc<Refused>,
    /// Changes, and those that were denied.
    pub(super) audit: Arc<Audit>,
    /// Requests and calls that are being answered.
    pub(super) in_flight: InFlight,
    /// Connections of the listener that has both.
    pub(super) http_connections: InFlight,
    /// Connections of that for gRPC alone.
    pub(super) grpc_connections: InFlight,
    /// Connections of that for management.
    pub(super) management_connections: InFlight,
}

impl InterfaceCounts {
    pub(super) fn new(events: &EventBus) -> Self {
        Self {
            http: Arc::default(),
            grpc: Arc::default(),
            refused: Arc::default(),
            audit: Arc::new(Audit::new(events.clone())),
            in_flight: InFlight::default(),
            http_connections: InFlight::default(),
            grpc_connections: InFlight::default(),
            management_connections: InFlight::default(),
        }
    }
}

/// All who count.
pub(super) struct Sources {
    counts: InterfaceCounts,
    recorder: Recorder,
    logs: Logs,
}

impl Sources {
    pub(super) fn of(counts: &InterfaceCounts, recorder: &Recorder, logs: &Logs) -> Self {
        Self { counts: counts.clone(), recorder: recorder.clone(), logs: logs.clone() }
    }

    pub(super) fn read(&self) -> Interfaces {
        let counts = &self.counts;
        let connections = [
            ("http", &counts.http_connections),
            ("grpc", &counts.grpc_connections),
            ("management", &counts.management_connections),
        ];
        let LinesReport { full, failed } = self.logs.lost();
        Interfaces {
            http: counts.http.report().into_iter().map(HttpRoute::from).collect(),
            grpc: counts.grpc.report().into_iter().map(GrpcMethod::from).collect(),
            in_flight: counts.in_flight.count(),
            refused: counts.refused.report().into_iter().chain(counts.audit.report()).collect(),
            spans: self.recorder.report().into(),
            lost_lines: [("queue_full", full), ("failed", failed)],
            connections: connections.map(|(listener, open)| (listener, open.count())).to_vec(),
        }
    }
}

impl From<SpansReport> for SpanCounts {
    fn from(SpansReport { sent, full, failed, rejected }: SpansReport) -> Self {
        Self { sent, dropped: [("queue_full", full), ("failed", failed), ("rejected", rejected)] }
    }
}

impl From<RouteReport> for HttpRoute {
    fn from(RouteReport { route, method, calls }: RouteReport) -> Self {
        let classes = CLASSES.into_iter().zip(calls.results);
        let told = classes.filter(|((_, always), count)| *always || *count > 0);
        let statuses = told.map(|((class, _), count)| (class, count)).collect();
        Self { route, method, statuses, durations: calls.durations }
    }
}

impl From<MethodReport> for GrpcMethod {
    fn from(MethodReport { method, codes, calls }: MethodReport) -> Self {
        Self { method, codes, durations: calls.durations }
    }
}
