//! Tracked tuples: every line of a file arrives outside of the cluster, whatever is killed, and few arrive
//! twice.

use std::{collections::BTreeMap, fs, path::Path, time::Duration};

use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, Process, kill9};

/// Maximum number of lines in flight.
const MAX_PENDING: usize = 50;

/// Number of lines, and number of times that something is killed meanwhile.
const N_LINES: usize = 6000;
const N_KILLS: usize = 6;

/// Maximum time until the next part of the lines is acked: message timeouts after a kill.
const PROGRESS_MAX: Duration = Duration::from_secs(120);

const SEED: u64 = 16;

/// Number of times that each position was stored.
fn stored(dir: &Path) -> BTreeMap<usize, usize> {
    let mut stored = BTreeMap::new();
    for entry in fs::read_dir(dir).into_iter().flatten() {
        let path = entry.expect("readable").path();
        if path.extension().is_some_and(|extension| extension == "tsv") {
            for line in fs::read_to_string(&path).expect("readable").lines() {
                let (position, _) = line.split_once('\t').expect("two columns");
                *stored.entry(position.parse().expect("a number")).or_default() += 1;
            }
        }
    }
    stored
}

/// Writes `n` lines, and returns the position of each and of the end.
fn write_lines(path: &Path, n: usize) -> (Vec<usize>, usize) {
    let (mut text, mut positions) = (String::new(), Vec::new());
    for line in 0..n {
        positions.push(text.len());
        text += &format!("Line {line} \n");
    }
    fs::write(path, &text).expect("written");
    (positions, text.len())
}

async fn position_reaches(dir: &Path, position: usize, cluster: &Cluster) {
    wait_until(&format!("the lines up to {position} are acked"), PROGRESS_MAX, async || {
        let text = fs::read_to_string(dir.join("position")).unwrap_or_default();
        let now: usize = text.trim().parse().unwrap_or_default();
        if now >= position { Ok(()) } else { Err(format!("position {now}\n{}", cluster.logs())) }
    })
    .await;
}

/// Submits the example with `n` lines of its own. Returns the directory of the results, and the positions.
fn submit(cluster: &Cluster, name: &str, n: usize, timeout: &str) -> (std::path::PathBuf, Vec<usize>, usize) {
    let (dir, lines) = (cluster.path(name), cluster.path(&format!("{name}.txt")));
    let (positions, end) = write_lines(&lines, n);
    let example = cluster.example(
        "reliable-lines",
        &[
            ("orders.csv", &lines.display().to_string()),
            ("/tmp/stormkeeper-reliable-lines-{user}", &dir.display().to_string()),
            ("topology.max.spout.pending: 100", &format!("topology.max.spout.pending: {MAX_PENDING}")),
            ("topology.message.timeout.secs: 10", &format!("topology.message.timeout.secs: {timeout}")),
            ("topology.workers: 2", "topology.workers: 3"),
        ],
    );
    cluster.ok(&["submit", &example.display().to_string(), "--name", name, "--wait"]);
    (dir, positions, end)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_line_is_stored_although_workers_and_daemons_are_killed() {
    let mut cluster = Cluster::start().await;
    cluster.wait_until_ready().await;
    // Nothing is killed and nothing times out: exactly once.
    let (dir, positions, end) = submit(&cluster, "calm", 500, "600");
    position_reaches(&dir, end, &cluster).await;
    assert_eq!(stored(&dir), positions.into_iter().map(|position| (position, 1)).collect());
    cluster.ok(&["kill", "calm", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;

    let mut random = fastrand::Rng::with_seed(SEED);
    let (dir, positions, end) = submit(&cluster, "killed", N_LINES, "5");
    for kill in 0..N_KILLS {
        position_reaches(&dir, positions[(kill + 1) * N_LINES / (N_KILLS + 2)], &cluster).await;
        match kill % 3 {
            0 | 1 => {
                let workers: Vec<Process> = cluster.workers().into_values().collect();
                let victim = random.choice(&workers).expect("there are workers");
                kill9(victim.pid);
            }
            _ => {
                let supervisor = random.usize(..cluster.supervisors.len());
                cluster.supervisors[supervisor].kill9();
                cluster.supervisors[supervisor].start_again();
                // The session of the leader that was killed before may not have ended.
                let leader = wait_until("there is a leader", PROGRESS_MAX, async || cluster.leading().await);
                let leader = leader.await.nimbus;
                cluster.nimbuses[leader].kill9();
                cluster.nimbuses[leader].start_again();
            }
        }
    }
    position_reaches(&dir, end, &cluster).await;
    let stored = stored(&dir);
    let missing: Vec<&usize> = positions.iter().filter(|position| !stored.contains_key(position)).collect();
    assert!(missing.is_empty(), "{missing:?} are lost");
    assert_eq!(stored.len(), N_LINES, "other positions were stored");
    let n_twice = stored.values().sum::<usize>() - N_LINES;
    eprintln!("{n_twice} of {N_LINES} lines were stored again after {N_KILLS} kills");
    assert!(n_twice <= N_KILLS * MAX_PENDING, "{n_twice} lines were stored again");
}
