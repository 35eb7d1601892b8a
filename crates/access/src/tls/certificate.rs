//! Facts of certificates.

use std::time::Duration;

use stormkeeper_model::Timestamp;
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};

/// Time before the end of a certificate from which an operator is warned.
const WARN: Duration = Duration::from_secs(14 * 24 * 3600);

/// Length of a day.
const DAY: Duration = Duration::from_secs(24 * 3600);

/// Maximum number of names of a certificate that are looked at.
const NAMES_MAX: usize = 100;

/// Certificate that a peer has proved to own, and that an authority of this process has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerCertificate {
    /// Its DNS names; without one, its common name.
    pub names: Vec<String>,
    /// Its last moment.
    pub not_after: Timestamp,
}

impl PeerCertificate {
    /// Reads a certificate in DER.
    ///
    /// # Errors
    /// Reason why it cannot be read.
    pub fn parse(der: &[u8]) -> Result<Self, String> {
        let (_rest, certificate) = X509Certificate::from_der(der).map_err(|error| error.to_string())?;
        let alternatives = certificate.subject_alternative_name().map_err(|error| error.to_string())?;
        let alternatives = alternatives.iter().flat_map(|extension| &extension.value.general_names);
        let dns_names = alternatives.filter_map(|name| match name {
            GeneralName::DNSName(name) => Some((*name).to_owned()),
            _ => None,
        });
        let mut names: Vec<String> = dns_names.take(NAMES_MAX).collect();
        if names.is_empty() {
            let common = certificate.subject().iter_common_name();
            names.extend(common.filter_map(|name| name.as_str().ok()).map(str::to_owned).take(1));
        }
        let seconds = u64::try_from(certificate.validity().not_after.timestamp()).unwrap_or_default();
        Ok(Self { names, not_after: Timestamp::from_millis(seconds.saturating_mul(1000)) })
    }
}

/// Time that a certificate has left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// More than two weeks.
    Far,
    /// At most two weeks.
    Soon {
        /// Whole days.
        days: u64,
    },
    /// None.
    Past,
}

/// Returns the time that a certificate has left at `now`.
pub fn expiry(not_after: Timestamp, now: Timestamp) -> Expiry {
    let left = not_after.since(now);
    match left {
        _ if now > not_after => Expiry::Past,
        _ if left > WARN => Expiry::Far,
        _ => Expiry::Soon { days: left.as_secs() / DAY.as_secs() },
    }
}

/// Names of the certificates of daemons. `*.` at the beginning stands for one label.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DaemonNames(Vec<String>);

impl DaemonNames {
    /// Takes the names of the configuration.
    pub fn new(names: Vec<String>) -> Self {
        Self(names.into_iter().map(|name| name.to_ascii_lowercase()).collect())
    }

    /// True without any name.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns whether a certificate has one of the names.
    pub fn include(&self, certificate: &PeerCertificate) -> bool {
        certificate.names.iter().any(|name| {
            let name = name.to_ascii_lowercase();
            self.0.iter().any(|pattern| match pattern.strip_prefix("*.") {
                Some(domain) => name.split_once('.').is_some_and(|(label, rest)| {
                    // A certificate for `*.example.com` is not that of one daemon.
                    !label.is_empty() && label != "*" && rest == domain
                }),
                None => name == *pattern,
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(names: &[&str]) -> PeerCertificate {
        PeerCertificate {
            names: names.iter().map(|name| (*name).to_owned()).collect(),
            not_after: Timestamp::EPOCH,
        }
    }

    #[test]
    fn operator_is_warned_two_weeks_before_the_end_and_told_after_it() {
        let now = Timestamp::from_millis(1_800_000_000_000);
        let left = |secs: u64| expiry(now.plus(Duration::from_secs(secs)), now);
        let day = DAY.as_secs();
        assert_eq!(left(14 * day + 1), Expiry::Far);
        assert_eq!(left(14 * day), Expiry::Soon { days: 14 });
        assert_eq!(left(day - 1), Expiry::Soon { days: 0 });
        assert_eq!(left(0), Expiry::Soon { days: 0 });
        assert_eq!(expiry(now, now.plus(Duration::from_secs(1))), Expiry::Past);
    }

    #[test]
    fn name_of_a_daemon_is_matched_as_a_whole_and_a_star_stands_for_one_label() {
        let names = DaemonNames::new(vec!["N1.example.com".to_owned(), "*.storm.example.com".to_owned()]);
        for accepted in ["n1.example.com", "N1.Example.com", "s7.storm.example.com"] {
            assert!(names.include(&named(&["other", accepted])), "{accepted}");
        }
        for refused in [
            "n2.example.com",
            "xn1.example.com",
            "storm.example.com",
            ".storm.example.com",
            "a.b.storm.example.com",
            "*.storm.example.com",
            "s7.storm.example.com.evil",
        ] {
            assert!(!names.include(&named(&[refused])), "{refused}");
        }
        assert!(!names.include(&named(&[])));
        assert!(!DaemonNames::default().include(&named(&["n1"])));
    }
}
