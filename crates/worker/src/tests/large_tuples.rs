//! Tuples near the limits of size and depth.

use super::*;

/// Emits a list of floats that is short in JSON and too long between workers, then a text near the
/// limit, the deepest list, and a text whose characters take six bytes each in JSON.
const SOURCE: &str = r#"
from stormkeeper import Spout
class Source(Spout):
    def initialize(self, conf, context):
        deep = []
        for _ in range(124):
            deep = [deep]
        self.left = [("floats", [0.5] * 2500000), ("text", "x" * (15 << 20)), ("deep", deep),
                     ("escapes", "\x01" * 2600000)]
    def next_tuple(self):
        if self.left:
            name, value = self.left.pop(0)
            self.emit([value], id=name)
Source().run()
"#;

const SINK: &str = r#"
from stormkeeper import BasicBolt
class Sink(BasicBolt):
    def process(self, tup):
        pass
Sink().run()
"#;

#[tokio::test(flavor = "multi_thread")]
async fn tuple_that_cannot_be_sent_is_an_error_of_its_task_and_every_other_one_arrives() {
    let components = json!({
        "source": spout(&["python3", "source.py"], &["value"]),
        "sink": bolt(&["python3", "sink.py"], 2, "source", json!({ "type": "all" })),
    });
    let stage = Stage::new(json!({}), components, 2).await;
    stage.write_resource("source.py", SOURCE);
    stage.write_resource("sink.py", SINK);
    let workers = stage.start();
    let error = stage.error("source", "bytes, and no worker can be sent more than").await;
    assert!(error.message.contains("the values of a tuple"), "{error:?}");
    // One sink runs in the worker of the source, the other one elsewhere.
    let sent = TaskCounts { emitted: 3, transferred: 6, executed: 4, acked: 3, failed: 1 };
    stage.counts_become("source", sent).await;
    let received = TaskCounts { executed: 6, acked: 6, ..TaskCounts::default() };
    stage.counts_become("sink", received).await;
    for worker in workers {
        worker.stop().await;
    }
}
