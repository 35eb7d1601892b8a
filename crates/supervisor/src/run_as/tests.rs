use std::io::Read as _;

use super::*;

/// A user id that no user of a host has: files can belong to it all the same.
const SOMEBODY: u32 = 3_999_001;

fn somebody() -> WorkerUser {
    WorkerUser { name: "somebody".to_owned(), uid: SOMEBODY, gid: SOMEBODY, home: "/nonexistent".into() }
}

/// Returns whether this test runs as root, who alone can give files away. Says by its name that it did
/// not run otherwise.
fn runs_as_root(test: &str) -> bool {
    let is_root = rustix::process::geteuid().is_root();
    if !is_root {
        eprintln!("{test} did not run: only root can give files to other users");
    }
    is_root
}

fn owner(path: &Path) -> (u32, u32) {
    let metadata = fs::symlink_metadata(path).expect("there");
    (metadata.uid(), metadata.mode() & 0o777)
}

#[test]
fn owner_that_is_no_user_or_one_of_the_system_is_refused() {
    let run_as = RunAs { min_uid: 1000 };
    for unknown in ["", "no-such-user-here", "../root", "a\0b", "root\0"] {
        let refused = run_as.user(unknown).expect_err(unknown);
        assert!(matches!(&refused, RunAsError::UnknownUser { .. }), "{unknown:?}: {refused}");
    }
    for min_uid in [0, 1, 1000] {
        let refused = RunAs { min_uid }.user("root").expect_err("root");
        assert!(matches!(&refused, RunAsError::SystemUser { uid: 0, .. }), "{refused}");
    }
    // Its id is above the smallest one: services and containers share it.
    let refused = run_as.user("nobody").expect_err("nobody").to_string();
    assert!(refused.contains("\"nobody\"") && refused.contains("submit as another owner"), "{refused}");
    assert!(is_nobody("other", NOBODY) && is_nobody("nobody", 1001) && !is_nobody("ann", 1001));
    let refused = run_as.user("daemon").expect_err("a user of the system").to_string();
    assert!(refused.contains("\"daemon\"") && refused.contains("supervisor.run.worker.as.user.min.uid"));
}

#[test]
fn directory_that_others_cannot_reach_is_named() {
    if !runs_as_root("directory_that_others_cannot_reach_is_named") {
        return;
    }
    let top = tempfile::tempdir().expect("a directory");
    let local_dir = top.path().join("data/supervisor");
    fs::create_dir_all(&local_dir).expect("created");
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o700)).expect("set");
    let run_as = RunAs { min_uid: 1000 };
    let refused = run_as.prepare(&local_dir).expect_err("closed").to_string();
    assert!(refused.contains(&format!("pass through {}", top.path().display())), "{refused}");
    fs::set_permissions(top.path(), fs::Permissions::from_mode(0o755)).expect("set");
    run_as.prepare(&local_dir).expect("open");
    for dir in ["", "workers", "worker-files", PACKAGES_DIR] {
        assert_eq!(owner(&local_dir.join(dir)), (0, PASSAGE), "{dir}");
    }
}

#[test]
fn program_that_other_users_cannot_reach_is_named_with_what_keeps_them_out() {
    let top = tempfile::tempdir().expect("a directory");
    let (dir, program) = (top.path().join("bin"), top.path().join("bin/stormkeeper"));
    fs::create_dir(&dir).expect("created");
    File::create(&program).expect("created");
    let run_as = RunAs { min_uid: 1000 };
    let modes = |top_mode, dir_mode, program_mode| {
        for (path, mode) in [(top.path(), top_mode), (&dir, dir_mode), (&program, program_mode)] {
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        }
        run_as.check_program(&program)
    };
    modes(0o755, 0o711, 0o755).expect("others start it");
    for (top_mode, dir_mode, program_mode, expected) in
        [(0o700, 0o755, 0o755, top.path()), (0o755, 0o750, 0o755, &dir), (0o755, 0o755, 0o744, &program)]
    {
        let refused = modes(top_mode, dir_mode, program_mode).expect_err("refused");
        assert!(matches!(&refused, RunAsError::Program { closed, .. } if *closed == *expected), "{refused}");
    }
}

#[test]
fn files_for_a_worker_of_another_user_belong_to_that_user_in_a_directory_of_root() {
    if !runs_as_root("files_for_a_worker_of_another_user_belong_to_that_user_in_a_directory_of_root") {
        return;
    }
    let top = tempfile::tempdir().expect("a directory");
    let worker: WorkerId = "6700-1-00000a".parse().expect("valid");
    let dir = files_dir(top.path()).join(worker.as_str());
    fs::create_dir_all(files_dir(top.path())).expect("created");
    create_files_dir(&dir).expect("created");
    let place = FilesPlace { dir: dir.clone(), user: Some((SOMEBODY, SOMEBODY)) };
    for text in ["k1", "k2", "k2"] {
        place.replace_secret("access.keys", text).expect("written");
        assert_eq!(fs::read_to_string(dir.join("access.keys")).expect("there"), text);
        assert_eq!(owner(&dir.join("access.keys")), (SOMEBODY, 0o600));
    }
    // Its user may have made it as long as the disk.
    let keys = File::options().write(true).open(dir.join("access.keys")).expect("there");
    keys.set_len(1 << 40).expect("a hole");
    place.replace_secret("access.keys", "k2").expect("written");
    assert_eq!(fs::metadata(dir.join("access.keys")).expect("there").len(), 2);
    assert_eq!(owner(&dir), (0, PASSAGE));
    let other: WorkerId = "6700-1-00000b".parse().expect("valid");
    let plain = FilesPlace::plain(&worker_dir::path(top.path(), &other));
    let found = FilesPlace::of_worker(top.path(), &other).expect("plain");
    assert_eq!(found, plain, "a worker of the supervisor's user");
}

fn spec(top: &Path, worker: &WorkerId) -> LaunchSpec {
    let spec = serde_json::json!({
        "topology": "wc-1-100", "slot": { "supervisor": "s", "port": 6700 }, "start_ms": 5, "worker": worker,
        "host": "h", "dir": worker_dir::path(top, worker), "code": "/code", "defaults": {},
        "heartbeat_period_ms": 1000, "task_heartbeat_period_ms": 1000, "subprocess_timeout_ms": 1000,
        "config_file": null, "overrides": [], "files": files_dir(top).join(worker.as_str()), "user": somebody(),
    });
    serde_json::from_value(spec).expect("a specification")
}

#[test]
fn specification_of_a_worker_of_another_user_belongs_to_root_and_a_changed_one_is_not_believed() {
    let test = "specification_of_a_worker_of_another_user_belongs_to_root_and_a_changed_one_is_not_believed";
    if !runs_as_root(test) {
        return;
    }
    let top = tempfile::tempdir().expect("a directory");
    fs::create_dir_all(files_dir(top.path())).expect("created");
    let worker: WorkerId = "6700-1-00000a".parse().expect("valid");
    let spec = spec(top.path(), &worker);
    worker_dir::prepare(&spec).expect("prepared");
    let file = spec.path();
    assert_eq!(owner(&file), (0, READ_BY_GROUP));
    assert_eq!(fs::metadata(&file).expect("there").gid(), SOMEBODY, "the group of the user reads it");
    let place = FilesPlace::of_worker(top.path(), &worker).expect("there");
    assert_eq!(place, FilesPlace::of_spec(&spec));
    assert_eq!(place.read_spec().expect("believed"), spec);
    // An earlier build gave it to the user, who could change it.
    lchown(&file, Some(SOMEBODY), None).expect("given");
    let place = FilesPlace::of_worker(top.path(), &worker).expect("there");
    assert_eq!(place, FilesPlace::of_spec(&spec), "the keys are still written for that user");
    let refused = place.read_spec().expect_err("not believed");
    assert!(refused.contains("may have changed"), "{refused}");
    // Without it, nothing is written where the user could have put a link.
    lchown(&spec.dir, Some(SOMEBODY), None).expect("given");
    fs::remove_dir_all(files_dir(top.path()).join(worker.as_str())).expect("removed");
    let refused = FilesPlace::of_worker(top.path(), &worker).expect_err("no place").to_string();
    assert!(refused.contains("rebalance"), "{refused}");
}

#[test]
fn link_in_the_directory_of_another_user_leads_to_no_file_of_somebody_else() {
    if !runs_as_root("link_in_the_directory_of_another_user_leads_to_no_file_of_somebody_else") {
        return;
    }
    let top = tempfile::tempdir().expect("a directory");
    let (dir, secret) = (top.path().join("worker"), top.path().join("secret"));
    for name in ["", "pids", "logs"] {
        fs::create_dir_all(dir.join(name)).expect("created");
    }
    fs::write(&secret, "s3cr3t").expect("written");
    let log = File::create(dir.join("logs/worker.out")).expect("created");
    hand_over(&dir, &log, &somebody()).expect("handed over");
    for path in ["", "pids", "logs", "logs/worker.out"] {
        assert_eq!(owner(&dir.join(path)).0, SOMEBODY, "{path}");
    }
    fs::write(dir.join("exit-reason"), "mine").expect("written");
    lchown(dir.join("exit-reason"), Some(SOMEBODY), None).expect("given");
    let read = |name: &str| {
        let mut text = String::new();
        user_files::open(&dir, name).and_then(|mut file| file.read_to_string(&mut text)).map(|_| text)
    };
    assert_eq!(read("exit-reason").expect("its own"), "mine");
    fs::remove_file(dir.join("exit-reason")).expect("there");
    std::os::unix::fs::symlink(&secret, dir.join("exit-reason")).expect("linked");
    assert!(read("exit-reason").is_err(), "a link to a file of root");
    std::os::unix::fs::symlink("logs/worker.out", dir.join("report.json")).expect("linked");
    assert!(read("report.json").is_err(), "a link to a file of the same user");
    fs::hard_link(&secret, dir.join("heartbeat")).expect("linked");
    assert!(read("heartbeat").is_err(), "a file of root under another name");

    // The log and the older one may be links as well, and so may their directory.
    let rotate = || rotate_in_place(&dir.join("logs"), ("worker.out", "worker.out.1"), SOMEBODY);
    fs::write(dir.join("logs/worker.out"), "line\n").expect("written");
    std::os::unix::fs::symlink(&secret, dir.join("logs/worker.out.1")).expect("linked");
    rotate().expect("the link is replaced");
    assert_eq!(fs::read_to_string(dir.join("logs/worker.out.1")).expect("there"), "line\n");
    assert_eq!(owner(&dir.join("logs/worker.out.1")).0, SOMEBODY);
    assert_eq!(fs::metadata(dir.join("logs/worker.out")).expect("there").len(), 0);
    fs::remove_file(dir.join("logs/worker.out")).expect("there");
    std::os::unix::fs::symlink(&secret, dir.join("logs/worker.out")).expect("linked");
    rotate().expect_err("a link to a file of root");
    fs::rename(dir.join("logs"), dir.join("elsewhere")).expect("moved");
    std::os::unix::fs::symlink(top.path(), dir.join("logs")).expect("linked");
    rotate().expect_err("a link to a directory of root");
    assert!(read("logs/worker.out").is_err(), "a file behind a link to a directory");
    assert_eq!(fs::read_to_string(&secret).expect("there"), "s3cr3t", "nothing was written through a link");
}

#[test]
fn log_with_a_hole_fills_no_disk_when_it_is_rotated() {
    if !runs_as_root("log_with_a_hole_fills_no_disk_when_it_is_rotated") {
        return;
    }
    let logs = tempfile::tempdir().expect("a directory");
    let log = logs.path().join("worker.out");
    fs::write(&log, "").expect("written");
    File::options().write(true).open(&log).expect("there").set_len(1 << 40).expect("a hole");
    lchown(&log, Some(SOMEBODY), Some(SOMEBODY)).expect("given");
    rotate_in_place(logs.path(), ("worker.out", "worker.out.1"), SOMEBODY).expect("rotated");
    let older = fs::metadata(logs.path().join("worker.out.1")).expect("there");
    assert_eq!((older.len(), fs::metadata(&log).expect("there").len()), (ROTATED_BYTES_MAX, 0));
}

#[test]
fn package_is_copied_for_each_user_and_removed_with_its_blob() {
    if !runs_as_root("package_is_copied_for_each_user_and_removed_with_its_blob") {
        return;
    }
    let top = tempfile::tempdir().expect("a directory");
    let key = BlobKey::of(b"package");
    let code = top.path().join("blobs").join(key.as_str());
    fs::create_dir_all(code.join("resources")).expect("created");
    fs::create_dir_all(packages(top.path())).expect("created");
    fs::write(code.join("resources/run.sh"), "#!/bin/sh").expect("written");
    fs::set_permissions(code.join("resources/run.sh"), fs::Permissions::from_mode(0o700)).expect("set");
    std::os::unix::fs::symlink("/etc/passwd", code.join("link")).expect("linked");
    let copy = package_of(top.path(), &code, &somebody()).expect("copied");
    assert_eq!(copy.file_name().expect("a name").to_string_lossy(), format!("{SOMEBODY}-{key}"));
    assert_eq!(owner(&copy), (SOMEBODY, 0o700), "no other user reads it");
    assert_eq!(owner(&copy.join("resources/run.sh")), (SOMEBODY, 0o700), "it can be started");
    assert!(!copy.join("link").exists(), "a package has no links");
    assert_eq!(package_of(top.path(), &code, &somebody()).expect("there"), copy);
    let other = WorkerUser { uid: SOMEBODY + 1, ..somebody() };
    assert_ne!(package_of(top.path(), &code, &other).expect("copied"), copy);
    remove_packages(top.path(), |kept| *kept == key);
    assert!(copy.exists());
    remove_packages(top.path(), |_| false);
    assert_eq!(fs::read_dir(packages(top.path())).expect("there").count(), 0);
}

#[test]
fn process_of_a_user_has_no_group_of_root() {
    if !runs_as_root("process_of_a_user_has_no_group_of_root") {
        return;
    }
    use std::os::unix::process::CommandExt as _;

    let mut command = std::process::Command::new("cat");
    let output = command.arg("/proc/self/status").uid(SOMEBODY).gid(SOMEBODY).output().expect("runs");
    let status = String::from_utf8_lossy(&output.stdout).into_owned();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let all = vec![SOMEBODY.to_string(); 4];
    assert_eq!((field("Uid:"), field("Gid:")), (all.clone(), all), "{status}");
    assert_eq!(field("Groups:"), Vec::<String>::new(), "{status}");
}
