//! Processes that a component starts with another session, group and environment end with its worker.

use std::fs;

use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{Cluster, Process, WAIT_MAX, kill9};

/// A spout that starts a process which nothing connects with it any more.
const HIDING: &str = "
import os, subprocess, time
from stormkeeper import Spout

class Hiding(Spout):
    def initialize(self, conf, context):
        script = 'exec /bin/sleep MARK'
        subprocess.Popen('env -i setsid sh -c \"%s\" </dev/null >/dev/null 2>&1 &' % script, shell=True).wait()

    def next_tuple(self):
        time.sleep(0.05)

Hiding().run()
";

/// Unit of start times in `/proc`.
const TICKS_PER_SECOND: u64 = 100;

/// Returns the processes that sleep for `mark` seconds: a number that nobody else uses.
fn hidden(mark: &str) -> Vec<Process> {
    let entries = fs::read_dir("/proc").expect("/proc is there");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<u32>().ok());
    let wanted = format!("/bin/sleep\0{mark}\0");
    pids.filter(|pid| fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line == wanted.as_bytes()))
        .filter_map(Process::of)
        .collect()
}

async fn wait_for_one(mark: &str, cluster: &Cluster, other_than: Option<Process>) -> Process {
    wait_until("one hidden process", WAIT_MAX, async || match hidden(mark)[..] {
        [one] if Some(one) != other_than => Ok(one),
        ref found => Err(format!("{found:?}\n{}", cluster.logs())),
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn process_that_hides_ends_with_its_worker() {
    let cluster = Cluster::start().await;
    let file = cluster.ticker();
    let mark = format!("{}.{}", 100_000 + std::process::id(), fastrand::u32(1..1000));
    let spout = HIDING.replace("MARK", &mark);
    fs::write(file.with_file_name("resources").join("ticks.py"), spout).expect("written");
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    let workers = cluster.wait_until_whole("ticker").await;
    let first = wait_for_one(&mark, &cluster, None).await;

    // The supervisors look at what runs below their workers every second.
    wait_until("the hidden process has run for three seconds", WAIT_MAX, async || {
        let uptime = fs::read_to_string("/proc/uptime").map_err(|error| error.to_string())?;
        let seconds = uptime.split('.').next().and_then(|text| text.parse::<u64>().ok()).ok_or(uptime)?;
        match seconds.checked_sub(first.started / TICKS_PER_SECOND) {
            Some(3..) => Ok(()),
            age => Err(format!("{age:?}")),
        }
    })
    .await;
    for worker in workers.values() {
        kill9(worker.pid);
    }
    cluster.wait_until_whole("ticker").await;
    wait_for_one(&mark, &cluster, Some(first)).await;

    cluster.ok(&["kill", "ticker", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
    wait_until("no hidden process is left", WAIT_MAX, async || match hidden(&mark) {
        left if left.is_empty() => Ok(()),
        left => Err(format!("{left:?}\n{}", cluster.logs())),
    })
    .await;
}
