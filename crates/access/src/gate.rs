//! The side of the nimbus: returns who sent a request.

use std::{
    borrow::Cow,
    sync::{Arc, Mutex},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use tracing::warn;

use crate::{
    locks::{Locks, Mode},
    nonces::{Nonces, Refused},
    principal::{Person, Principal},
    refusals::{RefusalKind, Refusals},
    signature::{BodyDigest, Head, SCHEME, Sender, Signature},
    tls::certificate::PeerCertificate,
    token::Token,
};
use stormkeeper_model::{
    Timestamp,
    clock::{Clock, Monotonic},
};

/// Time by which the clocks of a sender and of this nimbus may differ.
pub const VALID: Duration = Duration::from_secs(30);

/// Shortest time between two lines of the log about refused proofs.
const LOG_PERIOD: Duration = Duration::from_secs(10);

/// Prefix of a header with a token; the scheme is not case-sensitive.
const BEARER: &str = "bearer ";

/// Scheme of programs that know a user and a password only: the password is the token.
const BASIC: &str = "basic ";

/// Reason why a proof is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no proof, and one is required.
    #[error("the request has no token")]
    Missing,
    /// The header `Authorization` is neither a token nor a signature.
    #[error("the header Authorization has neither a token nor a signature of this version")]
    Malformed,
    /// No token of the file is that of the request.
    #[error("the token is unknown to this daemon")]
    UnknownToken,
    /// The request is signed for another address.
    #[error("the request is signed for {addressed:?}, and this nimbus is announced as {announced:?}")]
    OtherAddress {
        /// Address in the request.
        addressed: String,
        /// Address of this nimbus.
        announced: String,
    },
    /// The signature is not that of a key of this cluster.
    #[error("the signature is not made with the cluster secret of this daemon")]
    WrongSignature,
    /// The request was signed too long ago, too far in the future, or before this nimbus began.
    #[error("the request was not signed within 30 s of the time of this daemon")]
    Stale,
    /// The request was received before.
    #[error("the request was received before")]
    Replayed,
    /// Daemons must have a certificate, and the sender has none.
    #[error(
        "the sender has shown no certificate with a name in storm.tls.daemons, and this daemon requires one"
    )]
    NoDaemonCertificate,
    /// The certificate is that of somebody else than the token.
    #[error("the certificate is that of {certificate}, and the token that of {token}")]
    OtherCertificate {
        /// Name in the line of the certificate.
        certificate: String,
        /// Name in the line of the token.
        token: String,
    },
    /// The sender has sent too many requests in the last minute.
    #[error("the sender has signed too many requests in the last minute")]
    TooMany {
        /// Whole seconds after which the next request counts; at least one.
        retry_after_secs: u64,
    },
}

/// Request whose sender is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admitted {
    /// Sender: of a forwarded request, the one on whose behalf it is forwarded.
    pub principal: Principal,
    /// Daemon that has forwarded the request.
    pub forwarded_by: Option<String>,
    /// Digest that the body must have.
    pub digest: Option<BodyDigest>,
}

impl Admitted {
    fn sender(principal: Principal) -> Self {
        Self { principal, forwarded_by: None, digest: None }
    }
}

/// Head of a received request.
#[derive(Debug, Clone, Copy)]
pub struct Received<'a> {
    /// Host header.
    pub host: Option<&'a str>,
    /// HTTP method.
    pub method: &'a str,
    /// Path with its query.
    pub path: &'a str,
    /// Header `Authorization`; `Some(None)` if it is no text or there are several.
    pub authorization: Option<Option<&'a str>>,
    /// Certificate of the client, which the handshake of TLS has verified.
    pub certificate: Option<&'a PeerCertificate>,
}

/// Checks the proofs of requests to one nimbus.
#[derive(Debug)]
pub struct Gate {
    locks: Locks,
    api: String,
    clock: Clock,
    start: Timestamp,
    // Held for a look-up and an insertion.
    nonces: Mutex<Nonces>,
    refusals: Arc<Refusals>,
    // Held for a comparison.
    logged: Mutex<Option<(Monotonic, u64)>>,
}

impl Gate {
    /// Checks requests to the nimbus that is announced as `api`, `host:port`.
    pub fn new(locks: Locks, api: String, clock: Clock) -> Self {
        let (start, nonces) = (clock.now(), Mutex::default());
        Self { locks, api, clock, start, nonces, refusals: Arc::default(), logged: Mutex::new(None) }
    }

    /// Treatment of requests without a proof.
    pub fn mode(&self) -> Mode {
        self.locks.mode()
    }

    /// Time by which signatures are compared.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Numbers of refused requests since the start.
    pub fn refusals(&self) -> &Arc<Refusals> {
        &self.refusals
    }

    /// Returns who sent a request.
    ///
    /// # Errors
    /// [`Denied`], also where proofs are optional: a wrong proof is a mistake that somebody must see.
    pub fn admit(&self, received: Received<'_>) -> Result<Admitted, Denied> {
        match (self.mode(), received.authorization) {
            // A build that was told to be open does not look at proofs.
            (Mode::Open, _) => Ok(Admitted::sender(Principal::Anyone)),
            (Mode::Optional | Mode::Required, None) => match self.person_of(received.certificate) {
                Some(person) => Ok(Admitted::sender(Principal::Person(person))),
                None if self.mode() == Mode::Optional => Ok(Admitted::sender(Principal::Anyone)),
                None => Err(Denied::Missing),
            },
            (_, Some(None)) => Err(Denied::Malformed),
            // A nimbus that has no secret yet cannot check a signature.
            (Mode::Optional, Some(Some(text))) if !self.can_check(text) => {
                Ok(Admitted::sender(Principal::Anyone))
            }
            (_, Some(Some(text))) => self.check(received, text),
        }
    }

    /// Returns the person of a certificate, if the file of tokens has a line for one of its names.
    fn person_of(&self, certificate: Option<&PeerCertificate>) -> Option<Person> {
        self.locks.tokens()?.get().of_certificate(certificate?).cloned()
    }

    fn can_check(&self, text: &str) -> bool {
        match text.starts_with(SCHEME) {
            true => self.locks.secrets().is_some(),
            false => self.locks.tokens().is_some(),
        }
    }

    fn check(&self, received: Received<'_>, text: &str) -> Result<Admitted, Denied> {
        if let Some(fields) = text.strip_prefix(SCHEME) {
            let signature = Signature::parse(fields).ok_or(Denied::Malformed)?;
            return self.check_signature(received, &signature);
        }
        let token = sent_token(text).ok_or(Denied::Malformed)?;
        let token = Token::new(token.trim()).map_err(|_| Denied::UnknownToken)?;
        let tokens = self.locks.tokens().ok_or(Denied::UnknownToken)?.get();
        let person = tokens.find(&token).ok_or(Denied::UnknownToken)?;
        // Neither of them can be the one that was meant.
        if let Some(other) = self.person_of(received.certificate).filter(|other| other.name != person.name) {
            return Err(Denied::OtherCertificate { certificate: other.name, token: person.name.clone() });
        }
        Ok(Admitted::sender(Principal::Person(person.clone())))
    }

    fn check_signature(&self, received: Received<'_>, signature: &Signature) -> Result<Admitted, Denied> {
        // Otherwise a request to one nimbus could be sent again to another.
        let addressed = received.host.unwrap_or_default();
        // The Host header does not name the usual port.
        let usual = [":80", ":443"].into_iter().find_map(|port| self.api.strip_suffix(port));
        let is_own = |announced: &str| addressed.eq_ignore_ascii_case(announced);
        if !is_own(&self.api) && !usual.is_some_and(is_own) {
            return Err(Denied::OtherAddress {
                addressed: addressed.to_owned(),
                announced: self.api.clone(),
            });
        }
        let secrets = self.locks.secrets().ok_or(Denied::WrongSignature)?.get();
        let (keys, topology) = match &signature.unverified().sender {
            Sender::Daemon(_) => (secrets.daemon_keys(), None),
            Sender::Worker(topology) => (secrets.worker_keys(topology), Some(topology)),
        };
        if topology.is_none()
            && let Some(daemons) = self.locks.tls().required_daemons()
            && !received.certificate.is_some_and(|shown| daemons.include(shown))
        {
            return Err(Denied::NoDaemonCertificate);
        }
        let head = Head { to: addressed, method: received.method, path: received.path };
        let claims = signature.verified(head, &keys).ok_or(Denied::WrongSignature)?;
        let (now, time) = (self.clock.now(), claims.time);
        // The nonces of the process before are not known.
        if time < self.start || now.since(time).max(time.since(now)) > VALID {
            return Err(Denied::Stale);
        }
        let mut nonces = self.nonces.lock().expect("nobody panics while holding the nonces");
        match nonces.accept(topology, claims.nonce, self.clock.monotonic()) {
            Ok(()) => {}
            Err(Refused::Replayed) => return Err(Denied::Replayed),
            Err(Refused::TooMany { retry_after }) => {
                return Err(Denied::TooMany { retry_after_secs: retry_after.as_secs() + 1 });
            }
        }
        let digest = Some(claims.digest);
        Ok(match (&claims.sender, &claims.on_behalf_of) {
            (Sender::Worker(topology), _) => {
                Admitted { principal: Principal::Worker(topology.clone()), forwarded_by: None, digest }
            }
            (Sender::Daemon(name), None) => {
                Admitted { principal: Principal::Daemon(name.clone()), forwarded_by: None, digest }
            }
            (Sender::Daemon(name), Some(principal)) => {
                Admitted { principal: principal.clone(), forwarded_by: Some(name.clone()), digest }
            }
        })
    }

    /// Counts a refused request, and logs at most one in ten seconds.
    pub fn note_refused(
        &self,
        (kind, reason): (RefusalKind, &str),
        peer: Option<&str>,
        (method, path): (&str, &str),
    ) {
        self.refusals.record(kind);
        let n_refused = self.refusals.total();
        let now = self.clock.monotonic();
        let mut logged = self.logged.lock().expect("nobody panics while holding the time of the log");
        let n_before = match *logged {
            Some((at, _)) if now.since(at) < LOG_PERIOD => return,
            Some((_, n_before)) => n_before,
            None => 0,
        };
        *logged = Some((now, n_refused));
        let n_since = n_refused - n_before;
        warn!(reason, peer, method, path, n_since, "refused a request; further ones are logged after 10 s");
    }
}

/// Returns the token of a header `Authorization`, if it has the form of one.
fn sent_token(text: &str) -> Option<Cow<'_, str>> {
    let after = |scheme: &str| {
        let is_it = text.get(..scheme.len())?.eq_ignore_ascii_case(scheme);
        text.get(scheme.len()..).filter(|_| is_it)
    };
    if let Some(token) = after(BEARER) {
        return Some(Cow::Borrowed(token));
    }
    let pair = String::from_utf8(BASE64.decode(after(BASIC)?.trim()).ok()?).ok()?;
    // Some programs let people give one of the two only.
    let (user, password) = pair.split_once(':')?;
    Some(Cow::Owned(if password.is_empty() { user } else { password }.to_owned()))
}

#[cfg(test)]
mod tests;
