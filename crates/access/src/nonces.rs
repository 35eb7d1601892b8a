//! Nonces of the requests of the last minute, so that no request counts twice.

use std::{
    collections::{BTreeMap, HashSet, VecDeque},
    time::Duration,
};

use stormkeeper_model::{TopologyId, clock::Monotonic};

/// Random number of a request.
pub(crate) type Nonce = [u8; 16];

/// Time that a nonce is kept: longer than the signature with it is valid, from 30 s before its time to
/// 30 s after.
const KEPT: Duration = Duration::from_secs(61);

/// Maximum number of nonces of all daemons: some thousand hosts send a few requests in a minute each.
pub(crate) const DAEMON_NONCES_MAX: usize = 100_000;

/// Maximum number of nonces of the workers of one topology, whose topology master sends a request in
/// some seconds. A worker that sends more keeps nobody else out.
pub(crate) const WORKER_NONCES_MAX: usize = 2_000;

/// Reason why a request does not count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Refused {
    /// A request with this nonce was accepted before.
    Replayed,
    /// The sender has sent too many requests, and may send the next after this time.
    TooMany { retry_after: Duration },
}

/// Nonces of one kind of senders.
#[derive(Debug, Default)]
struct Recent {
    known: HashSet<Nonce>,
    // In the order of their acceptance.
    order: VecDeque<(Monotonic, Nonce)>,
}

impl Recent {
    fn expire(&mut self, now: Monotonic) {
        while let Some((accepted, nonce)) = self.order.front()
            && now.since(*accepted) > KEPT
        {
            self.known.remove(nonce);
            self.order.pop_front();
        }
    }

    fn accept(&mut self, nonce: Nonce, now: Monotonic, max: usize) -> Result<(), Refused> {
        self.expire(now);
        if self.known.contains(&nonce) {
            return Err(Refused::Replayed);
        }
        if self.order.len() >= max {
            let oldest = self.order.front().map_or(Duration::ZERO, |(accepted, _)| now.since(*accepted));
            return Err(Refused::TooMany { retry_after: KEPT.saturating_sub(oldest) });
        }
        self.known.insert(nonce);
        self.order.push_back((now, nonce));
        Ok(())
    }
}

/// Nonces of all senders. Only requests with a valid signature get here, so the number of topologies is
/// that of the keys that daemons have derived.
#[derive(Debug, Default)]
pub(crate) struct Nonces {
    daemons: Recent,
    workers: BTreeMap<TopologyId, Recent>,
}

impl Nonces {
    /// Accepts the nonce of a daemon, or of a worker of `topology`, once.
    pub(crate) fn accept(
        &mut self,
        topology: Option<&TopologyId>,
        nonce: Nonce,
        now: Monotonic,
    ) -> Result<(), Refused> {
        let Some(topology) = topology else { return self.daemons.accept(nonce, now, DAEMON_NONCES_MAX) };
        self.workers.retain(|other, recent| {
            recent.expire(now);
            other == topology || !recent.order.is_empty()
        });
        let recent = self.workers.entry(topology.clone()).or_default();
        recent.accept(nonce, now, WORKER_NONCES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nonce(n: usize) -> Nonce {
        (n as u128).to_be_bytes()
    }

    fn after(secs: u64) -> Monotonic {
        Monotonic::START.plus(Duration::from_secs(secs))
    }

    #[test]
    fn nonce_counts_once_while_its_signature_is_valid() {
        let mut nonces = Nonces::default();
        assert_eq!(nonces.accept(None, nonce(1), after(0)), Ok(()));
        assert_eq!(nonces.accept(None, nonce(1), after(0)), Err(Refused::Replayed));
        assert_eq!(nonces.accept(None, nonce(1), after(60)), Err(Refused::Replayed));
        assert_eq!(nonces.accept(None, nonce(2), after(60)), Ok(()));
        assert_eq!(nonces.daemons.order.len(), 2);
        assert_eq!(nonces.accept(None, nonce(3), after(62)), Ok(()), "the first one is forgotten");
        assert_eq!((nonces.daemons.order.len(), nonces.daemons.known.len()), (2, 2));
    }

    #[test]
    fn workers_of_one_topology_keep_nobody_else_out() {
        let mut nonces = Nonces::default();
        let (a, b): (TopologyId, TopologyId) =
            ("a-1-1".parse().expect("valid"), "b-1-1".parse().expect("valid"));
        for n in 0..WORKER_NONCES_MAX {
            assert_eq!(nonces.accept(Some(&a), nonce(n), after(0)), Ok(()));
        }
        assert_eq!(
            nonces.accept(Some(&a), nonce(WORKER_NONCES_MAX), after(1)),
            Err(Refused::TooMany { retry_after: KEPT.saturating_sub(Duration::from_secs(1)) })
        );
        assert_eq!(nonces.accept(Some(&b), nonce(0), after(1)), Ok(()));
        assert_eq!(nonces.accept(None, nonce(0), after(1)), Ok(()));
        assert_eq!(nonces.accept(Some(&b), nonce(1), after(62)), Ok(()));
        assert_eq!(nonces.workers.len(), 1, "nothing is kept of a topology that is silent");
    }
}
