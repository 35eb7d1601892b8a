//! A topology on a cluster of real processes, from submit to removal.

use std::{fs, path::Path};

use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, WAIT_MAX},
    counting,
};

/// Copies the word count, with its output in a directory of the test.
fn word_count(cluster: &Cluster, replace: &[(&str, &str)]) -> (String, std::path::PathBuf) {
    // As the default has it, so that two users of a host do not meet.
    let out_line = format!("word.count.out: {:?}", cluster.path("words-{user}").display().to_string());
    let user = std::process::Command::new("id").arg("-un").output().expect("it runs").stdout;
    let user = String::from_utf8(user).expect("text");
    let out = cluster.path(&format!("words-{}", user.trim()));
    let default = ("word.count.out: \"/tmp/stormkeeper-word-count-{user}\"", out_line.as_str());
    let file = cluster.example("word-count", &[&[default], replace].concat());
    (file.display().to_string(), out)
}

async fn wait_for_words(cluster: &Cluster, out: &Path, expected: &counting::Table) {
    wait_until("the tables equal the output of uniq", WAIT_MAX, async || {
        let counted = counting::results(out, "count-");
        if counted == *expected {
            return Ok(());
        }
        let differs = expected.iter().find(|(word, n)| counted.get(*word) != Some(n));
        Err(format!("{} of {} words; {differs:?}\n{}", counted.len(), expected.len(), cluster.logs()))
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn word_count_equals_uniq_and_is_removed_completely() {
    let cluster = Cluster::start().await;
    let (file, out) = word_count(&cluster, &[]);
    let submitted = cluster.ok(&["submit", &file, "--wait"]);
    assert!(submitted.contains("is running"), "{submitted}");
    let workers = cluster.wait_until_whole("word-count").await;
    assert_eq!(workers.len(), 2, "{workers:?}");
    let resources = Path::new(&file).with_file_name("resources");
    wait_for_words(&cluster, &out, &counting::expected_words(&resources)).await;

    let listed = cluster.ok(&["list"]);
    assert!(listed.contains("word-count") && listed.contains("active"), "{listed}");
    assert_eq!(cluster.json(&["show", "word-count"])["workersTotal"], 2);

    let duplicate = cluster.run(&["submit", &file]);
    let message = String::from_utf8_lossy(&duplicate.stderr).into_owned();
    assert_eq!(duplicate.status.code(), Some(4), "{message}");
    assert!(message.contains("word-count") && message.contains("hint:"), "{message}");

    cluster.ok(&["kill", "word-count", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn access_log_equals_awk_and_its_broken_lines_are_errors() {
    let cluster = Cluster::start().await;
    let out = cluster.path("requests");
    let out_line = format!("access.log.out: {:?}", out.display().to_string());
    let file = cluster
        .example("access-log", &[("access.log.out: \"/tmp/stormkeeper-access-log-{user}\"", &out_line)]);
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    let expected = counting::expected_requests(file.parent().expect("in a folder"));
    wait_until("the tables equal the output of awk", WAIT_MAX, async || {
        let mut counted = counting::Table::new();
        for field in ["path", "status", "reason"] {
            let results = counting::results(&out, &format!("by-{field}-"));
            counted.extend(results.into_iter().map(|(value, n)| (format!("{field} {value}"), n)));
        }
        if counted == expected { Ok(()) } else { Err(format!("{counted:?}\n{}", cluster.logs())) }
    })
    .await;
    wait_until("the broken lines are errors of parse", WAIT_MAX, async || {
        let errors = cluster.json(&["get-errors", "access-log"]);
        if errors["last"]["parse"].is_object() { Ok(()) } else { Err(errors.to_string()) }
    })
    .await;
    cluster.ok(&["kill", "access-log", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rebalance_changes_workers_and_tasks() {
    let cluster = Cluster::start().await;
    let (file, _) = word_count(
        &cluster,
        &[("word.count.repeat: 1", "word.count.repeat: 0"), ("word.count.rate: 0", "word.count.rate: 20")],
    );
    cluster.ok(&["submit", &file, "--wait"]);
    cluster.ok(&["rebalance", "word-count", "-w", "0s", "-n", "4", "-e", "split=3"]);
    wait_until("four workers run eight tasks", WAIT_MAX, async || {
        let shown = cluster.json(&["show", "word-count"]);
        let whole = shown["tasksAlive"] == 8 && shown["tasksTotal"] == 8 && shown["workersTotal"] == 4;
        let done = whole && shown["status"] == "active";
        if done { Ok(()) } else { Err(format!("{shown:#}\n{}", cluster.logs())) }
    })
    .await;
    let before = cluster.json(&["show", "word-count"])["components"].clone();
    wait_until("tuples flow", WAIT_MAX, async || {
        let now = cluster.json(&["show", "word-count"])["components"].clone();
        if now == before { Err(now.to_string()) } else { Ok(()) }
    })
    .await;

    for (verb, status) in [("deactivate", "inactive"), ("activate", "active")] {
        cluster.ok(&[verb, "word-count"]);
        // The leader has accepted the change. `show` may reach the follower, whose view is older.
        wait_until("its status is shown", WAIT_MAX, async || {
            let shown = cluster.json(&["show", "word-count"])["status"].clone();
            if shown == status { Ok(()) } else { Err(format!("{shown} after {verb}")) }
        })
        .await;
    }
    cluster.ok(&["kill", "word-count", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unmodified_pystorm_bolt_runs() {
    #[expect(clippy::disallowed_methods, reason = "scripts/test passes the path of pystorm")]
    let pystorm = std::env::var("STORMKEEPER_PYSTORM")
        .expect("STORMKEEPER_PYSTORM is not set: run scripts/test, which installs pystorm and sets it");
    let cluster = Cluster::start().await;
    let (file, out) = word_count(&cluster, &[]);
    let resources = Path::new(&file).with_file_name("resources");
    let split = format!(
        "import sys\nsys.path.insert(0, {pystorm:?})\nfrom pystorm import BasicBolt\n\n\
         class Split(BasicBolt):\n    def process(self, tup):\n        for word in tup.values[0].split():\n            \
         self.emit([word])\n\nSplit().run()\n"
    );
    fs::write(
        resources.join("split.py"),
        split.replace("from pystorm import BasicBolt", "from pystorm import Bolt as BasicBolt"),
    )
    .expect("written");
    cluster.ok(&["submit", &file, "--wait"]);
    wait_for_words(&cluster, &out, &counting::expected_words(&resources)).await;
    cluster.ok(&["kill", "word-count", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}
