use std::convert::Infallible;

use futures_util::stream;

use super::*;
use crate::{daemon::tasks::Tasks, tree::memory::MemoryTree};

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
        let tree: Arc<dyn Tree> = self.server.connect();
        let presence = Presence::start(Arc::clone(&tree), &self.tasks);
        let me = "host-1".parse().expect("valid");
        BlobStore::open(self.dir.path(), bytes_max, me, tree, presence, Clock::new()).expect("opened")
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
    store.put(&key, body(b"hello world")).await.expect("storing it again is no trouble");
    assert_eq!(fixture.files(), [key.as_str()]);
}

#[tokio::test]
async fn bytes_that_are_not_those_asked_for_leave_nothing() {
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
async fn what_is_on_disk_is_checked_at_start() {
    let fixture = Fixture::new().await;
    let dir = fixture.dir.path().join("blobs");
    std::fs::create_dir_all(&dir).expect("made");
    let (good, bad) = (BlobKey::of(b"good"), BlobKey::of(b"bad"));
    for (name, bytes) in
        [(good.as_str(), "good"), (bad.as_str(), "rotten"), ("tmp-1-1", "half"), ("notes", "mine")]
    {
        std::fs::write(dir.join(name), bytes).expect("written");
    }
    let store = fixture.store(100);
    store.take_stock().await.expect("read");
    assert!(store.holds(&good) && !store.holds(&bad));
    let mut left = [good.as_str().to_owned(), "notes".to_owned()];
    left.sort();
    assert_eq!(fixture.files(), left);
}

#[tokio::test]
async fn a_blob_that_holds_no_topology_says_what_is_wrong() {
    let fixture = Fixture::new().await;
    let store = fixture.store(100);
    let key = BlobKey::of(b"hello");
    assert!(store.topology(&key).await.expect("no trouble").is_none());
    store.put(&key, body(b"hello")).await.expect("stored");
    let reason = store.topology(&key).await.expect_err("no tar");
    assert!(reason.contains("tar"), "{reason}");
}
