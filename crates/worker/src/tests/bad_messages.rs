//! Failing children and bad messages, which the adapter would not send.

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
         '"id":6,"tuple":["b", "too many"]', '"id":7,"tuple":["kl\\udce9"]', '"id":9,"tuple":[01]',
         '"id":10,"tuple":[1e400]', '"id":11,"tuple":["\\x41"]', '"tuple":[%s%s],"id":12' % ("[" * 127, "]" * 127),
         '"id":8,"tuple":["z"]']
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
    # One that is not JSON counts as well.
    say('{"command":"sync",}' if command["command"] == "ack" else '{"command":"sync"}')
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
                    [\"fail\", 5], 0, [\"fail\", 6], 1, [\"ack\", 7], 0, [\"fail\", 9], 0, [\"fail\", 10], 0, \
                    [\"fail\", 11], 0, [\"fail\", 12], 1, [\"ack\", 8]]";
    stage.error("source", outcomes).await;
    stage.error("sink", r"values ['a', 'kl\ufffd', 'kl\ufffd', 'z']").await;
    let emitted = TaskCounts { emitted: 4, transferred: 4, executed: 4, acked: 4, failed: 8 };
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

#[tokio::test(flavor = "multi_thread")]
async fn failed_child_is_reported_and_other_tasks_continue() {
    let all = || json!({ "type": "all" });
    let silent = r#"read hello; printf '{"pid":1}\nend\n'; exec sleep 1000"#;
    let mut components = json!({
        "lines": spout(&["python3", "lines.py"], &["line"]),
        "garbage": bolt(&["sh", "-c", "echo what is this"], 1, "lines", all()),
        "leaver": bolt(&["sh", "-c", "echo oh no >&2; exit 3"], 1, "lines", all()),
        "silent": bolt(&["sh", "-c", silent], 1, "lines", all()),
        "missing": bolt(&["no-such-program"], 1, "lines", all()),
        "liar": bolt(&["python3", "liar.py"], 1, "lines", all()),
        "fine": bolt(&["python3", "fine.py"], 1, "lines", all()),
    });
    let settings = json!({ "topology.subprocess.timeout.secs": 10 });
    components["silent"]["settings"] = json!({ "topology.subprocess.timeout.secs": 0.2 });
    let stage = Stage::new(settings, components, 1).await;
    stage.write_resource(
        "lines.py",
        "from stormkeeper import Spout\nclass Lines(Spout):\n    def next_tuple(self): self.emit(['x'])\nLines().run()\n",
    );
    stage.write_resource(
        "liar.py",
        "from stormkeeper import Bolt\nclass Liar(Bolt):\n    def process(self, tup):\n        self.ack(tup)\n        self.ack(tup)\nLiar().run()\n",
    );
    stage.write_resource(
        "fine.py",
        "from stormkeeper import BasicBolt\nclass Fine(BasicBolt):\n    def process(self, tup):\n        self.log('fine')\nFine().run()\n",
    );
    let workers = stage.start();
    let error = stage.error("garbage", "what is this").await;
    let expected = "task 2 of garbage: refused a message (a line on stdout that is not a multilang message)";
    assert!(error.message.starts_with(expected), "{error:?}");
    let error = stage.error("leaver", "exit status: 3").await;
    assert_eq!(error.stack, "oh no");
    stage.error("silent", "no message for 200ms; its process was ended").await;
    stage.error("missing", "cannot start [\"no-such-program\"]").await;
    // The spout starts although some tasks never come up, and the fine bolt works.
    wait_until("the fine bolt acks", WAIT_MAX, || async {
        let counts = stage.counts("fine").await;
        if counts.acked > 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    stage.error("liar", "sent \"ack\" for tuple").await;
    // One bad message costs one message.
    let acked = stage.counts("liar").await.acked;
    wait_until("the liar goes on", WAIT_MAX, || async {
        let counts = stage.counts("liar").await;
        if counts.acked > acked && counts.failed == 0 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    for worker in workers {
        worker.stop().await;
    }
}
