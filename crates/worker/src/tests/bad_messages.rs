//! Bad messages of components, sent without the adapter, which would not send them.

use serde_json::json;
use stormkeeper_runtime::test_support::wait_until;

use super::{Stage, TaskCounts, WAIT_MAX, bolt, spout};

const SOURCE: &str = r#"import json, sys
def hear():
    lines = iter(sys.stdin.readline, "end\n")
    return json.loads("".join(lines))
def say(text):
    sys.stdout.buffer.write(text.encode("latin-1") + b"\nend\n")
    sys.stdout.flush()
hear()
say('{"pid": "7"}')
emits = ['"id":1,"tuple":["a"],"task":0,"stream":""', '"id":2,"tuple":[NaN]', '"id":3,"tuple":["kl\xe9"]',
         '"id":4,"tuple":[Infinity]', '"id":5,"tuple":["b"],"stream":"nowhere"',
         '"id":6,"tuple":["b", "too many"]', '"id":7,"tuple":["kl\\udce9"]', '"id":8,"tuple":["z"]']
outcomes = []
while True:
    command = hear()
    if command["command"] == "next" and emits:
        print("a stray line")
        say('{"command":"dance"}')
        say('{"command":"emit","need_task_ids":true,%s}' % emits.pop(0))
        outcomes.append(len(hear()))
    elif command["command"] in ("ack", "fail"):
        outcomes.append([command["command"], command["id"]])
    elif command["command"] == "next" and outcomes:
        say(json.dumps({"command": "error", "msg": "outcomes " + json.dumps(outcomes)}))
        outcomes = []
    say('{"command":"sync"}')
"#;

const SINK: &str = r#"
from stormkeeper import BasicBolt
class Sink(BasicBolt):
    seen = []
    def process(self, tup):
        self.seen.append(tup.values[0])
        self.report_error("values " + ascii(self.seen))
Sink().run()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn bad_messages_cost_one_message_each_and_refused_tuples_fail() {
    let stage = Stage::new(
        json!({ "topology.max.error.report.per.interval": 50 }),
        json!({
            "source": spout(&["python3", "source.py"], &["value"]),
            "sink": bolt(&["python3", "sink.py"], 1, "source", json!({ "type": "shuffle" })),
        }),
        1,
    )
    .await;
    // Written without the adapter, which would not send these messages.
    stage.write_resource("source.py", SOURCE);
    stage.write_resource("sink.py", SINK);
    let workers = stage.start();
    let outcomes = "outcomes [1, [\"ack\", 1], 0, [\"fail\", 2], 1, [\"ack\", 3], 0, [\"fail\", 4], 0, \
                    [\"fail\", 5], 0, [\"fail\", 6], 1, [\"ack\", 7], 1, [\"ack\", 8]]";
    stage.error("source", outcomes).await;
    stage.error("sink", r"values ['a', 'kl\ufffd', 'kl\ufffd', 'z']").await;
    let emitted = TaskCounts { emitted: 4, transferred: 4, executed: 4, acked: 4, failed: 4 };
    wait_until("the counts", WAIT_MAX, || async {
        let counts = stage.counts("source").await;
        let counts = TaskCounts { executed: 4, ..counts };
        if counts == emitted { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}
