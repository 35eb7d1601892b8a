use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

use super::*;
use crate::tree::tls::InvalidTls;

struct Authority(Issuer<'static, KeyPair>, String);

fn authority(name: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).expect("no names");
    params.distinguished_name.push(rcgen::DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().expect("random bytes");
    let pem = params.self_signed(&key).expect("signed").pem();
    Authority(Issuer::new(params, key), pem)
}

impl Authority {
    fn issue(&self, name: &str, is_expired: bool) -> Identity {
        let key = KeyPair::generate().expect("random bytes");
        let mut params = CertificateParams::new(vec![name.to_owned()]).expect("a name");
        if is_expired {
            params.not_after = rcgen::date_time_ymd(2001, 1, 1);
        }
        let certificates = params.signed_by(&key, &self.0).expect("signed").pem();
        Identity { certificates, key: key.serialize_pem() }
    }
}

/// Starts a server that demands a certificate, and returns its address.
async fn serve(
    authority: &Authority,
    identity: &Identity,
    tasks: &stormkeeper_runtime::tasks::Tasks,
) -> String {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.1.as_bytes()).expect("PEM")).expect("an authority");
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider));
    let chain = vec![CertificateDer::from_pem_slice(identity.certificates.as_bytes()).expect("PEM")];
    let key = PrivateKeyDer::from_pem_slice(identity.key.as_bytes()).expect("PEM");
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_client_cert_verifier(clients.build().expect("roots"))
        .with_single_cert(chain, key)
        .expect("a pair");
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    tasks.start("server", stormkeeper_runtime::tasks::OnExit::Ignore, async move {
        let mut open = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            // A refused client is what is tested.
            if let Ok(stream) = acceptor.accept(stream).await {
                open.push(stream);
            }
        }
    });
    address
}

/// Listens without TLS: answers with these bytes, and closes the connection.
async fn answer_with(bytes: &'static [u8], tasks: &stormkeeper_runtime::tasks::Tasks) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    tasks.start("plain server", stormkeeper_runtime::tasks::OnExit::Ignore, async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = [0; 1 << 12];
            // All of it, so that the close is no reset.
            let _n = stream.read(&mut request).await;
            let _written = stream.write_all(bytes).await;
        }
    });
    address
}

async fn problem(server: &str, trusted: &Authority, own: Option<Identity>) -> Option<String> {
    CurrentTls::new(Tls::new(trusted.1.clone(), own).expect("valid")).problem(server).await
}

#[tokio::test]
async fn reason_of_a_refused_connection_names_what_is_wrong() {
    let (ours, other) = (authority("ours"), authority("another"));
    let tasks = stormkeeper_runtime::tasks::Tasks::default();
    let own = || Some(ours.issue("daemon", false));
    let good = serve(&ours, &ours.issue("127.0.0.1", false), &tasks).await;
    assert_eq!(problem(&good, &ours, own()).await, None);
    let expired = serve(&ours, &ours.issue("127.0.0.1", true), &tasks).await;
    let plain = answer_with(b"\0\0\0\x01x", &tasks).await;
    let closing = answer_with(b"", &tasks).await;
    let misnamed = serve(&ours, &ours.issue("another.host", false), &tasks).await;
    for (server, trusted, own, expected) in [
        (&expired, &ours, own(), "its certificate has expired"),
        (&misnamed, &ours, own(), "its certificate is for other names"),
        (&good, &other, own(), "no authority in storm.zookeeper.tls.ca.file has signed its certificate"),
        (&good, &ours, None, "it asks for a certificate: set storm.zookeeper.tls.cert.file"),
        (&good, &ours, Some(ours.issue("daemon", true)), "this process, which has expired"),
        (
            &good,
            &ours,
            Some(other.issue("daemon", false)),
            "an authority in its trust store must have signed",
        ),
        (&plain, &ours, own(), "it speaks no TLS at this port"),
        (&closing, &ours, own(), "it speaks no TLS at this port"),
    ] {
        let problem = problem(server, trusted, own).await.expect(expected);
        assert!(problem.contains(server.as_str()) && problem.contains(expected), "{expected}: {problem}");
    }
}

#[test]
fn text_that_tls_cannot_use_is_refused_with_the_file_that_is_wrong() {
    let authority = authority("ours");
    let (pem, identity) = (authority.1.clone(), authority.issue("daemon", false));
    Tls::new(pem.clone(), Some(identity.clone())).expect("valid");
    assert!(matches!(Tls::new(String::new(), None), Err(InvalidTls::NoAuthority)));
    assert!(matches!(Tls::new(identity.key.clone(), None), Err(InvalidTls::NoAuthority)));
    let spoilt = pem.replacen('M', "*", 1);
    assert!(
        matches!(Tls::new(spoilt, None), Err(InvalidTls::Pem { what, .. }) if what.contains("authorities"))
    );
    let with = |change: fn(&mut Identity, Identity)| {
        let mut wrong = identity.clone();
        change(&mut wrong, authority.issue("daemon", false));
        Tls::new(pem.clone(), Some(wrong)).expect_err("refused")
    };
    assert!(matches!(with(|wrong, _| wrong.certificates.clear()), InvalidTls::NoCertificate));
    assert!(
        matches!(with(|wrong, _| wrong.key.clear()), InvalidTls::Pem { what, .. } if what.contains("key"))
    );
    assert!(matches!(with(|wrong, other| wrong.key = other.key), InvalidTls::Key(_)));
    assert!(
        !format!("{:?}", Tls::new(pem.clone(), Some(identity.clone())).expect("valid")).contains("PRIVATE")
    );
}
