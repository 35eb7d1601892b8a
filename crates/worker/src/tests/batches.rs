//! Components in Python that exchange many tuples per message with their worker.

use std::time::Duration;

use serde_json::json;

use super::{Stage, WAIT_MAX, bolt, spout};
use stormkeeper_model::{clock::Clock, heartbeat::TaskCounts};
use stormkeeper_runtime::test_support::wait_until;

const NUMBERS: &str = "
from stormkeeper import Spout
class Numbers(Spout):
    n = 0
    def next_tuple(self):
        for _ in range(100):
            if self.n < self.conf['n']:
                self.emit([self.n])
                self.n += 1
Numbers().run()
";

/// Bolt that never acks, and writes down what it has processed.
const SEES: &str = "
import os, time
from stormkeeper import Bolt
class Sees(Bolt):
    def process(self, tup):
        n = tup.values[0]
        if n >= self.conf.get('slow_from', 1 << 30):
            time.sleep(0.2)
        if n == self.conf.get('stops'):
            open('stopped', 'w').write('here\\n')
            while not os.path.exists('gate'):
                time.sleep(0.01)
        with open('seen', 'a') as seen:
            print(n, file=seen)
Sees().run()
";

async fn stage(settings: serde_json::Value) -> Stage {
    let mut sees = bolt(&["python3", "sees.py"], 1, "numbers", json!({ "type": "shuffle" }));
    sees["settings"] = settings.clone();
    let components = json!({ "numbers": spout(&["python3", "numbers.py"], &["n"]), "sees": sees });
    let stage = Stage::new(settings, components, 1).await;
    stage.write_resource("numbers.py", NUMBERS);
    stage.write_resource("sees.py", SEES);
    stage
}

fn numbers(n: usize) -> Vec<String> {
    (0..n).map(|n| n.to_string()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn silent_bolt_that_works_through_a_batch_for_longer_than_its_timeout_is_alive() {
    // It reads fast at first, and so is given many tuples at once. The last 40 take 8 s.
    const N: usize = 4000;
    let settings = json!({ "n": N, "slow_from": N - 40, "topology.subprocess.timeout.secs": 2 });
    let stage = stage(settings).await;
    let workers = stage.start();
    assert_eq!(stage.lines("seen", N).await, numbers(N), "each tuple once: the child was not restarted");
    for worker in workers {
        worker.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn bolt_that_stops_within_a_batch_holds_a_bounded_number_of_tuples_and_goes_on() {
    const N: usize = 12_000;
    const STOPS: usize = 5000;
    let stage = stage(json!({ "n": N, "stops": STOPS })).await;
    let workers = stage.start();
    stage.lines("stopped", 1).await;
    // As many as it has read at once, and as many in its pipe.
    let bound = (STOPS + 2 * 1024) as u64;
    let clock = Clock::new();
    let stopped = clock.monotonic();
    wait_until("some heartbeats have passed", WAIT_MAX, || async {
        let given = stage.counts("sees").await.executed;
        assert!(given <= bound, "{given} tuples were given to a bolt that stopped at {STOPS}");
        let has_passed = clock.monotonic().since(stopped) > Duration::from_secs(3);
        if has_passed && given > STOPS as u64 { Ok(()) } else { Err(format!("{given}")) }
    })
    .await;
    stage.write_resource("gate", "open");
    assert_eq!(stage.lines("seen", N).await, numbers(N), "all in order, each once");
    let all = TaskCounts { executed: N as u64, ..TaskCounts::default() };
    stage.counts_become("sees", all).await;
    for worker in workers {
        worker.stop().await;
    }
}
