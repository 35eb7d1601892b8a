//! Tests with real processes. A worker is a shell script here; it receives `worker --spec FILE` as
//! its arguments and ignores them.

use std::{
    os::unix::fs::PermissionsExt as _,
    sync::atomic::{AtomicU32, Ordering},
};

use tempfile::TempDir;

use super::*;
use stormkeeper_model::{Port, Slot, Timestamp, clock::Clock, topology::Settings};
use stormkeeper_runtime::{cgroup::scope::ScopeCgroup, test_support::wait_until};

fn environment() -> WorkerEnvironment {
    WorkerEnvironment::select(std::env::vars_os(), &[])
}

struct TestHost {
    dir: TempDir,
    // Part of the ids of its workers: the cgroups of all hosts are in one place, as are their pids.
    number: u32,
}

impl TestHost {
    fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(1);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self { dir: tempfile::tempdir().expect("temporary directory"), number }
    }

    fn worker(&self, name: &str) -> WorkerId {
        format!("{name}-{}-{}", std::process::id(), self.number).parse().expect("valid id")
    }

    /// Workers that run this shell script.
    fn processes(&self, script: &str) -> OsProcesses {
        let program = self.dir.path().join("program");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).expect("written");
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).expect("executable");
        OsProcesses::new(program, self.dir.path().to_owned(), environment())
    }

    fn spec(&self, worker: &str) -> LaunchSpec {
        let dir = self.dir.path().join(worker);
        fs::create_dir_all(dir.join("logs")).expect("created");
        LaunchSpec {
            topology: "t-1-100".parse().expect("valid id"),
            slot: Slot { supervisor: "s".parse().expect("valid id"), port: Port(6700) },
            start: Timestamp::EPOCH,
            worker: self.worker(worker),
            host: "h".to_owned(),
            dir,
            code: self.dir.path().to_owned(),
            defaults: Settings::new(),
            heartbeat_period: Duration::from_secs(1),
            task_heartbeat_period: Duration::from_secs(1),
            subprocess_timeout: Duration::from_secs(1),
            metric_report_period: Duration::from_secs(60),
            config_file: None,
            overrides: Vec::new(),
            tasks: stormkeeper_model::task_set::TaskSet::default(),
            withheld_variables: Vec::new(),
            abandoned_after: Duration::from_secs(3600),
            owner: String::new(),
            files: None,
            user: None,
            connections: None,
        }
    }
}

const TIMEOUT: Duration = Duration::from_secs(30);

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    wait_until(what, TIMEOUT, || {
        let state = if holds() { Ok(()) } else { Err("not yet".to_owned()) };
        async { state }
    })
    .await;
}

fn log(spec: &LaunchSpec) -> String {
    fs::read_to_string(spec.dir.join(logs::WORKER_LOG)).unwrap_or_default()
}

#[tokio::test]
async fn exit_status_and_output_are_kept() {
    let host = TestHost::new();
    let processes = host.processes("echo out; echo err >&2; echo $*; env; exit 7");
    let spec = host.spec("w1");
    let id = processes.launch(&spec).await.expect("launched");
    assert_eq!(processes.exited(id).await, ExitReport::Code(7));
    let log = log(&spec);
    assert!(log.starts_with("out\nerr\nworker --spec"), "{log}");
    assert!(log.contains(&format!("STORMKEEPER_SUPERVISOR_DIR={}", host.dir.path().display())), "{log}");
    assert!(log.contains(&format!("STORMKEEPER_WORKER={}", spec.worker)), "{log}");
    assert_eq!(state_of(id), ProcessState::Gone, "not reaped");
    assert_eq!(processes.exited(id).await, ExitReport::Unknown, "called again");
}

#[tokio::test]
async fn killing_a_worker_kills_its_components() {
    let host = TestHost::new();
    let processes = host.processes("sleep 1000 & echo $!; wait");
    let spec = host.spec("w1");
    let id = processes.launch(&spec).await.expect("launched");
    until("the component started", || !log(&spec).is_empty()).await;
    let component: u32 = log(&spec).trim().parse().expect("a pid");
    assert!(processes.is_alive(id));

    // Only the worker itself is killed, as by the out-of-memory killer.
    kill_process(pid_of(id).expect("a pid"), Signal::KILL).expect("killed");
    let clock = Clock::new();
    let before = clock.monotonic();
    assert_eq!(processes.exited(id).await, ExitReport::Signal(9));
    assert!(clock.monotonic().since(before) < Duration::from_secs(1), "the exit was seen late");
    until("the component is gone", || table::entry(component).expect("readable").is_none_or(|e| e.is_zombie))
        .await;
}

#[tokio::test]
async fn sigterm_reaches_the_worker_alone() {
    let host = TestHost::new();
    // A component that prints a line if it is signalled itself.
    let processes = host.processes(
        "(trap 'echo signalled; exit' TERM; while :; do sleep 0.01; done) & \
         trap 'sleep 0.2; exit 3' TERM; echo ready; while :; do sleep 0.01; done",
    );
    let spec = host.spec("w1");
    let id = processes.launch(&spec).await.expect("launched");
    until("the worker is ready", || !log(&spec).is_empty()).await;
    let other = ProcessId { started: id.started + 1, ..id };
    processes.signal(other, StopSignal::Kill).expect("no such process");
    assert!(processes.is_alive(id) && !processes.is_alive(other));
    processes.signal(id, StopSignal::Terminate).expect("signalled");
    assert_eq!(processes.exited(id).await, ExitReport::Code(3));
    assert!(!log(&spec).contains("signalled"), "{}", log(&spec));
    processes.signal(id, StopSignal::Kill).expect("gone is fine");
}

#[tokio::test]
async fn adopted_process_is_found_watched_and_killed() {
    let host = TestHost::new();
    let spec = host.spec("w1");
    // The supervisor is gone: its worker was started by a shell that has ended.
    let start = format!(
        "{SUPERVISOR_DIR_VARIABLE}={} {WORKER_VARIABLE}={} setsid sh -c 'sleep 1000 & echo ready; wait' \
         </dev/null >>{} 2>&1 & wait_for_setsid=; exit 0",
        host.dir.path().display(),
        spec.worker,
        spec.dir.join(logs::WORKER_LOG).display(),
    );
    assert!(Command::new("sh").arg("-c").arg(start).status().expect("started").success());
    until("the orphan is ready", || log(&spec).contains("ready")).await;

    let processes = host.processes("exit 1");
    let id = processes.find(&spec.worker, None).await.expect("found by its environment");
    assert!(processes.is_alive(id));
    let other = Some(rustix::process::geteuid().as_raw() + 1);
    assert_eq!(processes.find(&spec.worker, other).await, None, "a worker of another user");
    assert_eq!(processes.find(&"w2".parse().expect("valid id"), None).await, None);
    let watch = processes.exited(id);
    let stop = async {
        // The watch is in place before the signal is sent.
        tokio::task::yield_now().await;
        processes.signal(id, StopSignal::Kill).expect("signalled");
    };
    assert_eq!(tokio::join!(watch, stop).0, ExitReport::Unknown);
    assert!(!processes.is_alive(id));
}

#[tokio::test]
async fn process_that_left_the_group_is_swept() {
    let host = TestHost::new();
    let processes = host.processes(
        "setsid sh -c 'echo ready; exec sleep 1000' &
         until grep -q ready logs/worker.out; do sleep 0.01; done",
    );
    let spec = host.spec("w1");
    let id = processes.launch(&spec).await.expect("launched");
    assert_eq!(processes.exited(id).await, ExitReport::Code(0));
    assert_eq!(processes.sweep(&spec.worker).await, 1);
    assert_eq!(processes.sweep(&spec.worker).await, 0);
}

#[tokio::test]
async fn missing_program_is_a_launch_error() {
    let host = TestHost::new();
    let processes =
        OsProcesses::new("/nonexistent/program".into(), host.dir.path().to_owned(), environment());
    let error = processes.launch(&host.spec("w1")).await.expect_err("refused");
    assert_eq!(error.to_string(), "cannot start /nonexistent/program");
}

#[tokio::test]
async fn worker_gets_the_selected_variables_and_its_own() {
    let host = TestHost::new();
    let variables = [("PATH", "/usr/bin:/bin"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let variables = variables.map(|(name, value)| (name.into(), value.into()));
    let environment = WorkerEnvironment::select(variables, &[]);
    let mut processes = host.processes("env >variables; mv variables written");
    processes.environment = environment.into();
    let spec = host.spec("w1");
    processes.launch(&spec).await.expect("launched");
    let written = spec.dir.join("written");
    until("the variables are written", || written.exists()).await;
    let text = fs::read_to_string(written).expect("readable");
    assert!(text.contains("PATH=/usr/bin:/bin\n"), "{text}");
    assert!(text.contains(&format!("STORMKEEPER_WORKER={}\n", spec.worker)), "{text}");
    assert!(!text.contains("secret"), "{text}");
}

/// Start of a process that leaves its group, its session and its environment, and writes its pid.
const HIDDEN: &str = "env -i setsid sh -c \"echo \\$\\$ >hidden.pid; exec /bin/sleep 1000\"";

fn hidden(spec: &LaunchSpec) -> Option<u32> {
    fs::read_to_string(spec.dir.join("hidden.pid")).ok()?.trim().parse().ok()
}

async fn until_ended(pid: u32) {
    until("it has ended", || table::entry(pid).is_ok_and(|entry| entry.is_none_or(|one| one.is_zombie)))
        .await;
}

#[tokio::test]
async fn process_that_left_everything_is_found_by_a_search_without_a_scope() {
    let host = TestHost::new();
    // As a worker does, this process adopts what its descendants abandon; it must not be PID 1's.
    descendants::adopt_orphans().expect("Linux");
    let processes = host.processes(&format!("{HIDDEN} & echo ready; sleep 1000"));
    let spec = host.spec("w1");
    let id = processes.launch(&spec).await.expect("launched");
    processes.leftovers.search_for(spec.worker.clone(), id);
    let scenario = async {
        until("the hidden process is seen below the worker", || {
            hidden(&spec).is_some_and(|pid| processes.leftovers.has_seen(&spec.worker, pid))
        })
        .await;
        processes.signal(id, StopSignal::Kill).expect("signalled");
        assert_eq!(processes.exited(id).await, ExitReport::Signal(9));
        // The rest of its group may not have ended yet, and count as well.
        assert!(processes.sweep(&spec.worker).await >= 1);
        until_ended(hidden(&spec).expect("it wrote its pid")).await;
        assert_eq!(processes.sweep(&spec.worker).await, 0);
    };
    tokio::select! {
        () = scenario => {}
        () = processes.look_after() => {}
    }
}

#[tokio::test]
async fn process_that_left_everything_is_found_in_the_scope_at_once_and_by_the_next_supervisor() {
    let host = TestHost::new();
    // A worker starts its components long after it was put in its scope; this one waits for it.
    let script = format!("until [ -e scoped ]; do sleep 0.01; done; {HIDDEN} & sleep 1000");
    let processes = host.processes(&script);
    for (name, is_adopted) in [("w1", false), ("w2", false), ("w3", true)] {
        let spec = host.spec(name);
        let id = processes.launch(&spec).await.expect("launched");
        if !processes.leftovers.has_scope(&spec.worker) {
            // A container with read-only cgroups, version 1, or a user without delegation.
            let reason =
                ScopeCgroup::create(host.worker("w9").as_str(), id.pid).expect_err("it was refused before");
            eprintln!("not tested: this host allows no cgroups: {reason}");
            processes.signal(id, StopSignal::Kill).expect("signalled");
            return;
        }
        fs::write(spec.dir.join("scoped"), "").expect("written");
        until("the hidden process runs", || hidden(&spec).is_some()).await;
        let next = host.processes(&script);
        assert_eq!(
            next.remains().await,
            std::slice::from_ref(&spec.worker),
            "also known without its directory"
        );
        if is_adopted {
            next.adopt(&spec.worker, id);
            assert!(next.leftovers.has_scope(&spec.worker), "found by the cgroup of the worker");
        }
        processes.signal(id, StopSignal::Kill).expect("signalled");
        assert_eq!(processes.exited(id).await, ExitReport::Signal(9));
        let sweeper = if name == "w1" { &processes } else { &next };
        // The rest of its group may not have ended yet, and count as well.
        assert!(sweeper.sweep(&spec.worker).await >= 1, "{name}");
        until_ended(hidden(&spec).expect("it wrote its pid")).await;
        assert_eq!(next.remains().await, [], "the scope was removed");
        assert_eq!(sweeper.sweep(&spec.worker).await, 0);
    }
}
