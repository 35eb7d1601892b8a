//! Clusters with TLS: everything works over it, certificates are replaced while it runs, and a running
//! cluster gets it without the restart of a worker.

use std::{fs, process::Output, time::Duration};

use reqwest::StatusCode;
use stormkeeper_access::tls::test_support::Authority;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX},
    exact_counts::{SETTINGS, counted, settled, submit, wait_until_counted},
    locked::{Keys, restart_with, text},
};

/// Names in the certificate of all daemons: that of their host, and one that only daemons have.
const NAMES: [&str; 2] = ["127.0.0.1", "n1.storm.example.com"];

/// Locks and certificates.
struct Certificates {
    keys: Keys,
    authority: Authority,
}

impl Certificates {
    fn new() -> Self {
        let (keys, authority) = (Keys::new(), Authority::new());
        authority.write(&keys.path("ca"));
        let certificates = Self { keys, authority };
        certificates.renew();
        certificates
    }

    fn renew(&self) {
        self.authority.issue(&self.keys.path(""), "host", &NAMES);
    }

    /// Lines of `storm.yaml` apart from `storm.tls`.
    fn settings(&self) -> String {
        format!(
            "storm.tls.cert.file: {}\nstorm.tls.key.file: {}\nstorm.tls.ca.file: {}\n\
             storm.tls.client.certificates: required\nstorm.tls.daemons: '*.storm.example.com'\n",
            text(&self.keys.path("host.crt")),
            text(&self.keys.path("host.key")),
            text(&self.keys.path("ca")),
        )
    }
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Asserts that both components have done much, and that the history has exactly that.
async fn expect_exact_counts(cluster: &Cluster, counts: &std::path::Path) {
    cluster.ok(&["deactivate", "exact"]);
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    for (component, metric) in [("numbers", "Emitted"), ("sink", "Acked")] {
        let stored = settled(cluster, (&id, component, metric), counts).await;
        let (begun, done) = counted(counts, component);
        assert!(done > 200 && begun == done, "{component}: {begun} begun, {done} done");
        assert_eq!(stored[&format!("component {component}")], done, "{component}: {stored:?}");
    }
}

async fn expect_plain_refused(cluster: &Cluster) {
    let client = stormkeeper_api_types::http::client().build().expect("a client");
    for api in cluster.apis() {
        let answer = client.get(format!("http://{api}/live")).send().await.expect("answered");
        assert_eq!(answer.status(), StatusCode::BAD_REQUEST);
        let body = answer.text().await.expect("text");
        assert!(body.contains("speaks TLS only") && body.contains("https://"), "{body}");
    }
}

/// Replaces the certificate by one that has expired, which no daemon takes, and by one that expires soon.
async fn expect_expiry(cluster: &Cluster, certificates: &Certificates) {
    let dir = certificates.keys.path("");
    certificates.authority.issue_until(2001, &dir, "host", &NAMES);
    wait_until("every daemon is named", WAIT_MAX, async || {
        let listed = cluster.ok(&["list"]);
        let refusal = "host.crt: it has expired at 2001-01-01";
        let named = |kind: &str| listed.lines().any(|line| line.contains(kind) && line.contains(refusal));
        match named("! nimbus ") && named("! supervisor at 127.0.0.1") {
            true => Ok(()),
            false => Err(listed),
        }
    })
    .await;
    certificates.authority.issue_for(Duration::from_secs(20), &dir, "host", &NAMES);
    wait_until("connections show the expired certificate", WAIT_MAX, async || {
        let refused = cluster.run(&["list"]);
        let said = said(&refused);
        let words = ["the certificate of 127.0.0.1", "expired at 20", "storm.tls.cert.file"];
        match !refused.status.success() && words.iter().all(|word| said.contains(word)) {
            true => Ok(()),
            false => Err(said),
        }
    })
    .await;
    wait_until("every daemon logs it", WAIT_MAX, async || {
        let logs = cluster.logs();
        if logs.contains("host.crt has expired at 20") { Ok(()) } else { Err(logs) }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn encrypted_cluster_counts_exactly_while_its_leader_is_lost_and_its_certificate_expires() {
    let certificates = Certificates::new();
    let (keys, authority) = (&certificates.keys, &certificates.authority);
    let tokens = fs::read_to_string(keys.path("tokens")).expect("there");
    let carol = authority.issue(&keys.path(""), "carol", &["carol.example.com"]);
    fs::write(keys.path("tokens"), format!("{tokens}carol reader cert:carol.example.com\n"))
        .expect("written");
    let settings = format!("{SETTINGS}{}{}", keys.settings(), certificates.settings());
    let mut cluster = Cluster::with(Shape { nimbuses: 3, ..Shape::SMALL }, &settings).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    cluster.wait_until_whole("exact").await;
    wait_until_counted(&cluster, &counts).await;
    let workers = cluster.worker_processes();
    expect_plain_refused(&cluster).await;

    let leading = cluster.leading().await.expect("there is a leader");
    cluster.nimbuses[leading.nimbus].kill9();
    cluster.wait_for_leader_after(leading.term).await;
    wait_until_counted(&cluster, &counts).await;
    cluster.nimbuses[leading.nimbus].start_again();
    cluster.wait_until_nimbuses_registered().await;

    // Another authority, no authority, and an expired certificate.
    let (ca, other) = (keys.path("ca"), keys.path("other-ca"));
    Authority::new().write(&other);
    cluster.set_arguments(&["--ca", text(&other)]);
    let refused = cluster.run(&["list"]);
    assert!(!refused.status.success() && said(&refused).contains("no authority in"), "{}", said(&refused));
    cluster.set_arguments(&[]);
    let refused = cluster.run(&["list"]);
    assert!(!refused.status.success() && said(&refused).contains("speaks TLS only"), "{}", said(&refused));
    cluster.set_arguments(&["--ca", text(&ca)]);
    expect_expiry(&cluster, &certificates).await;
    certificates.renew();
    wait_until("connections show the new certificate", WAIT_MAX, async || {
        let listed = cluster.run(&["list"]);
        if listed.status.success() { Ok(()) } else { Err(said(&listed)) }
    })
    .await;
    assert_eq!(cluster.worker_processes(), workers, "no worker was restarted");

    // A person with a certificate in place of a token.
    cluster.set_token(None);
    let own = ["--cert", text(&carol.certificate), "--key", text(&carol.key)];
    cluster.set_arguments(&[&["--ca", text(&ca)][..], &own].concat());
    cluster.ok(&["list"]);
    let refused = cluster.run(&["kill", "exact"]);
    assert!(said(&refused).contains("carol (reader)"), "{}", said(&refused));
    cluster.set_token(Some(keys.path("root")));
    let refused = cluster.run(&["list"]);
    assert!(said(&refused).contains("that of carol, and the token that of root"), "{}", said(&refused));
    cluster.set_arguments(&["--ca", text(&ca)]);

    wait_until_counted(&cluster, &counts).await;
    expect_exact_counts(&cluster, &counts).await;
    cluster.ok(&["kill", "exact", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn running_cluster_is_encrypted_step_by_step_and_no_worker_restarts() {
    let certificates = Certificates::new();
    let settings = format!("{SETTINGS}{}", certificates.keys.settings());
    let mut cluster = Cluster::with(Shape::SMALL, &settings).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    cluster.wait_until_whole("exact").await;
    let workers = cluster.worker_processes();

    let ca = certificates.keys.path("ca");
    let either = format!("storm.tls.ca.file={}", text(&ca));
    cluster.set_arguments(&["-c", "storm.tls=optional", "-c", &either]);
    let files = certificates.settings().replace("certificates: required", "certificates: optional");
    restart_with(&mut cluster, &format!("{files}storm.tls: optional\n")).await;
    wait_until_counted(&cluster, &counts).await;
    cluster.set_arguments(&["--ca", text(&ca)]);
    cluster.ok(&["list"]);
    cluster.set_arguments(&[]);
    cluster.ok(&["list"]);

    wait_until("every worker knows the authority", WAIT_MAX, async || {
        let dirs = (1..=cluster.supervisors.len())
            .map(|i| cluster.path(&format!("supervisor-{i}/supervisor/workers")));
        let dirs = dirs.flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
        let without: Vec<_> = dirs
            .map(|entry| entry.expect("readable").path())
            .filter(|dir| !dir.join("tls.authorities").exists())
            .collect();
        if without.is_empty() { Ok(()) } else { Err(format!("{without:?}\n{}", cluster.logs())) }
    })
    .await;
    cluster.set_arguments(&["-c", "storm.tls=optional", "-c", &either]);
    restart_with(&mut cluster, "storm.tls: required\nstorm.tls.client.certificates: required\n").await;
    expect_plain_refused(&cluster).await;
    cluster.set_arguments(&["--ca", text(&ca)]);
    wait_until_counted(&cluster, &counts).await;
    assert_eq!(cluster.worker_processes(), workers, "no worker was restarted");
    expect_exact_counts(&cluster, &counts).await;
}
