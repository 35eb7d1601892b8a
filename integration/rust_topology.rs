//! Topologies in Rust: worker programs that are submitted, killed and stopped.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, Process, kill9};

/// Number of lines, words of each, and number of times that something is killed meanwhile.
const N_LINES: usize = 6000;
const N_WORDS: usize = 3;
const N_KILLS: usize = 6;

/// `topology.max.spout.pending` of the example, in lines.
const MAX_PENDING: usize = 50;

/// Maximum time until the next part of the lines is acked: message timeouts after a kill.
const PROGRESS_MAX: Duration = Duration::from_secs(120);

const SEED: u64 = 17;

/// Returns a program that the build of the tests has made, without its debugging information: with it, it is
/// larger than a blob may be.
pub(crate) fn program(dir: &Path, name: &str) -> String {
    let target = Path::new(env!("CARGO_BIN_EXE_stormkeeper")).parent().expect("a directory");
    let built = target.join("examples").join(name);
    assert!(
        built.exists(),
        "{} is missing: `cargo build -p stormkeeper-topology --examples`",
        built.display()
    );
    let path = dir.join(format!("program-{name}"));
    if !path.exists() {
        let stripped = Command::new("strip").arg("--strip-debug").arg("-o").arg(&path).arg(&built).status();
        assert!(stripped.expect("binutils are there, as for every build").success(), "{}", built.display());
    }
    path.display().to_string()
}

/// Number of times that each word of each line was written.
fn written(dir: &Path) -> BTreeMap<(usize, String), usize> {
    let mut written = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "tsv") {
            for row in fs::read_to_string(&path).expect("readable").lines() {
                let (number, word) = row.split_once('\t').expect("two columns");
                let key = (number.parse().expect("a number"), word.to_owned());
                *written.entry(key).or_default() += 1;
            }
        }
    }
    written
}

fn words(line: usize) -> [String; N_WORDS] {
    [format!("a{}", line % 7), format!("b{line}"), format!("c{}", line % 100)]
}

/// Submits the example with `n` lines of its own. Returns the directory of the results.
fn submit(cluster: &Cluster, name: &str, n: usize, timeout_secs: u32) -> PathBuf {
    let (dir, lines) = (cluster.path(name), cluster.path(&format!("{name}.txt")));
    let text: Vec<String> = (0..n).map(|line| words(line).join(" ")).collect();
    fs::write(&lines, text.join("\n")).expect("written");
    let settings = [
        format!("words.file={}", lines.display()),
        format!("words.dir={}", dir.display()),
        format!("topology.max.spout.pending={MAX_PENDING}"),
        format!("topology.message.timeout.secs={timeout_secs}"),
        "topology.workers=3".to_owned(),
    ];
    let program = program(&cluster.path(""), "rust-word-count");
    let mut arguments = vec!["submit", &program, "--name", name, "--wait"];
    arguments.extend(settings.iter().flat_map(|setting| ["-c", setting]));
    cluster.ok(&arguments);
    dir
}

async fn position_reaches(dir: &Path, line: usize, cluster: &Cluster) {
    wait_until(&format!("the lines before {line} are acked"), PROGRESS_MAX, async || {
        let text = fs::read_to_string(dir.join("position")).unwrap_or_default();
        let now: usize = text.trim().parse().unwrap_or_default();
        if now >= line { Ok(()) } else { Err(format!("position {now}\n{}", cluster.logs())) }
    })
    .await;
}

/// Runs a command that must fail; returns what it says.
fn refused(cluster: &Cluster, args: &[&str]) -> String {
    let output = cluster.run(args);
    assert!(!output.status.success(), "{args:?} succeeded");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_word_is_written_although_workers_and_daemons_are_killed() {
    let mut cluster = Cluster::start().await;
    cluster.wait_until_ready().await;
    // Nothing is killed and nothing times out: exactly once.
    let dir = submit(&cluster, "calm", 500, 600);
    position_reaches(&dir, 500, &cluster).await;
    let all = |n| (0..n).flat_map(|line| words(line).map(|word| ((line, word), 1))).collect();
    let expected: BTreeMap<(usize, String), usize> = all(500);
    assert_eq!(written(&dir), expected);
    wait_until("the counts of all components are shown", PROGRESS_MAX, async || {
        let shown = cluster.json(&["show", "calm"])["components"].clone();
        let acked = ["lines", "split", "write"].map(|id| {
            let of = shown.as_array().and_then(|all| all.iter().find(|one| one["id"] == id));
            of.and_then(|one| one["acked"].as_u64())
        });
        match acked == [Some(500), Some(500), Some(1500)] {
            true => Ok(()),
            false => Err(shown.to_string()),
        }
    })
    .await;
    cluster.ok(&["kill", "calm", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;

    let mut random = fastrand::Rng::with_seed(SEED);
    let dir = submit(&cluster, "killed", N_LINES, 5);
    for kill in 0..N_KILLS {
        position_reaches(&dir, (kill + 1) * N_LINES / (N_KILLS + 2), &cluster).await;
        match kill % 3 {
            0 | 1 => {
                let workers: Vec<Process> = cluster.workers().into_values().collect();
                kill9(random.choice(&workers).expect("there are workers").pid);
            }
            _ => {
                let supervisor = random.usize(..cluster.supervisors.len());
                cluster.supervisors[supervisor].kill9();
                cluster.supervisors[supervisor].start_again();
            }
        }
    }
    position_reaches(&dir, N_LINES, &cluster).await;
    let (written, expected): (_, BTreeMap<(usize, String), usize>) = (written(&dir), all(N_LINES));
    let missing: Vec<_> = expected.keys().filter(|word| !written.contains_key(word)).collect();
    assert!(missing.is_empty(), "{missing:?} are lost");
    assert_eq!(written.len(), expected.len(), "other words were written");
    let n_twice = written.values().sum::<usize>() - expected.len();
    eprintln!("{n_twice} of {} words were written again after {N_KILLS} kills", expected.len());
    assert!(n_twice <= N_KILLS * MAX_PENDING * N_WORDS, "{n_twice} words were written again");
}

#[tokio::test(flavor = "multi_thread")]
async fn components_in_rust_and_python_exchange_tuples() {
    let cluster = Cluster::start().await;
    cluster.wait_until_ready().await;
    let out = cluster.path("mixed.out");
    let (program, setting) = (program(&cluster.path(""), "mixed"), format!("mixed.out={}", out.display()));
    cluster.ok(&["submit", &program, "-c", &setting, "--wait"]);
    wait_until("1000 words are written", PROGRESS_MAX, async || {
        let text = fs::read_to_string(&out).unwrap_or_default();
        let n = text.lines().count();
        if n >= 1000 { Ok(()) } else { Err(format!("{n} words\n{}", cluster.logs())) }
    })
    .await;
    let mut rows: Vec<String> =
        fs::read_to_string(&out).expect("readable").lines().map(str::to_owned).collect();
    rows.sort();
    let mut expected: Vec<String> = (0..1000).map(|n| format!("{n}\tWORD {n}")).collect();
    expected.sort();
    assert_eq!(rows, expected);
    cluster.ok(&["kill", "mixed", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

#[test]
fn program_runs_in_local_mode_until_it_is_idle() {
    let dir = tempfile::tempdir().expect("a directory");
    let out = dir.path().join("mixed.out");
    let output = Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
        .args(["local", &program(dir.path(), "mixed"), "-c", &format!("mixed.out={}", out.display())])
        .args(["--until-idle", "3s", "--for", "120s"])
        .env("TMPDIR", dir.path())
        .output()
        .expect("the binary runs");
    let (told, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "{told}{said}");
    assert!(told.contains("stopped because the topology is idle"), "{told}{said}");
    let written = fs::read_to_string(&out).expect("readable");
    assert_eq!(written.lines().count(), 1000, "{told}{said}");
    assert!(!told.contains("Errors"), "{told}");
    let left: Vec<_> =
        fs::read_dir(dir.path()).expect("readable").map(|entry| entry.expect("read").file_name()).collect();
    assert_eq!(left.len(), 2, "the program and its result: {left:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn program_that_is_no_topology_is_refused_before_anything_is_sent() {
    let cluster = Cluster::start().await;
    cluster.wait_until_ready().await;
    for (program, part) in
        [("/bin/false", "`/bin/false describe` failed"), ("/bin/echo", "printed no topology")]
    {
        let refused = refused(&cluster, &["submit", program]);
        assert!(refused.contains(part), "{refused}");
    }
    let refused = refused(&cluster, &["submit", &program(&cluster.path(""), "mixed"), "--env-filter"]);
    assert!(refused.contains("-c key=value"), "{refused}");
    assert_eq!(cluster.json(&["list"])["topologies"], serde_json::json!([]));
}
