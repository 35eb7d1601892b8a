//! Tests with blobs from nimbuses on loopback, announced in a memory tree.

use std::sync::Arc;

use axum::{Router, body::Bytes, http::StatusCode, routing::get};

use super::*;
use stormkeeper_access::tls::client::ClientTls;
use stormkeeper_api_types::blobs::BlobClient;
use stormkeeper_coordination::{
    cluster::{
        layout,
        record::{self, BlobReplica, NimbusRecord, Role},
    },
    tree::{CreateMode, Tree, memory::MemoryTree},
};
use stormkeeper_model::{NimbusId, Timestamp};
use stormkeeper_runtime::test_support::wait_until;

const TIMEOUT: Duration = Duration::from_secs(30);

/// The tar of a topology.
fn blob() -> Vec<u8> {
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(2);
    header.set_mode(0o644);
    tar.append_data(&mut header, "topology.json", &b"{}"[..]).expect("appended");
    tar.into_inner().expect("finished")
}

struct Cluster {
    dir: tempfile::TempDir,
    tree: Arc<dyn Tree>,
    tasks: Tasks,
}

impl Cluster {
    async fn new() -> Self {
        let tree: Arc<dyn Tree> = MemoryTree::new().connect();
        Store::new(tree.clone()).ensure_layout().await.expect("layout");
        Self { dir: tempfile::tempdir().expect("temporary directory"), tree, tasks: Tasks::default() }
    }

    /// Starts a nimbus that announces `key` and responds with `status` and `body`.
    async fn nimbus(&self, name: &str, key: &BlobKey, status: StatusCode, body: Vec<u8>) {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let api = listener.local_addr().expect("bound").to_string();
        let body = Bytes::from(body);
        let routes =
            Router::new().route("/api/stormkeeper/v1/blobs/{key}", get(async move || (status, body)));
        self.tasks.start("nimbus", OnExit::Ignore, async move {
            axum::serve(listener, routes).await.expect("served");
        });
        let id: NimbusId = name.parse().expect("valid id");
        let nimbus = NimbusRecord {
            host: "h".to_owned(),
            api,
            version: "0".to_owned(),
            start: Timestamp::EPOCH,
            blobs_missing: 0,
            role: Role::Follower,
            metric_store_error: None,
            disk_problem: None,
            access_problem: None,
            clock_ahead_ms: None,
            exposed: None,
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: Default::default(),
        };
        self.tree
            .create(&layout::nimbus(&id), &record::encode(&nimbus), CreateMode::Persistent)
            .await
            .expect("created");
        self.tree.ensure(&layout::blob(key)).await.expect("created");
        let holding = record::encode(&BlobReplica { bytes: 1, unknown_fields: Default::default() });
        self.tree
            .create(&layout::blob_replica(key, &id), &holding, CreateMode::Persistent)
            .await
            .expect("created");
    }

    fn localizer(&self, clock: &Clock) -> (Localizer, mpsc::Receiver<Outcome>) {
        let from =
            (Store::new(self.tree.clone()), Arc::new(BlobClient::new(&ClientTls::off()).expect("made")) as _);
        Localizer::open(self.dir.path(), Duration::from_secs(60), from, clock.clone(), &self.tasks)
            .expect("opened")
    }

    fn names(&self) -> Vec<String> {
        let files = fs::read_dir(self.dir.path().join(DIR)).expect("listed");
        files.map(|file| file.expect("listed").file_name().into_string().expect("text")).collect()
    }
}

#[tokio::test]
async fn blob_is_fetched_from_a_nimbus_that_has_it_and_removed_when_unused() {
    let (cluster, clock) = (Cluster::new().await, Clock::manual(Timestamp::EPOCH));
    let key = BlobKey::of(&blob());
    cluster.nimbus("n1", &key, StatusCode::NOT_FOUND, vec![]).await;
    cluster.nimbus("n2", &key, StatusCode::OK, b"something else".to_vec()).await;
    cluster.nimbus("n3", &key, StatusCode::OK, blob()).await;
    let (mut localizer, mut arrived) = cluster.localizer(&clock);
    let wanted = BTreeSet::from([key.clone()]);
    localizer.want(&wanted);
    assert_eq!(localizer.state(&key), Blob::Fetching);
    let arrival = tokio::time::timeout(TIMEOUT, arrived.recv()).await.expect("in time");
    let Some(Outcome::Arrived(arrival)) = arrival else { panic!("{arrival:?}") };
    localizer.arrived(arrival);
    assert_eq!(localizer.state(&key), Blob::Present);
    assert_eq!(fs::read(localizer.dir_of(&key).join("topology.json")).expect("read"), b"{}");
    assert_eq!(cluster.names(), [key.as_str()]);

    localizer.want(&BTreeSet::new());
    clock.advance(Duration::from_secs(59));
    localizer.want(&wanted);
    localizer.want(&BTreeSet::new());
    clock.advance(Duration::from_secs(59));
    localizer.want(&BTreeSet::new());
    assert_eq!(localizer.state(&key), Blob::Present, "used less than a minute ago");
    clock.advance(Duration::from_secs(1));
    localizer.want(&BTreeSet::new());
    assert_eq!(localizer.state(&key), Blob::Fetching);
    wait_until("the bytes are gone", TIMEOUT, || async {
        let names = cluster.names();
        if names.is_empty() { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

#[tokio::test]
async fn start_keeps_complete_blobs_and_removes_temporary_ones() {
    let (cluster, clock) = (Cluster::new().await, Clock::manual(Timestamp::EPOCH));
    let (whole, part) = (BlobKey::of(b"whole"), BlobKey::of(b"part"));
    for name in [whole.to_string(), format!("{part}{TEMPORARY}dir-0")] {
        fs::create_dir_all(cluster.dir.path().join(DIR).join(name)).expect("created");
    }
    let (localizer, _arrived) = cluster.localizer(&clock);
    assert_eq!(localizer.state(&whole), Blob::Present);
    assert_eq!(localizer.state(&part), Blob::Fetching);
    assert_eq!(cluster.names(), [whole.as_str()]);
}

#[tokio::test]
async fn failed_fetch_is_retried_and_leaves_no_files() {
    let (cluster, clock) = (Cluster::new().await, Clock::manual(Timestamp::EPOCH));
    let (bad, good) = (BlobKey::of(b"no tar file"), BlobKey::of(&blob()));
    cluster.nimbus("n1", &bad, StatusCode::OK, b"no tar file".to_vec()).await;
    let (mut localizer, mut arrived) = cluster.localizer(&clock);
    localizer.want(&[bad.clone(), good.clone()].into());
    let mut next = async || {
        tokio::time::timeout(TIMEOUT, arrived.recv()).await.expect("in time").expect("the localizer runs")
    };
    loop {
        match next().await {
            Outcome::Failed { key, reason, everywhere } if key == bad => {
                assert_eq!(
                    reason,
                    "the topology package is not a complete tar file: failed to read entire block"
                );
                assert!(everywhere, "no other host can unpack it");
                break;
            }
            Outcome::Failed { reason, .. } => assert_eq!(reason, "no nimbus has the blob"),
            Outcome::Arrived(key) => panic!("{key} was there before a nimbus had it"),
        }
    }
    cluster.nimbus("n2", &good, StatusCode::OK, blob()).await;
    loop {
        match next().await {
            Outcome::Arrived(key) => break assert_eq!(key, good),
            Outcome::Failed { .. } => {}
        }
    }
    localizer.arrived(good.clone());
    localizer.want(&[good.clone()].into());
    wait_until("only the good blob is there", TIMEOUT, || async {
        let names = cluster.names();
        if names == [good.as_str()] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
}

#[tokio::test]
async fn blob_that_is_found_damaged_twice_keeps_its_copy_and_its_fetch() {
    let (cluster, clock) = (Cluster::new().await, Clock::manual(Timestamp::EPOCH));
    let key = BlobKey::of(&blob());
    let place = |text: &str| {
        let dir = cluster.dir.path().join(DIR).join(key.as_str());
        fs::create_dir_all(&dir).expect("created");
        fs::write(dir.join("topology.json"), text).expect("written");
    };
    place("cut");
    let (mut localizer, _arrived) = cluster.localizer(&clock);
    let aside = cluster.dir.path().join(DIR).join(format!("{key}{DAMAGED}")).join("topology.json");
    localizer.lost(&key);
    localizer.want(&[key.clone()].into());
    // Two checks have read the same damaged bytes.
    localizer.lost(&key);
    assert_eq!(fs::read_to_string(&aside).expect("kept"), "cut");
    assert!(matches!(localizer.blobs.get(&key), Some(Local::Fetching { .. })), "the fetch goes on");
    // The next copy is deleted: the damaged one is still the last to look at.
    localizer.arrived(key.clone());
    localizer.lost(&key);
    assert_eq!(fs::read_to_string(&aside).expect("kept"), "cut");
    place("cut again");
    localizer.arrived(key.clone());
    localizer.lost(&key);
    assert_eq!(fs::read_to_string(&aside).expect("kept"), "cut again");
}
