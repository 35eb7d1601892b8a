//! Nimbuses whose certificates end while they run.

use super::*;
use stormkeeper_access::{
    file::create_secret,
    locks::{Mode, Settings},
    secret::Secrets,
    tls::{TlsMode, test_support::Authority},
};
use stormkeeper_model::Term;

/// Years with whose beginning certificates end.
const FIRST_END: i32 = 2099;
const LATER: i32 = 2100;

/// Time before the first end at which a cluster starts.
const LIFE: Duration = Duration::from_secs(60);

struct Stage {
    cluster: Cluster,
    authority: Authority,
}

impl Stage {
    fn new() -> Self {
        // The beginning of 2099.
        let end = Timestamp::from_millis(4_070_908_800_000);
        let start = Timestamp::from_millis(end.as_millis() - u64::try_from(LIFE.as_millis()).expect("small"));
        let (cluster, authority) = (Cluster::at(start), Authority::new());
        authority.write(&cluster.dir.path().join("ca"));
        let secret = Secrets::generate().expect("random bytes");
        create_secret(&cluster.dir.path().join("secret"), &secret).expect("written");
        Self { cluster, authority }
    }

    fn issue(&self, host: &str, year: i32) -> stormkeeper_access::tls::test_support::CertificateFiles {
        self.authority.issue_until(year, self.cluster.dir.path(), &format!("{host}-tls"), &[host])
    }

    /// Starts a nimbus with a certificate that ends with the beginning of `year`.
    async fn nimbus(&self, host: &str, year: i32) -> Running {
        let tls = self.issue(host, year).settings(TlsMode::Required, &self.cluster.dir.path().join("ca"));
        let secret = Some(self.cluster.dir.path().join("secret"));
        let settings = Settings { mode: Some(Mode::Optional), tokens: None, secret, tls };
        let locks = Locks::of_nimbus(&settings).expect("valid");
        self.cluster.nimbus_with(host, self.cluster.server.connect(), locks).await
    }

    /// Waits until the record of a nimbus says whether its certificate has expired.
    async fn wait_until_flagged(&self, running: &Running, is_expired: bool) {
        let id = running.nimbus.handle().id().clone();
        let store = Store::new(Arc::clone(&self.cluster.tree));
        wait_until("the record says it", LONG, || async {
            let record = store.nimbus(&id).await.expect("read").ok_or_else(|| "not registered".to_owned())?;
            let named = record.access_problem.is_some_and(|problem| problem.contains("has expired"));
            match (record.certificate_expired, named) == (is_expired, is_expired) {
                true => Ok(()),
                false => Err(format!("expired: {}, named: {named}", record.certificate_expired)),
            }
        })
        .await;
    }
}

#[tokio::test(start_paused = true)]
async fn leader_whose_certificate_expires_leaves_the_leadership_to_others_until_it_has_a_new_one() {
    let stage = Stage::new();
    let first = stage.nimbus("a", FIRST_END).await;
    let handle = stage.cluster.leading(&first).await;
    let second = stage.nimbus("b", LATER).await;
    stage.cluster.leading(&second).await;
    assert!(!handle.takes_writes());
    stage.wait_until_flagged(&first, true).await;
    assert!(stage.cluster.clock.now().as_millis() >= 4_070_908_800_000, "it led until the end");

    // No other nimbus is there: it leads, since topologies must be placed.
    second.stop.cancel();
    second.nimbus.stopped().await.expect("stopped on request");
    stage.cluster.leading(&first).await;

    // One with a valid certificate returns.
    let again = stage.nimbus("b", LATER).await;
    stage.cluster.leading(&again).await;
    assert!(!handle.takes_writes());

    // New files make it a candidate like any other.
    stage.issue("a", LATER);
    stage.wait_until_flagged(&first, false).await;
    again.stop.cancel();
    again.nimbus.stopped().await.expect("stopped on request");
    stage.cluster.leading(&first).await;
}

#[tokio::test(start_paused = true)]
async fn leader_leads_on_if_all_certificates_have_expired_and_yields_to_the_first_new_one() {
    let stage = Stage::new();
    let first = stage.nimbus("a", FIRST_END).await;
    let handle = stage.cluster.leading(&first).await;
    let second = stage.nimbus("b", FIRST_END).await;
    for running in [&first, &second] {
        stage.wait_until_flagged(running, true).await;
    }
    tokio::time::sleep(Duration::from_secs(300)).await;
    let leading = [&first, &second].map(|running| running.nimbus.handle().takes_writes());
    assert_eq!(leading.iter().filter(|leads| **leads).count(), 1, "{leading:?}");
    assert!(
        handle.term().is_some_and(|term| term <= Term(3)),
        "they did not depose each other again and again"
    );
    let (leader, follower) = if leading[0] { (&first, &second) } else { (&second, &first) };
    stage.issue(if leading[0] { "b" } else { "a" }, LATER);
    stage.cluster.leading(follower).await;
    assert!(!leader.nimbus.handle().takes_writes());
}
