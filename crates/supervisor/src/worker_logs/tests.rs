//! Logs that grow, are rotated, truncated, removed, or are no files, below a directory of the test.

use std::{
    fs::{self, File},
    io::Write as _,
    os::unix::{fs::symlink, net::UnixListener},
    path::PathBuf,
    time::Duration,
};

use proptest::prelude::*;
use rustix::fs::{CWD, FileType, Mode, mknodat};

use super::{chunk::Chunk, name::NoLogName, *};
use stormkeeper_api_types::{
    log_lines::{LINES_MAX, LineFilter},
    message::logs::LogPosition,
};
use stormkeeper_model::clock::Clock;
use stormkeeper_runtime::fs::rotating_file;

pub(crate) const TOPOLOGY: &str = "wc-1-100";

/// A data directory of a supervisor.
pub(crate) struct Dir(tempfile::TempDir);

impl Dir {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a temporary directory"))
    }

    pub(crate) fn store(&self) -> WorkerLogStore {
        WorkerLogStore::new(self.0.path())
    }

    pub(crate) fn path(&self) -> &Path {
        self.0.path()
    }

    /// Creates the directory of a launch, and returns that of its logs.
    pub(crate) fn launch(&self, worker: &str, topology: &str, port: u16, start_ms: u64) -> PathBuf {
        let dir = self.0.path().join("workers").join(worker);
        fs::create_dir_all(dir.join("logs")).expect("created");
        let spec = serde_json::json!({
            "v": 1, "topology": topology, "slot": { "supervisor": "s", "port": port }, "start_ms": start_ms,
            "worker": worker,
        });
        fs::write(dir.join("worker.json"), spec.to_string()).expect("written");
        dir.join("logs")
    }
}

fn worker(id: &str) -> WorkerId {
    id.parse().expect("valid")
}

fn name(text: &str) -> LogName {
    text.parse().expect("a name")
}

/// Reads a log from a position to its end, as a client that follows it.
fn read_on(dir: &Dir, position: &mut LogPosition) -> (String, bool) {
    let (mut text, mut lost) = (String::new(), false);
    for _ in 0..100 {
        let from = (position.offset, Some(position.identity.as_str()));
        let chunk: Chunk =
            dir.store().chunk(&worker("6700-1-00000a"), name("worker.log"), from, 7).expect("read");
        text += &chunk.text;
        lost |= chunk.lost;
        *position = chunk.next;
        if chunk.end {
            return (text, lost);
        }
    }
    panic!("there is no end: {text:?}")
}

fn append(log: &Path, text: &str) {
    let mut file = File::options().create(true).append(true).open(log).expect("opened");
    file.write_all(text.as_bytes()).expect("written");
}

#[test]
fn follower_reads_every_byte_once_across_rotations() {
    let dir = Dir::new();
    let log = dir.launch("6700-1-00000a", TOPOLOGY, 6700, 1).join("worker.log");
    let mut position = LogPosition::default();
    append(&log, "one\n");
    assert_eq!(read_on(&dir, &mut position), ("one\n".to_owned(), false));
    assert_eq!(read_on(&dir, &mut position), (String::new(), false));
    // Two rotations between two reads.
    append(&log, "two\n");
    rotating_file::rotate(&log, 5).expect("rotated");
    append(&log, "three\n");
    rotating_file::rotate(&log, 5).expect("rotated");
    append(&log, "föur\n");
    assert_eq!(read_on(&dir, &mut position), ("two\nthree\nföur\n".to_owned(), false));
    // A rotation after everything was read.
    rotating_file::rotate(&log, 5).expect("rotated");
    append(&log, "five\n");
    assert_eq!(read_on(&dir, &mut position), ("five\n".to_owned(), false));
}

#[test]
fn truncated_and_vanished_logs_are_read_from_their_beginning_and_said_to_be_lost() {
    let dir = Dir::new();
    let log = dir.launch("6700-1-00000a", TOPOLOGY, 6700, 1).join("worker.log");
    let mut position = LogPosition::default();
    append(&log, "a long line\n");
    read_on(&dir, &mut position);
    File::options().write(true).open(&log).expect("there").set_len(0).expect("truncated");
    append(&log, "new\n");
    assert_eq!(read_on(&dir, &mut position), ("new\n".to_owned(), true));
    // The old file must keep its number, as the new one could get it.
    let _kept = File::open(&log).expect("there");
    fs::remove_file(&log).expect("removed");
    append(&log, "newest\n");
    assert_eq!(read_on(&dir, &mut position), ("newest\n".to_owned(), true));
    fs::remove_file(&log).expect("removed");
    let from = (position.offset, Some(position.identity.as_str()));
    let error = dir.store().chunk(&worker("6700-1-00000a"), name("worker.log"), from, 7).expect_err("gone");
    assert_eq!(error.kind(), io::ErrorKind::NotFound);
}

#[test]
fn chunks_end_between_characters_and_bytes_that_are_no_text_are_replaced() {
    let dir = Dir::new();
    let log = dir.launch("6700-1-00000a", TOPOLOGY, 6700, 1).join("worker.log");
    fs::write(&log, "xxxä€𝄞").expect("written");
    let chunk = |offset, length| {
        dir.store().chunk(&worker("6700-1-00000a"), name("worker.log"), (offset, None), length).expect("read")
    };
    let first = chunk(0, 4);
    assert_eq!((first.text.as_str(), first.next.offset, first.end), ("xxx", 3, false));
    assert_eq!(chunk(3, 5).text, "ä€");
    assert_eq!(chunk(3, 8).text, "ä€");
    assert_eq!(chunk(8, 4).text, "𝄞");
    assert_eq!(chunk(u64::MAX, u64::MAX).text, "");
    fs::write(&log, b"a\xff\xc3").expect("written");
    let end = chunk(0, 100);
    assert_eq!((end.text.as_str(), end.next.offset, end.end), ("a\u{fffd}", 2, true), "the rest may come");
}

#[test]
fn only_regular_files_below_the_directory_of_a_launch_are_read() {
    let dir = Dir::new();
    let logs = dir.launch("6700-1-00000a", TOPOLOGY, 6700, 1);
    let secret = dir.path().join("secret");
    fs::write(&secret, "secret").expect("written");
    symlink(&secret, logs.join("worker.log")).expect("linked");
    mknodat(CWD, logs.join("worker.out"), FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a FIFO");
    fs::create_dir(logs.join("worker.log.1")).expect("a directory");
    append(&logs.join("worker.log.2"), "log");
    append(&logs.join("other.log"), "other");
    fs::hard_link(&secret, logs.join("worker.log.4")).expect("linked");
    let _socket = UnixListener::bind(logs.join("worker.log.5")).expect("bound");
    let (files, refused) = dir.store().files(&worker("6700-1-00000a"));
    let files: Vec<String> = files.into_iter().map(|file| file.name).collect();
    assert_eq!(files, ["worker.log.2"]);
    let refused: Vec<_> = refused.iter().map(|it| (it.name.as_str(), it.reason.as_str())).collect();
    let hard_link = "it has another name (a hard link), which may be that of a file of another user";
    assert_eq!(
        refused,
        [
            ("worker.log", "it is a symbolic link"),
            ("worker.log.1", "it is no regular file"),
            ("worker.log.4", hard_link),
            ("worker.log.5", "it is no regular file"),
            ("worker.out", "it is no regular file"),
        ]
    );
    assert_eq!(search(&dir, LineFilter::default(), 100).0, ["log"], "nothing else is searched");
    for refused in ["worker.log", "worker.out", "worker.log.1", "worker.log.3", "worker.log.4"] {
        dir.store().open(&worker("6700-1-00000a"), name(refused)).expect_err(refused);
    }
    // A link in the place of the directory of logs, and of a launch.
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir_all(elsewhere.join("logs")).expect("created");
    fs::write(elsewhere.join("logs/worker.log"), "secret").expect("written");
    fs::write(elsewhere.join("worker.log"), "secret").expect("written");
    fs::remove_dir_all(&logs).expect("removed");
    symlink(&elsewhere, &logs).expect("linked");
    symlink(&elsewhere, dir.path().join("workers/6700-2-00000b")).expect("linked");
    for linked in ["6700-1-00000a", "6700-2-00000b"] {
        dir.store().open(&worker(linked), name("worker.log")).expect_err(linked);
    }
}

#[test]
fn launches_of_the_topology_are_listed_newest_first_and_others_are_not_found() {
    let dir = Dir::new();
    dir.launch("6700-9-00000a", TOPOLOGY, 6700, 9);
    dir.launch("6700-10-00000b", TOPOLOGY, 6700, 10);
    dir.launch("6701-5-00000c", TOPOLOGY, 6701, 5);
    dir.launch("6702-5-00000d", "other-1-100", 6702, 5);
    let damaged = dir.launch("6703-5-00000e", TOPOLOGY, 6703, 5);
    fs::write(damaged.parent().expect("a parent").join("worker.json"), "{").expect("written");
    let store = dir.store();
    let topology: TopologyId = TOPOLOGY.parse().expect("valid");
    let listed: Vec<_> = store.launches(&topology).expect("listed").into_iter().map(|it| it.worker).collect();
    assert_eq!(listed, ["6700-10-00000b", "6700-9-00000a", "6701-5-00000c"].map(worker));
    let find = |port, id: Option<&str>| {
        let found = store.find(&topology, Port(port), id.map(worker)).expect("listed");
        found.map(|launch| launch.worker.to_string())
    };
    assert_eq!(find(6700, None).as_deref(), Some("6700-10-00000b"));
    assert_eq!(find(6700, Some("6700-9-00000a")).as_deref(), Some("6700-9-00000a"));
    assert_eq!(find(6702, None), None, "of another topology");
    assert_eq!(find(6701, Some("6702-5-00000d")), None, "of another topology");
    assert_eq!(find(6702, Some("6701-5-00000c")), None, "of another port");
}

fn search(dir: &Dir, filter: LineFilter, n_last: usize) -> (Vec<String>, Option<String>) {
    // The time of the test's computer does not matter.
    let mut scan = Scan::new(filter, n_last, Clock::manual(Timestamp::EPOCH));
    let found = scan.search(&dir.store(), &worker("6700-1-00000a"));
    (found.lines.into_iter().map(|line| line.text).collect(), scan.incomplete())
}

#[test]
fn last_lines_span_the_parts_of_a_log_and_the_positions_follow_them() {
    let dir = Dir::new();
    let logs = dir.launch("6700-1-00000a", TOPOLOGY, 6700, 1);
    append(&logs.join("worker.log.2"), "1\n2\n");
    append(&logs.join("worker.log.1"), "3\n");
    append(&logs.join("worker.log"), "4\n5\n");
    append(&logs.join("worker.out"), "panicked\n");
    assert_eq!(search(&dir, LineFilter::default(), 4).0, ["2", "3", "4", "5"]);
    assert_eq!(search(&dir, LineFilter::default(), 100).0, ["panicked", "1", "2", "3", "4", "5"]);
    assert_eq!(search(&dir, LineFilter::default(), 0).0, [""; 0]);
    let text = LineFilter { text: Some("3".to_owned()), component: None };
    assert_eq!(search(&dir, text, 100), (vec!["3".to_owned()], None));
    let mut scan = Scan::new(LineFilter::default(), 1, Clock::new());
    let found = scan.search(&dir.store(), &worker("6700-1-00000a"));
    let mut position =
        found.next.iter().find(|next| next.file == "worker.log").expect("one").position.clone();
    append(&logs.join("worker.log"), "6\n");
    assert_eq!(read_on(&dir, &mut position), ("6\n".to_owned(), false));
}

#[test]
fn search_in_large_logs_is_bounded_and_says_so() {
    let dir = Dir::new();
    let logs = dir.launch("6700-1-00000a", TOPOLOGY, 6700, 1);
    // Sparse: the disk has none of its bytes.
    File::create(logs.join("worker.log.1")).expect("created").set_len(1 << 40).expect("a hole");
    append(&logs.join("worker.log"), &format!("{}\nfound\n", "x".repeat(200_000)));
    let text = LineFilter { text: Some("found".to_owned()), component: None };
    let (lines, incomplete) = search(&dir, text, 100);
    assert_eq!(lines, ["found"]);
    assert_eq!(incomplete.as_deref(), Some("the search reads at most 128 MiB"));
    // The lines of a response are bounded too.
    append(&logs.join("worker.log"), &format!("{}\n", "y".repeat(1000)).repeat(6000));
    let all = LineFilter { text: Some("y".to_owned()), component: None };
    let (lines, incomplete) = search(&dir, all, LINES_MAX);
    assert!((4000..4300).contains(&lines.len()), "{}", lines.len());
    assert_eq!(incomplete.as_deref(), Some("the lines have more than 4 MiB"));
    // The time is over before the first part.
    let clock = Clock::manual(Timestamp::EPOCH);
    let mut scan = Scan::new(LineFilter::default(), 10, clock.clone());
    clock.advance(Duration::from_secs(5));
    assert_eq!(scan.search(&dir.store(), &worker("6700-1-00000a")).lines, []);
    assert_eq!(scan.incomplete().as_deref(), Some("the search takes at most 5 s"));
}

proptest! {
    /// Whatever text is sent as the name of a file, it is one of the names that are listed, or refused.
    #[test]
    fn text_is_a_name_only_if_a_name_is_written_like_that(text in "\\PC*|worker\\.(log|out)[./0-9%\\x00]{0,4}") {
        match text.parse::<LogName>() {
            Ok(name) => {
                prop_assert_eq!(name.to_string(), text.clone());
                prop_assert!(!text.contains(['/', '\0']) && !text.contains(".."));
            }
            Err(NoLogName) => prop_assert!(LogName::all().all(|name| name.to_string() != text)),
        }
    }

    /// A read from any position ends within the file, and goes on after what was returned.
    #[test]
    fn chunks_from_any_position_stay_within_the_file(
        content in prop::collection::vec(any::<u8>(), 0..64),
        offset in 0_u64..80,
        length in 0_u64..80,
        identity in prop::option::of("[0-9a-f-]{0,8}"),
    ) {
        let dir = Dir::new();
        let log = dir.launch("6700-1-00000a", TOPOLOGY, 6700, 1).join("worker.log");
        fs::write(&log, &content).expect("written");
        let from = (offset, identity.as_deref());
        let chunk = dir.store().chunk(&worker("6700-1-00000a"), name("worker.log"), from, length).expect("read");
        prop_assert!(chunk.offset <= chunk.size && chunk.next.offset <= chunk.size);
        prop_assert!(chunk.next.offset >= chunk.offset);
        prop_assert_eq!(chunk.size, content.len() as u64);
    }
}
