use std::{io, path::Path};

use rustls::{CipherSuite, ClientConnection, Error, ServerConnection, pki_types::ServerName};

use super::{
    ephemeral::{BINDING, EphemeralTls},
    files::{OwnCertificate, Trust},
    server::reason_of_client,
    test_support::{Authority, CertificateFiles},
    worker::WorkerTls,
    *,
};

struct Stage {
    dir: tempfile::TempDir,
    authority: Authority,
    n1: CertificateFiles,
}

impl Stage {
    fn new() -> Self {
        let (dir, authority) = (tempfile::tempdir().expect("a directory"), Authority::new());
        authority.write(&dir.path().join("ca"));
        let n1 = authority.issue(dir.path(), "n1", &["n1"]);
        Self { dir, authority, n1 }
    }

    fn dir(&self) -> &Path {
        self.dir.path()
    }

    fn ca(&self) -> PathBuf {
        self.dir().join("ca")
    }

    fn settings(&self) -> TlsSettings {
        self.n1.settings(TlsMode::Required, &self.ca())
    }

    fn tls(&self) -> Tls {
        Tls::of_daemon(&self.settings(), true).expect("valid")
    }

    /// TLS of a daemon whose files were good when it started.
    fn unchecked(&self) -> Tls {
        let read = |files: &CertificateFiles, ca: &Path| -> Result<DaemonFiles, FileError> {
            let own = OwnCertificate::read(&files.certificate, &files.key)?;
            Ok(DaemonFiles { own, trust: Trust::read(ca)? })
        };
        let (files, ca) = (self.n1.clone(), self.ca());
        Tls(Some(Arc::new(Enabled {
            mode: TlsMode::Required,
            client_certificates: TlsMode::Off,
            daemons: DaemonNames::default(),
            files: WatchedFile::open_all(Vec::new(), move || read(&files, &ca)).expect("readable"),
        })))
    }

    fn refused(&self, settings: &TlsSettings) -> String {
        Tls::of_daemon(settings, true).expect_err("refused").to_string()
    }
}

/// Ends of a connection after the handshake, in memory.
fn handshake(client: &mut ClientConnection, server: &mut ServerConnection) -> Result<(), (Error, bool)> {
    fn pass(
        from: &mut rustls::ConnectionCommon<impl Sized>,
        to: &mut rustls::ConnectionCommon<impl Sized>,
    ) -> Result<(), Error> {
        let mut bytes = Vec::new();
        while from.wants_write() {
            from.write_tls(&mut bytes).expect("in memory");
        }
        let mut read: &[u8] = &bytes;
        while !read.is_empty() {
            to.read_tls(&mut read).expect("in memory");
            to.process_new_packets()?;
        }
        Ok(())
    }
    for _ in 0..4 {
        pass(client, server).map_err(|error| (error, true))?;
        pass(server, client).map_err(|error| (error, false))?;
    }
    Ok(())
}

fn connect(client: &ClientTls, server: &Tls, name: &str) -> Result<Option<Vec<String>>, (Error, bool)> {
    let config = server.server().expect("it is on").config();
    let mut server = ServerConnection::new(config).expect("valid");
    let name = ServerName::try_from(name.to_owned()).expect("valid");
    let mut client = ClientConnection::new(Arc::new(client.config()), name).expect("valid");
    handshake(&mut client, &mut server)?;
    let shown = server.peer_certificates().and_then(|chain| chain.first());
    Ok(shown.map(|shown| certificate::PeerCertificate::parse(shown).expect("readable").names))
}

#[test]
fn client_believes_certificates_of_its_authority_for_the_name_that_it_asked() {
    let stage = Stage::new();
    let tls = stage.tls();
    assert_eq!(connect(&tls.client(), &tls, "n1"), Ok(None));
    let refused = |client: &ClientTls, server: &Tls, name: &str| {
        let (error, by_server) = connect(client, server, name).expect_err("refused");
        assert!(!by_server, "{error}");
        error.to_string()
    };
    let said = refused(&tls.client(), &tls, "n2");
    assert!(said.contains("n2") && said.contains("other names (n1)"), "{said}");
    let other = Stage::new();
    let said = refused(&tls.client(), &other.tls(), "n1");
    assert!(said.contains("no authority") && said.contains("--ca"), "{said}");
    let said = refused(&ClientTls::off(), &tls, "n1");
    assert!(said.contains("no authority"), "{said}");
}

#[test]
fn expired_certificate_is_refused_and_named_with_its_end_on_both_sides() {
    let stage = Stage::new();
    let tls = stage.tls();
    stage.authority.issue_until(2001, stage.dir(), "n1", &["n1"]);
    let said = stage.refused(&stage.settings());
    assert!(said.contains("n1.crt: it has expired at 2001-01-01"), "{said}");
    let expired = stage.unchecked();
    let (error, _) = connect(&tls.client(), &expired, "n1").expect_err("refused");
    let said = error.to_string();
    let words = ["certificate of n1", "expired at 2001-01-01", "storm.tls.cert.file"];
    assert!(words.iter().all(|word| said.contains(word)), "{said}");

    // The same certificate as that of a client.
    stage.authority.issue(stage.dir(), "n3", &["n3"]);
    let mut settings = stage.settings();
    settings.certificate = Some(stage.dir().join("n3.crt"));
    settings.key = Some(stage.dir().join("n3.key"));
    settings.host = "n3".to_owned();
    settings.client_certificates = TlsMode::Optional;
    let server = Tls::of_daemon(&settings, true).expect("valid");
    let (error, by_server) = connect(&expired.client(), &server, "n3").expect_err("refused");
    assert!(by_server);
    assert!(reason_of_client(&error).contains("expired"), "{error}");
    let clock = Clock::new();
    let problem = expired.0.as_ref().expect("on").problem(&clock).expect("a problem");
    assert!(problem.contains("n1.crt has expired at 2001-01-01"), "{problem}");
    assert_eq!(server.0.as_ref().expect("on").problem(&clock), None);
}

#[test]
fn changed_certificate_is_shown_by_the_next_connection_and_a_bad_one_never() {
    let stage = Stage::new();
    let tls = stage.tls();
    let refresh = || tls.0.as_ref().expect("on").files.refresh();
    stage.authority.issue(stage.dir(), "n1", &["n1", "n9"]);
    assert!(connect(&tls.client(), &tls, "n9").is_err(), "not read yet");
    refresh();
    assert_eq!(connect(&tls.client(), &tls, "n9"), Ok(None));

    // The certificate of another key, as between the copying of both files.
    let good = std::fs::read(&stage.n1.certificate).expect("there");
    let other = stage.authority.issue(stage.dir(), "other", &["n1"]);
    std::fs::copy(&other.certificate, &stage.n1.certificate).expect("copied");
    refresh();
    assert_eq!(connect(&tls.client(), &tls, "n9"), Ok(None), "the last good one");
    let problem = tls.0.as_ref().expect("on").problem(&Clock::new()).expect("reported");
    assert!(problem.contains("does not fit the key") && problem.contains("last good"), "{problem}");
    std::fs::write(&stage.n1.certificate, good).expect("written");
    refresh();
    assert_eq!(tls.0.as_ref().expect("on").problem(&Clock::new()), None);

    // Another authority: both files together are good, and one alone is not.
    let next = Authority::new();
    next.write(&stage.ca());
    refresh();
    assert_eq!(connect(&tls.client(), &tls, "n9"), Ok(None), "the last good ones");
    let problem = tls.0.as_ref().expect("on").problem(&Clock::new()).expect("reported");
    assert!(problem.contains("n1.crt: no authority in") && problem.contains("last good"), "{problem}");
    next.issue(stage.dir(), "n1", &["n1"]);
    refresh();
    assert!(connect(&tls.client(), &tls, "n9").is_err());
    assert_eq!(connect(&tls.client(), &tls, "n1"), Ok(None));
    assert_eq!(tls.0.as_ref().expect("on").problem(&Clock::new()), None);
}

#[test]
fn certificate_that_other_daemons_would_refuse_is_refused_with_the_remedy() {
    let stage = Stage::new();
    let full = stage.settings();
    let settings = TlsSettings { host: "n2".to_owned(), ..full.clone() };
    let said = stage.refused(&settings);
    assert!(said.contains("other names (n1)") && said.contains("as n2"), "{said}");
    let settings = TlsSettings { host: "no host".to_owned(), ..full.clone() };
    assert!(stage.refused(&settings).contains("storm.local.hostname"));
    let clients = |daemons: &str| TlsSettings {
        client_certificates: TlsMode::Required,
        daemons: vec![daemons.to_owned()],
        ..full.clone()
    };
    Tls::of_daemon(&clients("N1"), true).expect("its name");
    for other in ["n2", "*"] {
        let said = stage.refused(&clients(other));
        assert!(said.contains("(n1) is in storm.tls.daemons"), "{said}");
    }
    Authority::new().issue(stage.dir(), "n1", &["n1"]);
    let said = stage.refused(&full);
    assert!(said.contains("n1.crt: no authority in") && said.contains("first, on every host"), "{said}");
    stage.authority.issue_from(2090, stage.dir(), "n1", &["n1"]);
    let said = stage.refused(&full);
    assert!(said.contains("n1.crt: it is not valid yet") && said.contains("clock"), "{said}");
    stage.authority.issue_for_servers(stage.dir(), "n1", &["n1"]);
    Tls::of_daemon(&full, true).expect("nobody asks it for a certificate");
    let said = stage.refused(&clients("n1"));
    assert!(said.contains("clientAuth"), "{said}");
}

#[test]
fn certificate_of_a_client_is_asked_for_where_configured_and_is_that_of_the_authority() {
    let stage = Stage::new();
    let settings = TlsSettings { client_certificates: TlsMode::Optional, ..stage.settings() };
    let server = Tls::of_daemon(&settings, true).expect("valid");
    let ann = stage.authority.issue(stage.dir(), "ann", &["ann.example.com"]);
    let client = |files: &CertificateFiles| {
        let both = Some((&*files.certificate, &*files.key));
        ClientTls::of_command(TlsMode::Required, &stage.ca(), both).expect("valid")
    };
    assert_eq!(connect(&client(&ann), &server, "n1"), Ok(Some(vec!["ann.example.com".to_owned()])));
    let without = ClientTls::of_command(TlsMode::Required, &stage.ca(), None).expect("valid");
    assert_eq!(connect(&without, &server, "n1"), Ok(None), "nobody needs one for the handshake");
    let forged = Authority::new().issue(stage.dir(), "forged", &["ann.example.com"]);
    let (error, by_server) = connect(&client(&forged), &server, "n1").expect_err("refused");
    assert!(by_server && reason_of_client(&error).contains("no authority"), "{error}");
    // A server that does not ask sees none.
    assert_eq!(connect(&client(&ann), &stage.tls(), "n1"), Ok(None));
}

#[test]
fn half_a_configuration_is_refused_with_what_is_missing() {
    let stage = Stage::new();
    let refused = |settings: &TlsSettings, has_secret: bool| {
        Tls::of_daemon(settings, has_secret).expect_err("refused").to_string()
    };
    let full = stage.settings();
    for (settings, missing) in [
        (TlsSettings { certificate: None, ..full.clone() }, "storm.tls.cert.file is not set"),
        (TlsSettings { key: None, ..full.clone() }, "storm.tls.key.file is not set"),
        (TlsSettings { authorities: None, ..full.clone() }, "storm.tls.ca.file is not set"),
        (
            TlsSettings { client_certificates: TlsMode::Required, ..full.clone() },
            "storm.tls.daemons is not set",
        ),
        (
            TlsSettings { client_certificates: TlsMode::Required, ..TlsSettings::default() },
            "storm.tls.cert.file is not set",
        ),
    ] {
        let said = refused(&settings, true);
        assert!(said.contains(missing), "{said}");
    }
    let said = refused(&full, false);
    assert!(said.contains("storm.cluster.secret.file is not set") && said.contains("secret new"), "{said}");
    assert_eq!(Tls::of_daemon(&TlsSettings::default(), false).expect("off").mode(), TlsMode::Off);
    let unset = TlsSettings { mode: None, ..full };
    assert_eq!(Tls::of_daemon(&unset, true).expect("on").mode(), TlsMode::Required);
    assert_eq!("on".parse::<TlsMode>(), Err(InvalidTlsMode));
}

#[test]
fn files_that_are_no_certificate_are_refused_and_a_key_is_never_shown() {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    let stage = Stage::new();
    let refused = || Tls::of_daemon(&stage.settings(), true).expect_err("refused").to_string();
    let key = fs::read_to_string(&stage.n1.key).expect("there");
    fs::set_permissions(&stage.n1.key, fs::Permissions::from_mode(0o644)).expect("set");
    let said = refused();
    assert!(said.contains("n1.key has the mode 644") && said.contains("chmod 600"), "{said}");
    fs::set_permissions(&stage.n1.key, fs::Permissions::from_mode(0o600)).expect("set");
    let secret = key.lines().nth(1).expect("a line");
    for bad in [key.replace("-----END", "----END"), "s3cr3t".to_owned(), key.replace(secret, "!s3cr3t")] {
        fs::write(&stage.n1.key, bad).expect("written");
        let said = refused();
        assert!(said.contains("n1.key") && said.contains("no private key"), "{said}");
        assert!(!said.contains("s3cr3t") && !said.contains(secret), "{said}");
    }
    fs::write(&stage.n1.key, &key).expect("written");
    for file in [stage.n1.certificate.clone(), stage.ca()] {
        let good = fs::read(&file).expect("there");
        let cut = &good[..good.len() - 30];
        let not_text = [good.as_slice(), &[0xff]].concat();
        for (bad, word) in [
            (b"nothing".as_slice(), "no certificate"),
            (cut, "file that was cut: expected `-----END CERTIFICATE-----`"),
            (&not_text, "openssl x509 -inform der"),
        ] {
            fs::write(&file, bad).expect("written");
            let said = refused();
            assert!(said.contains(&file.display().to_string()) && said.contains(word), "{said}");
        }
        let marked = ["\u{feff}".as_bytes(), &good].concat();
        fs::write(&file, marked).expect("written");
        stage.tls();
        fs::write(&file, good).expect("written");
    }
    stage.tls();
}

#[test]
fn file_of_the_wrong_kind_is_named_before_its_mode_and_a_key_beside_a_certificate_is_kept_secret() {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    let stage = Stage::new();
    let set_mode =
        |path: &Path, mode| fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
    let refused = |change: &dyn Fn(&mut TlsSettings)| {
        let mut settings = stage.settings();
        change(&mut settings);
        stage.refused(&settings)
    };
    let (certificate, key) = (stage.n1.certificate.clone(), stage.n1.key.clone());
    for mode in [0o600, 0o644, 0o666] {
        set_mode(&certificate, mode);
        set_mode(&key, mode);
        for (said, fault) in [
            (refused(&|tls| std::mem::swap(&mut tls.certificate, &mut tls.key)), "are swapped"),
            (refused(&|tls| tls.certificate.clone_from(&tls.key)), "no certificate"),
        ] {
            let is_named = said.contains("n1.key: it has") && said.contains(fault);
            assert!(is_named && !said.contains("chmod"), "{mode:o}: {said}");
        }
        if mode != 0o666 {
            let said = refused(&|tls| tls.key.clone_from(&tls.certificate));
            assert!(said.contains("n1.crt: it has a certificate and no private key"), "{said}");
        }
    }
    set_mode(&certificate, 0o644);
    set_mode(&key, 0o600);
    let said = refused(&|tls| tls.authorities.clone_from(&tls.key));
    assert!(said.contains("n1.key: it has a private key and no certificate"), "{said}");
    let both = fs::read_to_string(&certificate).expect("read") + &fs::read_to_string(&key).expect("read");
    fs::write(&certificate, both).expect("written");
    let said = refused(&|_| {});
    assert!(said.contains("n1.crt has the mode 644") && said.contains("chmod 600"), "{said}");
    set_mode(&certificate, 0o600);
    stage.tls();
    fs::write(&certificate, "-----BEGIN CERTIFICATE REQUEST-----\n").expect("written");
    assert!(refused(&|_| {}).contains("an authority must sign it first"));
}

#[test]
fn worker_learns_use_and_authorities_from_its_file() {
    let stage = Stage::new();
    let path = stage.dir().join(WorkerTls::FILE);
    assert!(WorkerTls::read(&path).expect("not there").is_none());
    let file = WatchedFile::open(&path, WorkerTls::read).expect("not there");
    let client = ClientTls::of_worker(file.clone());
    assert_eq!(client.mode(), TlsMode::Off);
    let server = stage.tls();
    assert!(connect(&client, &server, "n1").is_err());
    crate::file::replace_secret(&path, &server.worker_text().expect("on")).expect("written");
    file.refresh();
    assert_eq!(client.mode(), TlsMode::Required);
    assert_eq!(connect(&client, &server, "n1"), Ok(None));
    for bad in ["", "on\n", "required\n", "required\nnothing"] {
        std::fs::write(&path, bad).expect("written");
        assert!(WorkerTls::read(&path).is_err(), "{bad:?}");
    }
    assert_eq!(Tls::default().worker_text(), None);
}

#[test]
fn two_connections_of_workers_have_different_bindings() {
    let bindings = || -> io::Result<[[u8; 32]; 2]> {
        let (one, other) = (EphemeralTls::new().expect("made"), EphemeralTls::new().expect("made"));
        let mut client = ClientConnection::new(one.client, EphemeralTls::server_name()).expect("valid");
        let mut server = ServerConnection::new(other.server).expect("valid");
        handshake(&mut client, &mut server).expect("any certificate will do");
        let client = client.export_keying_material([0; 32], BINDING, None);
        let server = server.export_keying_material([0; 32], BINDING, None);
        Ok([client.map_err(io::Error::other)?, server.map_err(io::Error::other)?])
    };
    let (first, second) = (bindings().expect("exported"), bindings().expect("exported"));
    assert_eq!(first[0], first[1], "both ends know it");
    assert_eq!(second[0], second[1]);
    assert_ne!(first[0], second[0], "somebody in between cannot make both equal");
}

#[test]
fn connection_of_two_workers_has_the_cheaper_cipher() {
    let tls = EphemeralTls::new().expect("made");
    let mut client = ClientConnection::new(tls.client, EphemeralTls::server_name()).expect("valid");
    let mut server = ServerConnection::new(tls.server).expect("valid");
    handshake(&mut client, &mut server).expect("any certificate will do");
    let chosen = client.negotiated_cipher_suite().expect("chosen").suite();
    assert_eq!(chosen, CipherSuite::TLS13_AES_128_GCM_SHA256);
}
