use super::*;

const NIMBUS: FormerDir = FormerDir {
    layout: LayoutFile { kind: "nimbus", traces: &["nimbus-id"], remedy: "move the directory away" },
    moved: &["nimbus-id", "blobs", "metrics", "metrics-sent-"],
    linked: &[],
};

const SUPERVISOR: FormerDir = FormerDir {
    layout: LayoutFile { kind: "supervisor", traces: &["supervisor-id"], remedy: "move the directory away" },
    moved: &["supervisor-id", "ledger"],
    linked: &["blobs", "workers"],
};

/// Writes the files of an earlier build.
fn write(dir: &Path, kind: &str, files: &[&str]) {
    let layout = format!(r#"{{"v":1,"layout":2,"kind":"{kind}"}}"#);
    for (name, text) in files.iter().map(|name| (*name, *name)).chain([("layout", layout.as_str())]) {
        let path = dir.join(name);
        fs::create_dir_all(path.parent().expect("not the root")).expect("created");
        fs::write(path, text).expect("written");
    }
}

/// The files and links below a directory.
fn tree(dir: &Path) -> Vec<String> {
    fn walk(path: &Path, top: &Path, found: &mut Vec<String>) {
        for entry in fs::read_dir(path).expect("listed") {
            let path = entry.expect("listed").path();
            let name = path.strip_prefix(top).expect("below").display().to_string();
            match fs::read_link(&path) {
                Ok(target) => found.push(format!("{name} -> {}", target.display())),
                Err(_) if path.is_dir() => walk(&path, top, found),
                Err(_) => found.push(name),
            }
        }
    }
    let mut found = Vec::new();
    walk(dir, dir, &mut found);
    found.sort();
    found
}

const OF_NIMBUS: &[&str] =
    &["nimbus-id", "nimbus.lock", "blobs/1", "metrics/db", "metrics-sent-7/a", "metrics-files/m", "notes"];

#[test]
fn unused_directory_gets_its_mark_only_and_the_kinds_have_separate_subdirectories() {
    let dir = tempfile::tempdir().expect("a directory");
    for former in [NIMBUS, SUPERVISOR] {
        assert_eq!(former.settle(dir.path()).expect("unused"), dir.path().join(former.layout.kind));
    }
    assert_eq!(tree(dir.path()), ["layout"]);
}

#[test]
fn files_of_an_earlier_build_are_moved_and_other_files_stay() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "nimbus", OF_NIMBUS);
    // The other daemon leaves them alone.
    assert_eq!(SUPERVISOR.settle(dir.path()).expect("of a nimbus"), dir.path().join("supervisor"));
    for _ in 0..2 {
        assert_eq!(NIMBUS.settle(dir.path()).expect("moved"), dir.path().join("nimbus"));
        let moved = ["blobs/1", "layout", "metrics-sent-7/a", "metrics/db", "nimbus-id"];
        let moved = moved.iter().map(|name| format!("nimbus/{name}"));
        let all: Vec<String> = ["layout", "metrics-files/m"]
            .map(str::to_owned)
            .into_iter()
            .chain(moved)
            .chain(["notes".to_owned()])
            .collect();
        assert_eq!(tree(dir.path()), all);
    }
}

#[test]
fn files_of_running_workers_are_reached_by_both_paths() {
    let dir = tempfile::tempdir().expect("a directory");
    write(
        dir.path(),
        "supervisor",
        &["supervisor-id", "ledger/6700.json", "blobs/1/topology.json", "workers/w/heartbeat"],
    );
    SUPERVISOR.settle(dir.path()).expect("moved");
    let expected = [
        "blobs -> supervisor/blobs",
        "layout",
        "supervisor/blobs/1/topology.json",
        "supervisor/layout",
        "supervisor/ledger/6700.json",
        "supervisor/supervisor-id",
        "supervisor/workers/w/heartbeat",
        "workers -> supervisor/workers",
    ];
    assert_eq!(tree(dir.path()), expected);
    fs::write(dir.path().join("workers/w/heartbeat"), "by a worker").expect("written by the former path");
    let read = fs::read_to_string(dir.path().join("supervisor/workers/w/heartbeat")).expect("read");
    assert_eq!(read, "by a worker");
    assert_eq!(NIMBUS.settle(dir.path()).expect("no nimbus"), dir.path().join("nimbus"));
}

/// An earlier build looks at `storm.local.dir` itself, and must not begin as another daemon there.
#[test]
fn earlier_build_refuses_a_directory_whose_files_were_moved() {
    let moved = tempfile::tempdir().expect("a directory");
    write(moved.path(), "nimbus", OF_NIMBUS);
    let unused = tempfile::tempdir().expect("a directory");
    for dir in [moved.path(), unused.path()] {
        NIMBUS.settle(dir).expect("settled");
        for earlier in [NIMBUS.layout, SUPERVISOR.layout] {
            let refused = earlier.check(dir).expect_err("refused by an earlier build").to_string();
            assert!(refused.contains("newer build") && refused.contains("upgrade.md"), "{refused}");
        }
        assert_eq!(NIMBUS.settle(dir).expect("the mark is no layout of a nimbus"), dir.join("nimbus"));
    }
}

/// The operator has moved the files up for an earlier build, and upgrades again.
#[test]
fn files_moved_up_for_an_earlier_build_are_moved_again() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "nimbus", OF_NIMBUS);
    let of_this_build = NIMBUS.settle(dir.path()).expect("moved");
    let before = tree(dir.path());
    for entry in fs::read_dir(&of_this_build).expect("listed") {
        let entry = entry.expect("listed");
        fs::rename(entry.path(), dir.path().join(entry.file_name())).expect("moved up");
    }
    NIMBUS.layout.check(dir.path()).expect("accepted by an earlier build");
    NIMBUS.settle(dir.path()).expect("moved again");
    assert_eq!(tree(dir.path()), before);
}

/// Workers of this build use paths in the subdirectory, also while an earlier build runs.
#[test]
fn link_that_was_made_for_an_earlier_build_is_replaced_by_the_directory() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "supervisor", &["supervisor-id", "workers/w/heartbeat"]);
    symlink(".", dir.path().join("supervisor")).expect("linked");
    let heartbeat = dir.path().join("supervisor/workers/w/heartbeat");
    assert!(heartbeat.exists(), "reached by both paths before");
    assert_eq!(SUPERVISOR.settle(dir.path()).expect("moved"), dir.path().join("supervisor"));
    let expected = [
        "layout",
        "supervisor/layout",
        "supervisor/supervisor-id",
        "supervisor/workers/w/heartbeat",
        "workers -> supervisor/workers",
    ];
    assert_eq!(tree(dir.path()), expected);

    // A directory that has the name of its daemon stays, with the link.
    let named = tempfile::tempdir().expect("a directory");
    let named = named.path().join("supervisor");
    write(&named, "supervisor", &["supervisor-id"]);
    symlink(".", named.join("supervisor")).expect("linked");
    assert_eq!(SUPERVISOR.settle(&named).expect("stays"), named);
}

/// One step of a move from one directory to the other.
type Step<'a> = &'a dyn Fn(&Path, &Path);

/// After each step of the move, another start continues it to the same end.
#[test]
fn interrupted_move_is_continued_from_every_step() {
    let files = ["supervisor-id", "ledger/6700.json", "blobs/1/topology.json", "workers/w/heartbeat"];
    let complete = {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "supervisor", &files);
        SUPERVISOR.settle(dir.path()).expect("moved");
        tree(dir.path())
    };
    let steps: [Step<'_>; 6] = [
        &|_, to| fs::create_dir(to).expect("created"),
        &|from, to| fs::rename(from.join("ledger"), to.join("ledger")).expect("moved"),
        &|from, to| fs::rename(from.join("supervisor-id"), to.join("supervisor-id")).expect("moved"),
        &|_, to| symlink("supervisor/blobs", to.join("blobs")).expect("linked"),
        &|from, to| {
            fs::remove_file(to.join("blobs")).expect("removed");
            fs::rename(from.join("blobs"), to.join("blobs")).expect("moved");
        },
        &|from, _| symlink("supervisor/blobs", from.join("blobs")).expect("linked"),
    ];
    for n in 1..=steps.len() {
        let dir = tempfile::tempdir().expect("a directory");
        write(dir.path(), "supervisor", &files);
        steps[..n].iter().for_each(|step| step(dir.path(), &dir.path().join("supervisor")));
        SUPERVISOR.settle(dir.path()).expect("continued");
        assert_eq!(tree(dir.path()), complete, "interrupted after step {n}");
    }
}

#[test]
fn directory_that_has_the_name_of_its_daemon_stays() {
    let parent = tempfile::tempdir().expect("a directory");
    let dir = parent.path().join("nimbus");
    write(&dir, "nimbus", OF_NIMBUS);
    let before = tree(&dir);
    assert_eq!(NIMBUS.settle(&dir).expect("used as it is"), dir);
    assert_eq!(NIMBUS.settle(parent.path()).expect("the same directory"), dir);
    assert_eq!(tree(&dir), before);
}

#[test]
fn directory_in_use_or_in_both_places_is_refused_and_not_changed() {
    let dir = tempfile::tempdir().expect("a directory");
    write(dir.path(), "nimbus", OF_NIMBUS);
    let before = tree(dir.path());
    let held = lock(dir.path(), "nimbus").expect("free");
    let refused = NIMBUS.settle(dir.path()).expect_err("a daemon of an earlier build runs");
    assert!(matches!(refused, Error::InUse { .. }), "{refused}");
    assert_eq!(tree(dir.path()), before);
    drop(held);
    write(&dir.path().join("nimbus"), "nimbus", &["nimbus-id"]);
    let refused = NIMBUS.settle(dir.path()).expect_err("there are two").to_string();
    assert!(refused.contains("both") && refused.contains("nimbus-id"), "{refused}");
    assert!(dir.path().join("blobs/1").exists());
}

#[test]
fn identity_without_a_layout_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::write(dir.path().join("nimbus-id"), "n").expect("written");
    let refused = NIMBUS.settle(dir.path()).expect_err("of an unreleased build");
    assert!(matches!(refused, Error::Layout(layout_file::Error::Unversioned { .. })), "{refused}");
}

#[test]
fn link_of_the_operator_stays_and_is_reached_from_the_new_place() {
    let (dir, disk) = (tempfile::tempdir().expect("a directory"), tempfile::tempdir().expect("a directory"));
    write(dir.path(), "nimbus", &["nimbus-id"]);
    fs::write(disk.path().join("db"), "data").expect("written");
    symlink(disk.path(), dir.path().join("metrics")).expect("linked");
    NIMBUS.settle(dir.path()).expect("moved");
    assert_eq!(fs::read_to_string(dir.path().join("nimbus/metrics/db")).expect("read"), "data");
    assert!(dir.path().join("metrics").is_symlink());
}
