use super::*;
use crate::{
    credentials::{Credentials, Signer},
    file::{WatchedFile, create_secret},
    locks::Settings,
    principal::{Person, Role},
    secret::{Secrets, WorkerKeys},
};
use stormkeeper_model::TopologyId;

const API: &str = "n1:8080";
const PATH: &str = "/api/stormkeeper/v1/metrics/ingest";

struct Stage {
    dir: tempfile::TempDir,
    clock: Clock,
    token: Token,
    gate: Gate,
}

fn person(role: Role) -> Person {
    Person { name: "ann".to_owned(), role, owner: None }
}

/// A nimbus with locks, which began ten minutes ago.
fn stage(mode: Mode) -> Stage {
    let dir = tempfile::tempdir().expect("a directory");
    let token = Token::generate().expect("random bytes");
    create_secret(&dir.path().join("tokens"), &token.line(&person(Role::Operator))).expect("written");
    create_secret(&dir.path().join("secret"), &"k".repeat(32)).expect("written");
    let settings = Settings {
        mode: Some(mode),
        tokens: Some(dir.path().join("tokens")),
        secret: Some(dir.path().join("secret")),
        ..Settings::default()
    };
    let clock = Clock::manual(Timestamp::from_millis(1_000_000_000));
    let gate = Gate::new(Locks::of_nimbus(&settings).expect("valid"), API.to_owned(), clock.clone());
    clock.advance(Duration::from_secs(600));
    Stage { dir, clock, token, gate }
}

impl Stage {
    fn received<'a>(authorization: Option<&'a str>) -> Received<'a> {
        let authorization = authorization.map(Some);
        Received { host: Some(API), method: "POST", path: PATH, authorization, certificate: None }
    }

    fn admit(&self, authorization: Option<&str>) -> Result<Principal, Denied> {
        self.gate.admit(Self::received(authorization)).map(|admitted| admitted.principal)
    }

    fn signer(&self, secret: &str, clock: &Clock) -> Credentials {
        let path = self.dir.path().join(format!("secret-{secret:.4}"));
        let _there = create_secret(&path, secret);
        let secrets = WatchedFile::open(&path, Secrets::read).expect("valid");
        Credentials::Signer(Signer::daemon("n2".to_owned(), secrets, clock.clone()))
    }

    fn signed(credentials: &Credentials, behalf: Option<Principal>) -> String {
        let head = Head { to: API, method: "POST", path: PATH };
        credentials.header(head, BodyDigest::of(b"body"), behalf).expect("signed")
    }
}

#[test]
fn request_without_a_proof_is_refused_only_where_one_is_required() {
    assert_eq!(stage(Mode::Open).admit(None), Ok(Principal::Anyone));
    assert_eq!(stage(Mode::Open).admit(Some("Bearer nonsense")), Ok(Principal::Anyone));
    assert_eq!(stage(Mode::Optional).admit(None), Ok(Principal::Anyone));
    assert_eq!(stage(Mode::Required).admit(None), Err(Denied::Missing));
}

#[test]
fn wrong_token_is_refused_even_where_none_is_required() {
    for mode in [Mode::Optional, Mode::Required] {
        let stage = stage(mode);
        let good = format!("Bearer {}", stage.token.secret_text());
        assert_eq!(stage.admit(Some(&good)), Ok(Principal::Person(person(Role::Operator))));
        assert_eq!(stage.admit(Some(&good.replace("Bearer", "bearer"))), stage.admit(Some(&good)));
        let other = format!("Bearer {}", Token::generate().expect("random bytes").secret_text());
        for unknown in [other.as_str(), "Bearer x", "Bearer "] {
            assert_eq!(stage.admit(Some(unknown)), Err(Denied::UnknownToken), "{unknown}");
        }
        for malformed in
            ["", "Basic", "Basic YW5u", "Basic ann:pw", "Digest a", "Bearer", "Stormkeeper v=1", "ünknown"]
        {
            assert_eq!(stage.admit(Some(malformed)), Err(Denied::Malformed), "{malformed}");
        }
        let received = Received { authorization: Some(None), ..Stage::received(None) };
        assert_eq!(stage.gate.admit(received), Err(Denied::Malformed));
    }
}

/// Storm's and Flink's monitors know a user and a password.
#[test]
fn token_is_taken_as_the_password_of_a_user() {
    let stage = stage(Mode::Required);
    let token = stage.token.secret_text().to_owned();
    for pair in [format!("monitor:{token}"), format!(":{token}"), format!("{token}:")] {
        let header = format!("Basic {}", BASE64.encode(&pair));
        assert_eq!(stage.admit(Some(&header)), Ok(Principal::Person(person(Role::Operator))), "{pair}");
    }
    for pair in ["ann:pw", ":", &format!("{token}:pw"), &format!("a:b:{token}")] {
        let header = format!("basic {}", BASE64.encode(pair));
        assert_eq!(stage.admit(Some(&header)), Err(Denied::UnknownToken), "{pair}");
    }
}

#[test]
fn token_is_refused_once_its_line_is_removed() {
    let stage = stage(Mode::Required);
    let good = format!("Bearer {}", stage.token.secret_text());
    stage.admit(Some(&good)).expect("known");
    let other = Token::generate().expect("random bytes");
    std::fs::write(stage.dir.path().join("tokens"), other.line(&person(Role::Reader))).expect("written");
    stage.gate.locks.tokens().expect("there").refresh();
    assert_eq!(stage.admit(Some(&good)), Err(Denied::UnknownToken));
    stage.admit(Some(&format!("Bearer {}", other.secret_text()))).expect("known");
}

#[test]
fn signed_request_is_admitted_once_and_names_its_daemon() {
    let stage = stage(Mode::Required);
    let signed = Stage::signed(&stage.signer(&"k".repeat(32), &stage.clock), None);
    let admitted = stage.gate.admit(Stage::received(Some(&signed))).expect("signed");
    assert_eq!(admitted.principal, Principal::Daemon("n2".to_owned()));
    assert_eq!(admitted.digest, Some(BodyDigest::of(b"body")));
    assert_eq!(stage.admit(Some(&signed)), Err(Denied::Replayed));
    stage.clock.advance(Duration::from_secs(29));
    assert_eq!(stage.admit(Some(&signed)), Err(Denied::Replayed));
    stage.clock.advance(Duration::from_secs(40));
    assert_eq!(stage.admit(Some(&signed)), Err(Denied::Stale));
}

#[test]
fn signature_of_another_cluster_or_for_another_nimbus_is_refused() {
    let stage = stage(Mode::Required);
    let signed = Stage::signed(&stage.signer(&"other".repeat(8), &stage.clock), None);
    assert_eq!(stage.admit(Some(&signed)), Err(Denied::WrongSignature));
    let signed = Stage::signed(&stage.signer(&"k".repeat(32), &stage.clock), None);
    let elsewhere = Received { host: Some("n3:8080"), ..Stage::received(Some(&signed)) };
    assert!(matches!(stage.gate.admit(elsewhere), Err(Denied::OtherAddress { .. })));
    let nowhere = Received { host: None, ..Stage::received(Some(&signed)) };
    assert!(matches!(stage.gate.admit(nowhere), Err(Denied::OtherAddress { .. })));
    let other_path = Received { path: "/api/stormkeeper/v1/recovery", ..Stage::received(Some(&signed)) };
    assert_eq!(stage.gate.admit(other_path), Err(Denied::WrongSignature));
    let other_method = Received { method: "DELETE", ..Stage::received(Some(&signed)) };
    assert_eq!(stage.gate.admit(other_method), Err(Denied::WrongSignature));
}

#[test]
fn usual_port_is_not_in_the_address_of_a_request() {
    let stage = stage(Mode::Required);
    let gate = Gate::new(stage.gate.locks.clone(), "N1:80".to_owned(), stage.clock.clone());
    stage.clock.advance(Duration::from_secs(1));
    let head = Head { to: "n1", method: "POST", path: PATH };
    let signer = stage.signer(&"k".repeat(32), &stage.clock);
    let signed = signer.header(head, BodyDigest::of(b""), None).expect("signed");
    gate.admit(Received { host: Some("n1"), ..Stage::received(Some(&signed)) }).expect("admitted");
}

#[test]
fn sender_with_a_wrong_clock_is_admitted_after_it_has_learned_the_time() {
    for wrong_ms in [400_000_u64, 5_000_000_000] {
        let stage = stage(Mode::Required);
        let clock = Clock::manual(Timestamp::from_millis(wrong_ms));
        let signer = stage.signer(&"k".repeat(32), &clock);
        assert_eq!(stage.admit(Some(&Stage::signed(&signer, None))), Err(Denied::Stale));
        assert!(signer.clone().note_time(stage.clock.now()), "worth another try");
        stage.admit(Some(&Stage::signed(&signer, None))).expect("with the time of the nimbus");
    }
}

#[test]
fn request_from_before_the_start_of_a_nimbus_is_refused() {
    let stage = stage(Mode::Required);
    let signed = Stage::signed(&stage.signer(&"k".repeat(32), &stage.clock), None);
    stage.admit(Some(&signed)).expect("once");
    stage.clock.advance(Duration::from_secs(1));
    // The next process has the same files, and an empty list of nonces.
    let next = Gate::new(stage.gate.locks.clone(), API.to_owned(), stage.clock.clone());
    assert_eq!(next.admit(Stage::received(Some(&signed))), Err(Denied::Stale));
}

#[test]
fn worker_is_admitted_as_one_of_its_topology_and_no_other() {
    let stage = stage(Mode::Required);
    let keys = |topology: &TopologyId| {
        let path = stage.dir.path().join(format!("keys-{topology}"));
        let keys: WorkerKeys = stage.gate.locks.worker_keys(topology).expect("there is a secret");
        create_secret(&path, &keys.text()).expect("written");
        WatchedFile::open(&path, WorkerKeys::read).expect("valid")
    };
    let (own, other): (TopologyId, TopologyId) =
        ("wc-1-1".parse().expect("valid"), "other-1-1".parse().expect("valid"));
    let signer = |claimed: &TopologyId, keys| {
        Credentials::Signer(Signer::worker(claimed.clone(), keys, stage.clock.clone()))
    };
    let own_keys = keys(&own);
    let signed = Stage::signed(&signer(&own, own_keys.clone()), None);
    assert_eq!(stage.admit(Some(&signed)), Ok(Principal::Worker(own)));
    let forged = Stage::signed(&signer(&other, own_keys), None);
    assert_eq!(stage.admit(Some(&forged)), Err(Denied::WrongSignature));
}

#[test]
fn both_secrets_are_accepted_while_one_replaces_the_other() {
    let stage = stage(Mode::Required);
    let (old, new) = ("k".repeat(32), "n".repeat(32));
    let signed = |secret: &str| Stage::signed(&stage.signer(secret, &stage.clock), None);
    assert_eq!(stage.admit(Some(&signed(&new))), Err(Denied::WrongSignature));
    let replace = |text: &str| {
        std::fs::write(stage.dir.path().join("secret"), text).expect("written");
        stage.gate.locks.secrets().expect("there").refresh();
    };
    replace(&format!("{new}\n{old}\n"));
    stage.admit(Some(&signed(&new))).expect("the new secret");
    stage.admit(Some(&signed(&old))).expect("the old secret");
    replace(&new);
    stage.admit(Some(&signed(&new))).expect("the new secret");
    assert_eq!(stage.admit(Some(&signed(&old))), Err(Denied::WrongSignature));
}

#[test]
fn forwarded_request_is_that_of_the_person_whom_the_daemon_has_checked() {
    let stage = stage(Mode::Required);
    let signer = stage.signer(&"k".repeat(32), &stage.clock);
    for behalf in [Principal::Person(person(Role::Reader)), Principal::Anyone] {
        let signed = Stage::signed(&signer, Some(behalf.clone()));
        let admitted = stage.gate.admit(Stage::received(Some(&signed))).expect("signed");
        assert_eq!(admitted.principal, behalf);
        assert_eq!(admitted.forwarded_by.as_deref(), Some("n2"));
    }
}

#[test]
fn proof_that_cannot_be_checked_yet_is_no_obstacle_where_none_is_required() {
    let stage = stage(Mode::Optional);
    let signed = Stage::signed(&stage.signer(&"k".repeat(32), &stage.clock), None);
    let settings = Settings { mode: Some(Mode::Optional), ..Settings::default() };
    let locks = Locks::of_nimbus(&settings).expect("valid");
    let gate = Gate::new(locks, API.to_owned(), stage.clock.clone());
    let principal = |text: &str| gate.admit(Stage::received(Some(text))).map(|admitted| admitted.principal);
    assert_eq!(principal(&signed), Ok(Principal::Anyone));
    assert_eq!(principal(&format!("Bearer {}", stage.token.secret_text())), Ok(Principal::Anyone));
}

#[test]
fn refused_requests_are_counted() {
    let stage = stage(Mode::Required);
    for _ in 0..5 {
        let why = (RefusalKind::Unauthenticated, "the token is unknown");
        stage.gate.note_refused(why, Some("10.0.0.1"), ("GET", "/"));
    }
    assert_eq!(stage.gate.refusals().of(RefusalKind::Unauthenticated), 5);
}

mod certificates {
    use super::*;
    use crate::tls::{
        TlsMode,
        certificate::PeerCertificate,
        test_support::{Authority, CertificateFiles},
    };

    fn shown(name: &str) -> PeerCertificate {
        PeerCertificate { names: vec![name.to_owned()], not_after: Timestamp::EPOCH }
    }

    /// A nimbus that requires certificates of daemons, with a line for the certificate `bob.example.com`.
    fn strict(stage: &Stage) -> Gate {
        let (dir, authority) = (stage.dir.path(), Authority::new());
        authority.write(&dir.join("ca"));
        let files: CertificateFiles = authority.issue(dir, "n1", &["n1.storm.example.com"]);
        let mut tls = files.settings(TlsMode::Required, &dir.join("ca"));
        tls.client_certificates = TlsMode::Required;
        tls.daemons = vec!["*.storm.example.com".to_owned()];
        let lines =
            format!("{}\nbob reader cert:Bob.example.com\n", stage.token.line(&person(Role::Operator)));
        std::fs::write(dir.join("tokens"), lines).expect("written");
        let settings = Settings {
            mode: Some(Mode::Required),
            tokens: Some(dir.join("tokens")),
            secret: Some(dir.join("secret")),
            tls,
        };
        Gate::new(Locks::of_nimbus(&settings).expect("valid"), API.to_owned(), stage.clock.clone())
    }

    #[test]
    fn person_with_a_certificate_needs_no_token_and_a_token_of_somebody_else_contradicts_it() {
        let stage = stage(Mode::Required);
        let gate = strict(&stage);
        let bearer = format!("Bearer {}", stage.token.secret_text());
        let admit = |authorization: Option<&str>, certificate: Option<&str>| {
            let certificate = certificate.map(shown);
            let certificate = certificate.as_ref();
            let received = Received { certificate, ..Stage::received(authorization) };
            gate.admit(received).map(|admitted| admitted.principal.to_string())
        };
        assert_eq!(admit(None, Some("bob.example.com")), Ok("bob (reader)".to_owned()));
        assert_eq!(admit(Some(&bearer), None), Ok("ann (operator)".to_owned()));
        assert_eq!(admit(None, None), Err(Denied::Missing));
        assert_eq!(admit(None, Some("eve.example.com")), Err(Denied::Missing));
        assert_eq!(admit(Some(&bearer), Some("eve.example.com")), Ok("ann (operator)".to_owned()));
        let contradiction =
            Denied::OtherCertificate { certificate: "bob".to_owned(), token: "ann".to_owned() };
        assert_eq!(admit(Some(&bearer), Some("bob.example.com")), Err(contradiction));
    }

    #[test]
    fn daemon_needs_its_signature_and_a_certificate_and_a_worker_its_signature_alone() {
        let stage = stage(Mode::Required);
        let gate = strict(&stage);
        let daemon = stage.signer(&"k".repeat(32), &stage.clock);
        let admit = |signed: Option<&str>, certificate: Option<&str>| {
            let certificate = certificate.map(shown);
            let certificate = certificate.as_ref();
            gate.admit(Received { certificate, ..Stage::received(signed) }).map(|admitted| admitted.principal)
        };
        let signed = |credentials: &Credentials| Stage::signed(credentials, None);
        let s7 = Some("s7.storm.example.com");
        assert_eq!(admit(Some(&signed(&daemon)), s7), Ok(Principal::Daemon("n2".to_owned())));
        for certificate in [None, Some("bob.example.com"), Some("storm.example.com")] {
            assert_eq!(admit(Some(&signed(&daemon)), certificate), Err(Denied::NoDaemonCertificate));
        }
        assert_eq!(admit(None, s7), Err(Denied::Missing), "a certificate of a daemon is no signature");
        let thief = stage.signer(&"x".repeat(32), &stage.clock);
        assert_eq!(admit(Some(&signed(&thief)), s7), Err(Denied::WrongSignature));

        let topology: TopologyId = "wc-1-1".parse().expect("valid");
        let keys = Locks::of_nimbus(&Settings {
            mode: Some(Mode::Optional),
            secret: Some(stage.dir.path().join("secret")),
            ..Settings::default()
        });
        let keys = keys.expect("valid").worker_keys(&topology).expect("a secret");
        let path = stage.dir.path().join(WorkerKeys::FILE);
        create_secret(&path, &keys.text()).expect("written");
        let file = WatchedFile::open(&path, WorkerKeys::read).expect("valid");
        let worker = Credentials::Signer(Signer::worker(topology.clone(), file, stage.clock.clone()));
        assert_eq!(admit(Some(&signed(&worker)), None), Ok(Principal::Worker(topology)));
    }
}
