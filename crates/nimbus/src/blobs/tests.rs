use std::{collections::BTreeSet, convert::Infallible};

use futures_util::stream;

use super::{replicate::Replicator, *};
use stormkeeper_access::tls::client::ClientTls;
use stormkeeper_api_types::{blobs::BlobClient, message::Code};
use stormkeeper_coordination::{
    cluster::{
        layout,
        observer::Observation,
        record::{NimbusRecord, Role, Stored, TopologyRecord},
        view::ClusterView,
    },
    tree::{
        ReadTree as _, Tree, Version,
        faulty::{FaultPlan, FaultyTree},
        memory::MemoryTree,
    },
};
use stormkeeper_model::{Timestamp, TopologyId};
use stormkeeper_runtime::{fs::FailedWrites, tasks::Tasks, watch};

struct Fixture {
    dir: tempfile::TempDir,
    server: MemoryTree,
    tasks: Tasks,
}

impl Fixture {
    async fn new() -> Self {
        let (server, tasks) = (MemoryTree::new(), Tasks::default());
        server.connect().ensure(&layout::blobs()).await.expect("made");
        Self { dir: tempfile::tempdir().expect("a directory"), server, tasks }
    }

    fn store(&self, bytes_max: u64) -> BlobStore {
        self.store_at(bytes_max, Clock::new())
    }

    fn store_at(&self, bytes_max: u64, clock: Clock) -> BlobStore {
        self.store_over(self.server.connect(), bytes_max, clock)
    }

    fn store_over(&self, tree: Arc<dyn Tree>, bytes_max: u64, clock: Clock) -> BlobStore {
        let presence = Presence::start(Arc::clone(&tree), &self.tasks);
        let me = "host-1".parse().expect("valid");
        let limits = UploadLimits { unused_bytes_max: 1000, free_bytes_min: Some(0) };
        let writes = FailedWrites::new(clock.clone());
        BlobStore::open(self.dir.path(), (bytes_max, limits), me, Store::new(tree), presence, (clock, writes))
            .expect("opened")
    }

    fn files(&self) -> Vec<String> {
        let mut names = names_in(&self.dir.path().join("blobs")).expect("listed");
        names.sort();
        names
    }

    async fn holders(&self, key: &BlobKey) -> usize {
        self.server.connect().children(&layout::blob(key)).await.expect("read").unwrap_or_default().len()
    }
}

fn body(bytes: &'static [u8]) -> impl Stream<Item = Result<Bytes, Infallible>> + Send {
    stream::iter(bytes.chunks(3).map(|chunk| Ok(Bytes::from_static(chunk))))
}

#[tokio::test]
async fn a_blob_is_on_disk_before_it_is_announced() {
    let fixture = Fixture::new().await;
    let store = fixture.store(100);
    let key = BlobKey::of(b"hello world");
    store.put(&key, body(b"hello world")).await.expect("stored");
    let (path, bytes) = store.file(&key).expect("here");
    assert_eq!((std::fs::read(path).expect("read").as_slice(), bytes), (&b"hello world"[..], 11));
    assert_eq!(fixture.holders(&key).await, 1);
    store.put(&key, body(b"hello world")).await.expect("storing a blob again succeeds");
    assert_eq!(fixture.files(), [key.as_str()]);
}

#[tokio::test]
async fn a_failed_upload_leaves_neither_file_nor_announcement() {
    let fixture = Fixture::new().await;
    let store = fixture.store(100);
    let key = BlobKey::of(b"hello");
    assert!(matches!(store.put(&key, body(b"jello")).await, Err(Error::Mismatch { .. })));
    let broken = stream::iter([Ok(Bytes::from_static(b"hel")), Err("gone")]);
    assert!(matches!(store.put(&key, broken).await, Err(Error::Interrupted { .. })));
    let tight = fixture.store(4);
    let refused = tight.put(&key, body(b"hello")).await.expect_err("too large");
    assert_eq!(refused.to_string(), format!("blob {key} is larger than 4 bytes"));
    assert_eq!(fixture.files(), [""; 0]);
    assert_eq!(fixture.holders(&key).await, 0);
}

#[tokio::test]
async fn blobs_on_disk_are_checked_at_start_and_corrupt_ones_put_aside() {
    let fixture = Fixture::new().await;
    let dir = fixture.dir.path().join("blobs");
    std::fs::create_dir_all(&dir).expect("made");
    let (good, bad) = (BlobKey::of(b"good"), BlobKey::of(b"bad"));
    for (name, bytes) in
        [(good.as_str(), "good"), (bad.as_str(), "rotten"), ("tmp-1-1", "half"), ("tmp-notes", "mine")]
    {
        std::fs::write(dir.join(name), bytes).expect("written");
    }
    // As a supervisor of an earlier build left it, which shared the directory.
    let unpacked = BlobKey::of(b"unpacked");
    std::fs::create_dir(dir.join(unpacked.as_str())).expect("made");
    let store = fixture.store(100);
    store.scan_disk().await.expect("read");
    assert!(store.holds(&good) && !store.holds(&bad) && !store.holds(&unpacked));
    let mut left = [good.to_string(), format!("{bad}.corrupt"), "tmp-notes".to_owned(), unpacked.to_string()];
    left.sort();
    assert_eq!(fixture.files(), left);
    assert_eq!(std::fs::read(dir.join(format!("{bad}.corrupt"))).expect("kept"), b"rotten");
}

#[tokio::test]
async fn a_blob_deleted_from_disk_is_withdrawn_and_can_be_stored_again() {
    let fixture = Fixture::new().await;
    let store = fixture.store(100);
    let key = BlobKey::of(b"hello");
    store.put(&key, body(b"hello")).await.expect("stored");
    assert_eq!(store.check_files().await, 0);
    std::fs::remove_dir_all(fixture.dir.path().join("blobs")).expect("deleted");
    store.put(&BlobKey::of(b"other"), body(b"other")).await.expect("the directory is made again");
    assert_eq!(store.check_files().await, 1);
    assert!(!store.holds(&key));
    store.shared.presence.settled().await;
    assert_eq!(fixture.holders(&key).await, 0, "still announced");
    store.put(&key, body(b"hello")).await.expect("stored again");
    assert_eq!(fixture.holders(&key).await, 1);
    std::fs::write(store.path(&key), "hell").expect("cut");
    assert!(!store.check_file(&key).await && !store.holds(&key));
}

#[tokio::test]
async fn unused_blobs_have_a_quota_and_old_ones_make_room() {
    let (fixture, clock) = (Fixture::new().await, Clock::manual(Timestamp::EPOCH));
    let store = fixture.store_at(1000, clock.clone());
    let bytes: [&'static [u8]; 4] = [&[1; 400], &[2; 400], &[3; 400], &[4; 400]];
    let keys = bytes.map(BlobKey::of);
    store.put(&keys[0], body(bytes[0])).await.expect("stored");
    store.put(&keys[1], body(bytes[1])).await.expect("stored");
    let refused = store.put(&keys[2], body(bytes[2])).await.expect_err("over the quota");
    assert_eq!(refused.code(), Code::InsufficientStorage);
    assert!(refused.to_string().contains("nimbus.blobs.unused.bytes.max"), "{refused}");
    assert_eq!(fixture.files().len(), 2, "nothing is left of it");
    // A blob that a topology uses is not counted.
    store.set_used(|key| *key == keys[0]);
    store.put(&keys[2], body(bytes[2])).await.expect("stored");
    store.put(&keys[3], body(bytes[3])).await.expect_err("over the quota");
    clock.advance(MINUTE);
    store.put(&keys[3], body(bytes[3])).await.expect("an old blob makes room");
    assert!(store.holds(&keys[0]), "a topology uses it");
    assert_eq!(keys.iter().filter(|key| store.holds(key)).count(), 3);
}

#[tokio::test]
async fn a_topology_whose_blob_was_deleted_from_disk_is_missing() {
    let fixture = Fixture::new().await;
    let store = fixture.store(100);
    let key = BlobKey::of(b"hello");
    store.put(&key, body(b"hello")).await.expect("stored");
    std::fs::remove_file(store.path(&key)).expect("deleted");
    assert!(store.topology(&key).await.expect("no error").is_none());
    assert!(!store.holds(&key));
}

#[tokio::test]
async fn announcements_that_were_deleted_by_hand_come_back() {
    let (fixture, clock) = (Fixture::new().await, Clock::manual(Timestamp::EPOCH));
    let store = fixture.store_at(100, clock.clone());
    let key = BlobKey::of(b"hello");
    store.put(&key, body(b"hello")).await.expect("stored");
    let tree = fixture.server.connect();
    let me = layout::blob(&key).child("host-1").expect("a name");
    for path in [&me, &layout::blob(&key), &layout::blobs()] {
        tree.delete(path, None).await.expect("deleted");
    }
    let (_observer, replicator) = replicator(&store, &clock, ClusterView::default());
    assert!(replicator.announce(&ClusterView::default(), &mut BTreeSet::new()).await);
    assert_eq!(fixture.holders(&key).await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_locked_znode_of_one_blob_keeps_no_other_blob_from_being_announced() {
    let (fixture, clock) = (Fixture::new().await, Clock::manual(Timestamp::EPOCH));
    let mut keys = ["1", "2", "3", "4"].map(|text| BlobKey::of(text.as_bytes()));
    keys.sort();
    let locked = [layout::blob(&keys[0]), layout::blob(&keys[2])];
    let others: Arc<dyn Tree> = fixture.server.connect();
    for path in &locked {
        others.ensure(path).await.expect("created");
    }
    let tree = FaultyTree::new(fixture.server.connect(), FaultPlan::none().deny(locked));
    let store = fixture.store_over(Arc::<FaultyTree>::clone(&tree), 100, clock.clone());
    for text in ["1", "2", "3", "4"] {
        std::fs::write(store.path(&BlobKey::of(text.as_bytes())), text).expect("written");
    }
    store.scan_disk().await.expect("read");
    let (_observer, replicator) = replicator(&store, &clock, ClusterView::default());
    let (view, mut denied) = (ClusterView::default(), BTreeSet::new());
    assert!(!replicator.announce(&view, &mut denied).await, "two are not announced");
    assert_eq!(denied, [keys[0].clone(), keys[2].clone()].into());
    for (key, n) in keys.iter().zip([0, 1, 0, 1]) {
        assert_eq!((key, fixture.holders(key).await), (key, n));
    }
    let refused = store.announce(&keys[0], 1).await.expect_err("locked");
    assert!(error_chain(&refused).contains("does not authorize"), "{}", error_chain(&refused));
    tree.set_plan(FaultPlan::none());
    assert!(replicator.announce(&view, &mut denied).await);
    assert_eq!((denied.len(), fixture.holders(&keys[0]).await), (0, 1));
}

#[tokio::test]
async fn a_blob_without_a_topology_reports_the_parse_error() {
    let fixture = Fixture::new().await;
    let store = fixture.store(100);
    let key = BlobKey::of(b"hello");
    assert!(store.topology(&key).await.expect("no error").is_none());
    store.put(&key, body(b"hello")).await.expect("stored");
    let reason = store.topology(&key).await.expect_err("no tar");
    assert!(reason.contains("tar"), "{reason}");
}

const MINUTE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn a_blob_just_uploaded_is_kept_whatever_the_retention() {
    let (fixture, clock) = (Fixture::new().await, Clock::manual(Timestamp::EPOCH));
    let store = fixture.store_at(100, clock.clone());
    let key = BlobKey::of(b"hello");
    store.put(&key, body(b"hello")).await.expect("stored");
    clock.advance(MINUTE - Duration::from_millis(1));
    assert!(!store.delete_unused(&key, Duration::ZERO).await);
    store.touch(&key);
    clock.advance(2 * MINUTE);
    assert!(!store.delete_unused(&key, 3 * MINUTE).await);
    assert!(store.delete_unused(&key, MINUTE).await && !store.holds(&key));
    assert_eq!(fixture.files(), [""; 0]);
}

#[tokio::test]
async fn a_blob_uploaded_while_it_is_deleted_is_complete_or_absent() {
    let (fixture, clock) = (Fixture::new().await, Clock::manual(Timestamp::EPOCH));
    let store = fixture.store_at(100, clock.clone());
    let key = BlobKey::of(b"hello");
    for _ in 0..100 {
        store.put(&key, body(b"hello")).await.expect("stored");
        clock.advance(MINUTE);
        let (put, _) = tokio::join!(store.put(&key, body(b"hello")), store.delete_unused(&key, MINUTE));
        put.expect("stored");
        let (path, _) = store.file(&key).expect("the last upload is listed");
        assert!(path.exists(), "the blob is listed but its file is absent");
    }
}

/// A view in which one topology runs `blob`, and a nimbus at `api` has it.
fn using(blob: &BlobKey, api: &str) -> ClusterView {
    let topology_record = TopologyRecord { blob: blob.clone(), ..TopologyRecord::sample("wc") };
    let id: TopologyId = "wc-1-1".parse().expect("valid");
    let other: NimbusId = "host-2".parse().expect("valid");
    let nimbus = NimbusRecord {
        host: "host-2".to_owned(),
        api: api.to_owned(),
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
    ClusterView {
        topologies: [(id, Stored { value: topology_record, version: Version::FIRST })].into(),
        blobs: [(blob.clone(), [other.clone()].into())].into(),
        nimbuses: [(other, nimbus)].into(),
        ..ClusterView::default()
    }
}

fn replicator(
    blobs: &BlobStore,
    clock: &Clock,
    view: ClusterView,
) -> (watch::Sender<Observation>, Replicator) {
    let (observer, observations) = watch::channel(Observation {
        view: Arc::new(view),
        read_at: clock.monotonic(),
        fresh: true,
        n_interruptions: 0,
        fault: None,
    });
    let replicator = Replicator {
        blobs: blobs.clone(),
        me: "host-1".parse().expect("valid"),
        client: Arc::new(BlobClient::new(&ClientTls::off()).expect("made")),
        observations,
        retention: MINUTE,
        n_missing: watch::channel(None).0,
        disk_problem: watch::channel(None).0,
    };
    (observer, replicator)
}

#[tokio::test]
async fn an_unused_blob_is_deleted_only_by_the_latest_fresh_view() {
    let (fixture, clock) = (Fixture::new().await, Clock::manual(Timestamp::EPOCH));
    let store = fixture.store_at(100, clock.clone());
    let key = BlobKey::of(b"hello");
    store.put(&key, body(b"hello")).await.expect("stored");
    clock.advance(2 * MINUTE);
    let (observer, replicator) = replicator(&store, &clock, ClusterView::default());
    observer.send_modify(|observation| observation.view = Arc::new(using(&key, "")));
    replicator.delete_unused().await;
    assert!(store.holds(&key), "a topology that uses the blob was submitted");
    observer.send_modify(|observation| {
        *observation = Observation { view: Arc::default(), fresh: false, ..observation.clone() };
    });
    clock.advance(2 * MINUTE);
    replicator.delete_unused().await;
    assert!(store.holds(&key), "nothing is deleted while the tree cannot be read");
    observer.send_modify(|observation| observation.fresh = true);
    replicator.delete_unused().await;
    assert!(!store.holds(&key));
}

#[tokio::test]
async fn a_change_of_the_view_does_not_skip_the_pause_before_the_next_fetch() {
    let (fixture, clock) = (Fixture::new().await, Clock::manual(Timestamp::EPOCH));
    let store = fixture.store_at(100, clock.clone());
    let key = BlobKey::of(b"hello");
    // No process listens on this port.
    let view = using(&key, "127.0.0.1:2");
    let (_observer, replicator) = replicator(&store, &clock, view.clone());
    let mut retries = BTreeMap::new();
    let first = replicator.fetch_missing(&view, &mut retries).await;
    let due = retries[&key].due;
    assert!(first <= Duration::from_millis(500), "{first:?}");
    replicator.fetch_missing(&view, &mut retries).await;
    assert_eq!(retries[&key].due, due, "fetched before it was due");
    clock.advance(first);
    replicator.fetch_missing(&view, &mut retries).await;
    assert!(retries[&key].due > due);
    let due = retries[&key].due;
    let mut elsewhere = view;
    elsewhere.nimbuses.values_mut().for_each(|nimbus| nimbus.api = "127.0.0.1:1".to_owned());
    clock.advance(Duration::from_millis(1));
    replicator.fetch_missing(&elsewhere, &mut retries).await;
    assert_ne!(retries[&key].due, due, "another nimbus is asked at once");
}
