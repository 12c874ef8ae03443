//! Who is let in: what is answered where, how often a client may ask, and what is left for probes.

mod audience;
mod rates;
mod refused;

use std::net::SocketAddr;
use std::sync::Arc;

pub use rates::Rates;
pub use refused::Refused;

use crate::oip::Refusal;
use audience::Audience;

/// Whether a path is one that orchestrators and load balancers ask for.
pub(crate) fn is_probe(path: &str) -> bool {
    Audience::of(path) == Audience::Probes
}

/// Whose request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Client {
    /// Where it comes from: the other end of the connection, whatever a proxy says.
    pub peer: SocketAddr,
    /// Whether its connection is one of those that are left for probes when there are too many.
    pub is_spare: bool,
}

/// What one listener lets in. Clones share how often clients have asked.
#[derive(Debug, Clone, Default)]
pub(crate) struct Gate {
    /// Whether what is for operators is answered by another listener.
    pub(crate) is_public: bool,
    /// How often a client may ask, where that is bounded.
    pub(crate) rates: Option<Arc<Rates>>,
    /// Counts those that are not let in.
    pub(crate) refused: Arc<Refused>,
}

impl Gate {
    /// Why a request for `path` is not answered, where it is not. Probes always are.
    pub(crate) fn refusal(&self, path: &str, client: Client) -> Option<Refusal> {
        if !self.is_public && self.rates.is_none() && !client.is_spare {
            return None;
        }
        self.judge(path, client).inspect(|refusal| self.refused.add(refusal))
    }

    fn judge(&self, path: &str, client: Client) -> Option<Refusal> {
        let audience = Audience::of(path);
        if audience == Audience::Probes {
            return None;
        }
        if client.is_spare {
            return Some(Refusal::Crowded);
        }
        let taken = self.rates.as_ref().map_or(Ok(()), |rates| rates.take(client.peer.ip()));
        if let Err(retry_after) = taken {
            return Some(Refusal::TooOften { retry_after });
        }
        let is_elsewhere = self.is_public && audience == Audience::Operators;
        is_elsewhere.then(|| Refusal::Elsewhere { path: path.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;
    use std::num::NonZeroUsize;

    use super::*;
    use crate::oip::Code;

    #[test]
    fn probes_are_always_let_in() {
        let once = Rates::new(NonZeroUsize::MIN, NonZeroUsize::MIN);
        let gate = Gate { is_public: true, rates: Some(Arc::new(once)), ..Gate::default() };
        let ask = |path, is_spare| {
            let client = Client { peer: (Ipv4Addr::LOCALHOST, 1).into(), is_spare };
            gate.refusal(path, client).map(|refusal| refusal.code())
        };
        assert_eq!(ask("/v2", false), None);
        assert_eq!(ask("/v2", false), Some(Code::RateLimited));
        assert_eq!(ask("/v2", true), Some(Code::Overloaded));
        assert_eq!(ask("/lifecycle", false), Some(Code::RateLimited));
        for is_spare in [false, true] {
            assert_eq!(ask("/livez", is_spare), None);
        }
        assert_eq!(gate.refused.report(), [("crowded", 1), ("rate_limited", 2), ("elsewhere", 0)]);
    }
}
