//! Clients over TLS.

use std::path::PathBuf;

use axum::Extension;

use super::*;
use stormkeeper_access::{
    credentials::Credentials,
    tls::{
        Tls, TlsMode, TlsSettings,
        certificate::PeerCertificate,
        client::ClientTls,
        test_support::{Authority, CertificateFiles},
    },
};
use stormkeeper_api_types::{authorized::AuthorizedClient, http};

struct Stage {
    dir: tempfile::TempDir,
    authority: Authority,
    own: CertificateFiles,
}

impl Stage {
    fn new() -> Self {
        let (dir, authority) = (tempfile::tempdir().expect("a directory"), Authority::new());
        authority.write(&dir.path().join("ca"));
        let own = authority.issue(dir.path(), "own", &["127.0.0.1"]);
        Self { dir, authority, own }
    }

    fn ca(&self) -> PathBuf {
        self.dir.path().join("ca")
    }

    fn server(&self, mode: TlsMode) -> Option<ServerTls> {
        let settings = self.own.settings(mode, &self.ca());
        let settings = TlsSettings { client_certificates: TlsMode::Optional, ..settings };
        Tls::of_daemon(&settings, true).expect("valid").server()
    }

    fn client(&self, mode: TlsMode, own: Option<&CertificateFiles>) -> AuthorizedClient {
        let own = own.map(|files| (&*files.certificate, &*files.key));
        let tls = ClientTls::of_command(mode, &self.ca(), own).expect("valid");
        AuthorizedClient::new(http::client(), &tls).expect("made").with_credentials(Credentials::None)
    }
}

/// Answers with the names in the certificate of the client.
fn who() -> Router {
    let who = async |shown: Option<Extension<Arc<PeerCertificate>>>| match shown {
        Some(Extension(shown)) => shown.names.join(","),
        None => "nobody".to_owned(),
    };
    Router::new().route("/", get(who)).route("/live", get(async || ""))
}

async fn ask(client: &AuthorizedClient, server: &Server) -> Result<String, String> {
    let request = client.request(reqwest::Method::GET, format!("http://{}/", server.address));
    let answer = client.send(request).await.map_err(|error| http::reason(&error))?;
    let answer = http::accepted("the server", Ok(answer)).await.map_err(|error| error.to_string())?;
    let url = answer.url().scheme().to_owned();
    Ok(format!("{url} {}", answer.text().await.expect("text")))
}

#[tokio::test]
async fn certificate_of_a_client_reaches_the_request() {
    let stage = Stage::new();
    let server = Server::start_with(who(), stage.server(TlsMode::Required), lenient()).await;
    let ann = stage.authority.issue(stage.dir.path(), "ann", &["ann.example.com"]);
    let client = stage.client(TlsMode::Required, Some(&ann));
    assert_eq!(ask(&client, &server).await, Ok("https ann.example.com".to_owned()));
    let client = stage.client(TlsMode::Required, None);
    assert_eq!(ask(&client, &server).await, Ok("https nobody".to_owned()));
}

#[tokio::test]
async fn plain_request_is_told_that_the_port_speaks_tls_only() {
    let stage = Stage::new();
    let server = Server::start_with(who(), stage.server(TlsMode::Required), lenient()).await;
    let client = AuthorizedClient::new(http::client(), &ClientTls::off()).expect("made");
    let said = ask(&client, &server).await.expect_err("refused");
    assert!(said.contains("400") && said.contains("speaks TLS only"), "{said}");
    let request = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    let answer = until_closed(server.connect().await, request).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("use https://"), "{answer}");
    assert!(!answer.contains("nobody"), "the route was not asked: {answer}");
}

#[tokio::test]
async fn where_tls_is_optional_clients_use_what_the_server_speaks_and_notice_a_change() {
    let stage = Stage::new();
    let client = stage.client(TlsMode::Optional, None);
    let both = Server::start_with(who(), stage.server(TlsMode::Optional), lenient()).await;
    assert_eq!(ask(&client, &both).await, Ok("https nobody".to_owned()));
    let plain = AuthorizedClient::new(http::client(), &ClientTls::off()).expect("made");
    assert_eq!(ask(&plain, &both).await, Ok("http nobody".to_owned()));
    let old = Server::start(who(), lenient()).await;
    for _ in 0..2 {
        assert_eq!(ask(&client, &old).await, Ok("http nobody".to_owned()));
    }
    let strict = stage.client(TlsMode::Required, None);
    let said = ask(&strict, &old).await.expect_err("refused");
    assert!(said.contains("plain HTTP") && said.contains("storm.tls"), "{said}");

    // The server is restarted with TLS alone, at the same port.
    let address = old.address;
    let Server { _tasks: tasks, .. } = old;
    tasks.stop(LONG).await;
    let listener = TcpListener::bind(address).await.expect("free again");
    let tasks = Tasks::default();
    let tls = stage.server(TlsMode::Required);
    let served = serve((listener, watch::Sender::new(true)), (who(), tls), lenient(), tasks.cancelled());
    tasks.start("api", OnExit::Ignore, served);
    let renewed = Server { address, _tasks: tasks };
    let said = ask(&client, &renewed).await.expect_err("it was plain a moment ago");
    assert!(said.contains("speaks TLS only"), "{said}");
    assert_eq!(ask(&client, &renewed).await, Ok("https nobody".to_owned()));
}

#[tokio::test]
async fn bad_certificate_is_no_reason_to_ask_without_tls() {
    let stage = Stage::new();
    let server = Server::start_with(who(), stage.server(TlsMode::Optional), lenient()).await;
    let stranger = Stage::new().client(TlsMode::Optional, None);
    let said = ask(&stranger, &server).await.expect_err("refused");
    assert!(said.contains("no authority in storm.tls.ca.file"), "{said}");
}

#[tokio::test]
async fn client_that_stops_in_the_handshake_is_disconnected() {
    let stage = Stage::new();
    let limits = Limits { head: SHORT, ..lenient() };
    let server = Server::start_with(who(), stage.server(TlsMode::Required), limits).await;
    let mut stream = server.connect().await;
    stream.write_all(&[0x16, 3, 1]).await.expect("sent");
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    read.expect("the server closes the connection").expect("read");
    assert_eq!(answer, [0_u8; 0]);
}
