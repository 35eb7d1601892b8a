//! Children that work without sending a message.

use serde_json::json;

use super::{Stage, bolt, spout};
use stormkeeper_model::heartbeat::TaskCounts;

const TUPLES: &str = "
from stormkeeper import Spout
class Tuples(Spout):
    n = 0
    def next_tuple(self):
        if self.n < 30:
            self.emit([self.n])
            self.n += 1
Tuples().run()
";

/// A bolt that never sends anything after its pid. Python reads all that fits into its buffer.
const SILENT: &str = r#"
import json, sys, time
lines = []
def message():
    text = "".join(iter(sys.stdin.readline, "end\n"))
    return json.loads(text)
message()
print('{"pid":1}\nend', flush=True)
while True:
    command = message()
    if command["stream"] == "default":
        time.sleep(0.25)
        with open("seen", "a") as seen:
            print(command["tuple"][0], file=seen)
"#;

#[tokio::test(flavor = "multi_thread")]
async fn child_that_reads_and_never_sends_is_alive_as_long_as_it_works() {
    let mut silent = bolt(&["python3", "silent.py"], 1, "tuples", json!({ "type": "shuffle" }));
    // The 30 tuples take 7.5 s. All of them fit into the buffer of the child.
    silent["settings"] = json!({ "topology.subprocess.timeout.secs": 3 });
    let components = json!({ "tuples": spout(&["python3", "tuples.py"], &["n"]), "silent": silent });
    let stage = Stage::new(json!({}), components, 1).await;
    stage.write_resource("tuples.py", TUPLES);
    stage.write_resource("silent.py", SILENT);
    let workers = stage.start();
    let seen = stage.lines("seen", 30).await;
    let expected: Vec<String> = (0..30).map(|n| n.to_string()).collect();
    assert_eq!(seen, expected, "each tuple once: the child was not restarted");
    stage.counts_become("silent", TaskCounts { executed: 30, ..TaskCounts::default() }).await;
    for worker in workers {
        worker.stop().await;
    }
}
