//! Whom a request is for, by its path: the one place that tells, for REST and gRPC.

/// Who asks for something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Audience {
    /// Orchestrators and load balancers.
    Probes,
    /// Whoever has something to be inferred: inference, and what the protocol tells of server and models.
    Everybody,
    /// Who runs the server: all else.
    Operators,
}

/// What follows `/inference.GRPCInferenceService/` of a call for everybody.
const CALLS: [&str; 6] = [
    "ServerMetadata",
    "ModelReady",
    "ModelMetadata",
    "ModelConfig",
    "ModelInfer",
    "ModelStreamInfer",
];

impl Audience {
    pub(super) fn of(path: &str) -> Self {
        match path {
            "/livez" | "/readyz" | "/startupz" | "/v2/health/live" | "/v2/health/ready" => {
                Self::Probes
            }
            "/v2" | "/v2/" | "/v2/models" => Self::Everybody,
            _ if is_of_a_model(path) => Self::Everybody,
            _ => Self::of_call(path).unwrap_or(Self::Operators),
        }
    }

    fn of_call(path: &str) -> Option<Self> {
        let (service, call) = path.strip_prefix('/')?.split_once('/')?;
        Some(match (service, call) {
            ("grpc.health.v1.Health", _)
            | ("inference.GRPCInferenceService", "ServerLive" | "ServerReady") => Self::Probes,
            ("inference.GRPCInferenceService", _) if CALLS.contains(&call) => Self::Everybody,
            _ if service.starts_with("grpc.reflection.") => Self::Everybody,
            _ => return None,
        })
    }
}

fn is_of_a_model(path: &str) -> bool {
    let of_protocol = path.strip_prefix("/v2/models/");
    let is_for_operators =
        |rest: &str| rest == "stats" || rest.ends_with("/stats") || rest.contains("/trace/");
    of_protocol.is_some_and(|rest| !is_for_operators(rest)) || path.starts_with("/v1/models/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_told_apart() {
        let of = |call: &str| Audience::of(&format!("/inference.GRPCInferenceService/{call}"));
        assert_eq!(of("ServerLive"), Audience::Probes);
        assert_eq!(of("ModelStreamInfer"), Audience::Everybody);
        for call in [
            "RepositoryIndex",
            "RepositoryModelLoad",
            "RepositoryModelUnload",
            "LogSettings",
            "TraceSetting",
            "ModelStatistics",
            "SystemSharedMemoryRegister",
        ] {
            assert_eq!(of(call), Audience::Operators, "{call}");
        }
        assert_eq!(Audience::of("/grpc.health.v1.Health/Check"), Audience::Probes);
    }
}
