//! Samples of tuples of components in Rust and of components in child processes.

use std::fs;

use super::*;
use stormkeeper_coordination::cluster::{
    layout,
    record::{self, TopologyRecord},
};
use stormkeeper_model::{
    Timestamp,
    tuple_samples::{SAMPLES_FILE, TupleSample, TupleSamples},
};

const ADD_ONE: &str = r#"
from stormkeeper import BasicBolt
class AddOne(BasicBolt):
    def process(self, tup):
        self.emit([tup.values[0] + 1, tup.values[1]])
AddOne().run()
"#;

/// Emits the number 7 without end, with ids.
struct Sevens;

impl Spout for Sevens {
    fn next(&mut self, out: &mut SpoutOutput<'_>) -> Result<(), Error> {
        out.emit_with_id(7, (7_u64, "seven"))?;
        Ok(())
    }
}

struct Swallow;

impl Bolt for Swallow {
    fn execute(&mut self, _: &Tuple<'_>, _: &mut BoltOutput<'_>) -> Result<(), Error> {
        Ok(())
    }
}

/// Asks for samples of these components, 200 tuples a second.
async fn sample(stage: &Stage, components: &[&str]) {
    let sample = TupleSample { one_in: 3, per_sec: 200, for_secs: 60, until: Timestamp::from_millis(1) };
    let samples = components.iter().map(|component| (id(component), sample)).collect();
    let path = layout::storm(&stage.options.spec.topology);
    let record = TopologyRecord {
        tuple_samples: Some(TupleSamples(samples)),
        ackers: PER_WORKER,
        ..TopologyRecord::sample("t")
    };
    stage.set(&path, record::encode(&record)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn sample_shows_what_components_in_rust_and_in_python_receive_and_emit() {
    let mut add_one = shell_bolt(&["python3", "add_one.py"], 1, "sevens", shuffle());
    add_one["outputs"] = json!({ "default": { "fields": ["n", "text"] } });
    let components =
        json!({ "sevens": spout(), "add-one": add_one, "swallow": bolt(1, "add-one", shuffle()) });
    let settings = json!({ "topology.max.spout.pending": 10 });
    let mut stage = Stage::tracked((PER_WORKER, 30), settings, components, 1).await;
    stage.write_resource("add_one.py", ADD_ONE);
    stage.options.components.add_spout(id("sevens"), || Sevens);
    stage.options.components.add_bolt(id("swallow"), || Swallow);
    let workers = stage.start();
    let file = stage.dir.path().join("w0/logs").join(SAMPLES_FILE);
    wait_until("tuples flow", WAIT_MAX, || async {
        let counts = stage.counts("swallow").await;
        if counts.executed > 100 { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
    assert!(!file.exists(), "nobody has asked");

    sample(&stage, &["add-one", "swallow"]).await;
    let found = |component: &str, way: &str| -> Result<serde_json::Value, String> {
        let text = fs::read_to_string(&file).map_err(|error| error.to_string())?;
        let mut lines = text.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let line = lines.find(|line| line["component"] == component && line["way"] == way);
        line.ok_or_else(|| text.clone())
    };
    for (component, way, values) in [
        ("add-one", "received", json!([7, "seven"])),
        ("add-one", "emitted", json!([8, "seven"])),
        ("swallow", "received", json!([8, "seven"])),
    ] {
        let line = wait_until("a tuple is shown", WAIT_MAX, || async { found(component, way) }).await;
        assert_eq!(line["values"], values, "{line}");
        assert_eq!(line["trees"].as_array().map(Vec::len), Some(1), "{line}");
        assert_eq!(line["until_ms"], 1);
    }
    assert!(found("sevens", "emitted").is_err(), "nobody has asked for it");
    sample(&stage, &["sevens"]).await;
    let line = wait_until("a tuple of the spout", WAIT_MAX, || async { found("sevens", "emitted") }).await;
    assert_eq!((&line["values"], line["to"].as_array().map(Vec::len)), (&json!([7, "seven"]), Some(1)));
    for worker in workers {
        worker.stop().await;
    }
}
