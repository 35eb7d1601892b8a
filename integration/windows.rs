//! A topology in Rust with windows by the time in its tuples.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use rustix::process::Signal;
use stormkeeper_runtime::test_support::wait_until;

use crate::{cluster::signal, rust_topology::program};

/// Orders of the program, one in each tenth of a second.
const ORDERS: u64 = 1000;

/// Time of an order, as the program emits it.
fn time_of(number: u64) -> i64 {
    let late = match number {
        n if n % 100 == 99 => 10_000,
        n if n % 10 == 5 => 500,
        _ => 0,
    };
    100 * number as i64 - late
}

fn lines(dir: &Path, name: &str) -> Vec<String> {
    fs::read_to_string(dir.join(name)).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn windows_by_time_have_each_order_once_and_name_the_late_ones() {
    let dir = tempfile::tempdir().expect("a directory");
    let mut local = Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
        .args(["local", &program(dir.path(), "windows")])
        .args(["-c", &format!("windows.out={}", dir.path().display()), "--for", "120s"])
        .env("TMPDIR", dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("the binary runs");

    // The last complete window ends a lag before the last order that is on time.
    let end = (time_of(ORDERS - 2) - 1000).div_euclid(1000) * 1000;
    let is_too_late = |number: &u64| *number % 100 == 99;
    let of_failed: BTreeSet<u64> =
        (0..ORDERS).filter(|n| !is_too_late(n) && (5000..6000).contains(&time_of(*n))).collect();
    let mut expected: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for number in (0..ORDERS).filter(|n| !is_too_late(n) && !of_failed.contains(n)) {
        let start = time_of(number).div_euclid(1000) * 1000;
        if start < end {
            let (n, sum) = expected.entry(start).or_default();
            *n += 1;
            *sum += number;
        }
    }
    let expected: Vec<String> =
        expected.into_iter().map(|(start, (n, sum))| format!("{start} {n} {sum}")).collect();
    let late: BTreeSet<String> =
        (0..ORDERS).filter(|n| is_too_late(n) || of_failed.contains(n)).map(|n| n.to_string()).collect();
    let acked: BTreeSet<String> = (0..ORDERS)
        .filter(|n| is_too_late(n) || time_of(*n) < end)
        .map(|n| format!("acked {n}"))
        .chain(of_failed.iter().map(|n| format!("failed {n}")))
        .collect();
    wait_until("all orders are acked but for those of open windows", Duration::from_secs(60), async || {
        let outcomes: BTreeSet<String> = lines(dir.path(), "outcomes").into_iter().collect();
        let missing: Vec<&String> = acked.difference(&outcomes).collect();
        if missing.is_empty() { Ok(()) } else { Err(format!("missing: {missing:?}")) }
    })
    .await;
    assert_eq!(lines(dir.path(), "windows"), expected);
    let written = lines(dir.path(), "late");
    assert_eq!(written.len(), late.len(), "each once");
    assert_eq!(written.into_iter().collect::<BTreeSet<_>>(), late);
    assert_eq!(lines(dir.path(), "outcomes").len(), acked.len(), "each has one outcome, or two if it failed");
    signal(local.id(), Signal::TERM);
    local.wait().expect("it ends");
}
