//! Selection of files, their paths, and what happens on disk.

use clap::Parser as _;

use super::*;

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    args: Args,
}

fn args(line: &str) -> Args {
    let words = ["logs", "wc", "--download", "d"].into_iter().chain(line.split_ascii_whitespace());
    Line::try_parse_from(words).expect("valid").args
}

fn listed() -> TopologyLogs {
    let file = |name: &str| serde_json::json!({ "name": name, "size": 3, "modifiedMs": 0 });
    let launch = |port: u16, worker: &str, files: &[&str], refused: &[&str]| {
        let files: Vec<_> = files.iter().map(|name| file(name)).collect();
        let refused: Vec<_> = refused
            .iter()
            .map(|name| serde_json::json!({ "name": name, "reason": "it is a symbolic link" }))
            .collect();
        serde_json::json!({
            "port": port, "worker": worker, "running": true, "files": files, "refused": refused,
        })
    };
    let of = |supervisor: &str, host: &str, workers: Vec<serde_json::Value>| {
        let workers = serde_json::Value::from(workers);
        serde_json::json!({ "supervisor": supervisor, "host": host, "workers": workers })
    };
    let listed = serde_json::json!({ "id": "wc-1-1", "present": true, "unavailable": [], "supervisors": [
        of("s1", "h1", vec![
            launch(1, "1-2-b", &["worker.log", "worker.log.1"], &["worker.out"]),
            launch(1, "1-1-a", &["worker.log"], &[]),
        ]),
        of(".s2", "h2", vec![launch(1, "1-3-c", &["../x", "worker.log"], &[])]),
    ] });
    serde_json::from_value(listed).expect("valid")
}

#[test]
fn newest_launch_of_each_port_is_selected_and_with_past_every_launch() {
    let names = |line: &str| -> Vec<String> {
        let (wanted, _) = select(&listed(), Path::new("d"), &args(line));
        wanted.iter().map(|wanted| wanted.path.display().to_string()).collect()
    };
    let of_h1 = ["d/s1/1-2-b-worker.log", "d/s1/1-2-b-worker.log.1"];
    assert_eq!(names("--worker h1:1"), of_h1);
    assert_eq!(names("--worker h1:1 --past"), [of_h1[0], of_h1[1], "d/s1/1-1-a-worker.log"]);
    assert_eq!(names("--worker h1:2"), [""; 0]);
    assert_eq!(names("").len(), 4);
    let (_, refused) = select(&listed(), Path::new("d"), &args(""));
    assert_eq!(refused.len(), 1);
    assert_eq!((&*refused[0].file, &*refused[0].reason), ("worker.out", "it is a symbolic link"));
}

#[test]
fn names_that_a_server_sends_stay_in_the_directory() {
    let (wanted, _) = select(&listed(), Path::new("d"), &args("--worker h2:1"));
    let paths: Vec<_> = wanted.iter().map(|wanted| wanted.path.display().to_string()).collect();
    assert_eq!(paths, ["d/%2Es2/1-3-c-..%2Fx", "d/%2Es2/1-3-c-worker.log"]);
}

#[test]
fn file_that_exists_is_refused_before_anything_is_downloaded_unless_forced() {
    let dir = tempfile::tempdir().expect("a directory");
    let (wanted, _) = select(&listed(), dir.path(), &args(""));
    check(&wanted, false).expect("nothing is there");
    fs::create_dir_all(wanted[1].path.parent().expect("a parent")).expect("created");
    std::os::unix::fs::symlink("nowhere", &wanted[1].path).expect("linked");
    check(&wanted, false).expect_err("a link is there");
    check(&wanted, true).expect("forced");
}

#[test]
fn file_has_its_name_once_it_is_complete_and_overwrites_none_unless_forced() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("s1/worker.log");
    let entries = || fs::read_dir(path.parent().expect("a parent")).expect("read").count();
    drop(PartialFile::create(&path).expect("created"));
    assert_eq!(entries(), 0, "what is not complete is removed");
    let written = |text: &str, force| {
        let mut partial = PartialFile::create(&path).expect("created");
        partial.file.write_all(text.as_bytes()).expect("written");
        assert!(partial.name != path && partial.name.exists());
        partial.complete(force)
    };
    written("one", false).expect("there is none");
    let error = written("two", false).expect_err("there is one");
    assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
    assert_eq!((fs::read_to_string(&path).expect("read").as_str(), entries()), ("one", 1));
    written("three", true).expect("forced");
    assert_eq!((fs::read_to_string(&path).expect("read").as_str(), entries()), ("three", 1));
}
