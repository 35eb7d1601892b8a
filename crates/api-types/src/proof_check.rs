//! Check whether the leader believes the proofs of this daemon.
//!
//! A daemon whose cluster secret differs from the leader's notices it when it has something to send, and
//! only then. So each daemon sends a signed request that changes nothing, at its start and about once a
//! minute, and says in its record why the leader refuses it. A nimbus of an older build refuses it without
//! a [`DENIED`], which says nothing.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use reqwest::Method;
use tracing::{debug, info, warn};

use crate::{authorized::AuthorizedClient, http, leader_clock::Reference};
use stormkeeper_access::{credentials::Credentials, gate::Denied, tls::client::ClientTls};
use stormkeeper_model::backoff::Delays;

/// Header of the response to a request whose proof is refused: the reason, a [`ProofFault`].
pub const DENIED: &str = "x-stormkeeper-denied";

/// Path of the request: a document that a nimbus has ready, and which needs a proof.
const PATH: &str = "/api/openapi.json";

/// Pauses between two requests: the longest if nothing is wrong, the shortest while the leader is unknown
/// or refuses the proof. Each is shortened at random by up to half, so that the daemons of a cluster that
/// was started at once do not ask at once.
const PAUSES: Delays = Delays::between(Duration::from_secs(10), Duration::from_secs(60));

/// Limit for one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Reason why a nimbus refuses every request of a daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProofFault {
    /// The signature is made with another secret.
    OtherSecret,
    /// The daemon has no secret, and the nimbus requires a proof.
    NoSecret,
    /// The nimbus requires a certificate of daemons, and the request had none of their names.
    NoCertificate,
}

impl ProofFault {
    const ALL: [Self; 3] = [Self::OtherSecret, Self::NoSecret, Self::NoCertificate];

    /// Returns the fault that a refusal shows; none if only this one request was wrong.
    pub fn of(denied: &Denied) -> Option<Self> {
        match denied {
            Denied::WrongSignature => Some(Self::OtherSecret),
            Denied::Missing => Some(Self::NoSecret),
            Denied::NoDaemonCertificate => Some(Self::NoCertificate),
            _ => None,
        }
    }

    /// Value of the header [`DENIED`].
    pub fn word(self) -> &'static str {
        match self {
            Self::OtherSecret => "other-secret",
            Self::NoSecret => "no-proof",
            Self::NoCertificate => "no-certificate",
        }
    }

    /// Returns the problem of `daemon` (its kind and its host) for its record.
    fn text(self, daemon: &str, leader: &str) -> String {
        let (has, remedy) = match self {
            Self::OtherSecret => (
                "has another cluster secret than",
                "make storm.cluster.secret.file of both hosts the same; daemons read it again by themselves",
            ),
            Self::NoSecret => (
                "has no cluster secret, and one is required by",
                "set storm.cluster.secret.file there, and restart it",
            ),
            Self::NoCertificate => (
                "has no certificate of a daemon, and one is required by",
                "set storm.tls.cert.file there, and name its certificate in storm.tls.daemons of the nimbuses",
            ),
        };
        format!("{daemon} {has} the leader at {leader}, which refuses its requests; {remedy}")
    }
}

/// Answer of a nimbus to the proof of this daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The nimbus has accepted the request.
    Accepted,
    /// The nimbus refuses all requests of this daemon.
    Refused(ProofFault),
    /// The nimbus does not answer, or not in a way that says anything.
    Unknown,
}

/// Shows a nimbus the proof of this daemon: HTTP, or a test.
#[async_trait]
pub trait ShowProof: fmt::Debug + Send + Sync + 'static {
    /// Asks the nimbus at `api` (`host:port`).
    async fn show(&self, api: &str) -> Verdict;
}

/// Shows proofs by HTTP.
#[derive(Debug, Clone)]
pub struct ProofClient {
    http: AuthorizedClient,
}

impl ProofClient {
    /// A client that keeps no connections, as they would occupy the leader.
    ///
    /// # Errors
    /// [`http::Error::Setup`].
    pub fn new(credentials: Credentials, tls: &ClientTls) -> Result<Self, http::Error> {
        let http = http::client().timeout(TIMEOUT).pool_max_idle_per_host(0);
        let http = AuthorizedClient::new(http, tls).map_err(http::Error::Setup)?;
        Ok(Self { http: http.with_credentials(credentials) })
    }
}

#[async_trait]
impl ShowProof for ProofClient {
    async fn show(&self, api: &str) -> Verdict {
        let request = self.http.request(Method::HEAD, format!("http://{api}{PATH}"));
        match self.http.send(request).await {
            Ok(answer) if answer.status().is_success() => Verdict::Accepted,
            Ok(answer) => {
                let word = answer.headers().get(DENIED).and_then(|value| value.to_str().ok());
                let fault = ProofFault::ALL.into_iter().find(|fault| word == Some(fault.word()));
                fault.map_or(Verdict::Unknown, Verdict::Refused)
            }
            Err(error) => {
                debug!(leader = api, %error, "cannot ask the leader whether it believes this daemon; retrying");
                Verdict::Unknown
            }
        }
    }
}

/// Shows the leader the proof of `daemon` (its kind and its host, for people) until it is dropped. Passes
/// each change of the problem to announce to `announce`.
pub async fn keep_showing<L: Future<Output = Reference> + Send>(
    proof: Arc<dyn ShowProof>,
    leader: impl Fn() -> L + Send,
    daemon: String,
    announce: impl Fn(Option<String>) + Send,
) {
    let (mut pauses, mut announced) = (PAUSES.backoff(), None);
    loop {
        let next = match leader().await {
            Reference::Leader(api) => match proof.show(&api).await {
                Verdict::Accepted => Some(None),
                Verdict::Refused(fault) => Some(Some(fault.text(&daemon, &api))),
                Verdict::Unknown => None,
            },
            Reference::Own => Some(None),
            Reference::Unknown => None,
        };
        if next != Some(None) {
            pauses.reset();
        }
        // Without an answer nothing is known, and the problem stays.
        let next = next.unwrap_or_else(|| announced.clone());
        if next != announced {
            match &next {
                Some(problem) => warn!("{problem}"),
                None => info!("the leader believes the proofs of this daemon now"),
            }
            announced.clone_from(&next);
            announce(next);
        }
        tokio::time::sleep(pauses.next_delay()).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use stormkeeper_runtime::{
        tasks::{OnExit, Tasks},
        watch,
    };

    /// A leader with a fixed verdict.
    #[derive(Debug)]
    struct Fixed {
        verdict: Mutex<Verdict>,
        n_requests: Mutex<u32>,
    }

    #[async_trait]
    impl ShowProof for Fixed {
        async fn show(&self, api: &str) -> Verdict {
            assert_eq!(api, "leader:1");
            *self.n_requests.lock().expect("locked") += 1;
            *self.verdict.lock().expect("locked")
        }
    }

    #[test]
    fn faults_of_a_single_request_are_no_fault_of_the_daemon() {
        assert_eq!(ProofFault::of(&Denied::WrongSignature), Some(ProofFault::OtherSecret));
        assert_eq!(ProofFault::of(&Denied::Missing), Some(ProofFault::NoSecret));
        assert_eq!(ProofFault::of(&Denied::NoDaemonCertificate), Some(ProofFault::NoCertificate));
        for denied in
            [Denied::Stale, Denied::Replayed, Denied::TooMany { retry_after_secs: 1 }, Denied::UnknownToken]
        {
            assert_eq!(ProofFault::of(&denied), None, "{denied:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn refused_proof_is_announced_until_the_leader_accepts_one_and_an_unknown_answer_changes_nothing() {
        let leader = Arc::new(Fixed { verdict: Mutex::new(Verdict::Unknown), n_requests: Mutex::default() });
        let (announce, announced) = watch::channel(None);
        let tasks = Tasks::default();
        let reference = || std::future::ready(Reference::Leader("leader:1".to_owned()));
        let showing =
            keep_showing(Arc::clone(&leader) as _, reference, "supervisor at h".to_owned(), move |next| {
                announce.send_replace(next);
            });
        tasks.start("proof", OnExit::Ignore, showing);
        let after = async |verdict, secs| {
            *leader.verdict.lock().expect("locked") = verdict;
            tokio::time::sleep(Duration::from_secs(secs)).await;
            announced.borrow().clone()
        };
        assert_eq!(after(Verdict::Unknown, 60).await, None, "an older nimbus is no problem");
        let problem = after(Verdict::Refused(ProofFault::OtherSecret), 11).await.expect("a problem");
        assert!(
            problem.starts_with("supervisor at h has another cluster secret than the leader at leader:1")
        );
        assert!(problem.len() <= 400, "it fits into a record");
        assert_eq!(after(Verdict::Unknown, 60).await, Some(problem), "nothing else is known");
        assert_eq!(after(Verdict::Accepted, 11).await, None);
        tokio::time::sleep(Duration::from_secs(120)).await;
        *leader.n_requests.lock().expect("locked") = 0;
        tokio::time::sleep(Duration::from_secs(600)).await;
        let n_requests = *leader.n_requests.lock().expect("locked");
        assert!((10..=20).contains(&n_requests), "{n_requests} requests in ten minutes");
        let other = after(Verdict::Refused(ProofFault::NoSecret), 60).await.expect("a problem");
        assert!(other.contains("has no cluster secret"), "{other}");
    }
}
