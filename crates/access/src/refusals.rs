//! Numbers of refused requests, by kind.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::gate::Denied;

/// Kind of a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The proof is missing or wrong.
    Unauthenticated,
    /// The signature is of another time, or was received before.
    Stale,
    /// The sender is known and may not do this.
    Forbidden,
    /// The sender has sent too many requests.
    TooMany,
    /// A web page of another site may have caused the request.
    Foreign,
    /// Changes are switched off.
    SwitchedOff,
}

impl RefusalKind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Unauthenticated,
        Self::Stale,
        Self::Forbidden,
        Self::TooMany,
        Self::Foreign,
        Self::SwitchedOff,
    ];

    /// Name in labels of metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Unauthenticated => "unauthenticated",
            Self::Stale => "stale",
            Self::Forbidden => "forbidden",
            Self::TooMany => "too_many",
            Self::Foreign => "foreign",
            Self::SwitchedOff => "switched_off",
        }
    }
}

impl From<&Denied> for RefusalKind {
    fn from(denied: &Denied) -> Self {
        match denied {
            Denied::Missing
            | Denied::Malformed
            | Denied::UnknownToken
            | Denied::OtherAddress { .. }
            | Denied::WrongSignature
            | Denied::NoDaemonCertificate
            | Denied::OtherCertificate { .. } => Self::Unauthenticated,
            Denied::Stale | Denied::Replayed => Self::Stale,
            Denied::TooMany { .. } => Self::TooMany,
        }
    }
}

/// Numbers of refused requests since the start.
#[derive(Debug, Default)]
pub struct Refusals([AtomicU64; RefusalKind::ALL.len()]);

impl Refusals {
    /// Counts a refused request.
    pub fn record(&self, kind: RefusalKind) {
        self.0[kind as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// Number of refused requests of a kind.
    pub fn of(&self, kind: RefusalKind) -> u64 {
        self.0[kind as usize].load(Ordering::Relaxed)
    }

    /// Number of all refused requests.
    pub fn total(&self) -> u64 {
        RefusalKind::ALL.into_iter().map(|kind| self.of(kind)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refused_requests_are_counted_by_their_kind() {
        let refusals = Refusals::default();
        for (n, kind) in RefusalKind::ALL.into_iter().enumerate() {
            for _ in 0..=n {
                refusals.record(kind);
            }
        }
        let counts = RefusalKind::ALL.map(|kind| refusals.of(kind));
        assert_eq!((counts, refusals.total()), ([1, 2, 3, 4, 5, 6], 21));
        assert_eq!(RefusalKind::from(&Denied::Replayed), RefusalKind::Stale);
        assert_eq!(RefusalKind::from(&Denied::TooMany { retry_after_secs: 1 }), RefusalKind::TooMany);
        assert_eq!(RefusalKind::from(&Denied::UnknownToken), RefusalKind::Unauthenticated);
    }
}
