//! What is told of the interfaces, whatever they are made of.

use crate::tally::DurationsReport;

/// What has come over the interfaces by now.
#[derive(Debug, Clone, Default)]
pub struct Interfaces {
    /// By route and method.
    pub http: Vec<HttpRoute>,
    /// By method.
    pub grpc: Vec<GrpcMethod>,
    /// Requests and calls that are being answered.
    pub in_flight: usize,
    /// Requests and calls that were not let in, by why.
    pub refused: Vec<(&'static str, u64)>,
    /// Spans of traces.
    pub spans: SpanCounts,
    /// Lines of the log that were not written, by why.
    pub lost_lines: [(&'static str, u64); 2],
    /// Connections that are open, by the name of what listens.
    pub connections: Vec<(&'static str, usize)>,
}

/// What became of spans.
#[derive(Debug, Clone, Copy, Default)]
pub struct SpanCounts {
    /// Those that the collector has taken.
    pub sent: u64,
    /// Those that nobody has, by why.
    pub dropped: [(&'static str, u64); 3],
}

/// The requests of one route.
#[derive(Debug, Clone)]
pub struct HttpRoute {
    /// Its template.
    pub route: &'static str,
    /// The method.
    pub method: &'static str,
    /// Answers by the class of their status, such as `2xx`.
    pub statuses: Vec<(&'static str, u64)>,
    /// How long they took.
    pub durations: DurationsReport,
}

/// The calls of one method.
#[derive(Debug, Clone)]
pub struct GrpcMethod {
    /// The method with its service.
    pub method: &'static str,
    /// Answers by the name of their code.
    pub codes: Vec<(&'static str, u64)>,
    /// How long they took.
    pub durations: DurationsReport,
}
