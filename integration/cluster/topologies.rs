//! Topology files for tests.

use std::{
    fs,
    path::{Path, PathBuf},
};

use super::Cluster;

const TICKER: &str = r#"
name: ticker
config: {topology.workers: 2}
spouts: [{id: ticks, parallelism: 1, command: ["python3", "ticks.py"], output: [n]}]
bolts: [{id: sink, parallelism: 2, command: ["python3", "sink.py"], output: []}]
streams: [{from: ticks, to: sink, grouping: {type: SHUFFLE}}]
"#;

const TICKS: &str = "
import time
from stormkeeper import Spout

class Ticks(Spout):
    def next_tuple(self):
        time.sleep(0.05)
        self.emit([1])

Ticks().run()
";

const SINK: &str = "
from stormkeeper import BasicBolt

class Sink(BasicBolt):
    def process(self, tup):
        pass

Sink().run()
";

impl Cluster {
    /// Writes a small topology that never ends: one spout and two tasks of a bolt, in two workers.
    /// Returns the path of its topology file.
    pub(crate) fn ticker(&self) -> PathBuf {
        let dir = self.path("ticker");
        let component = |name: &str, text: &str| {
            fs::write(dir.join("resources").join(name), text).expect("written");
        };
        fs::create_dir_all(dir.join("resources")).expect("a directory");
        component("ticks.py", TICKS);
        component("sink.py", SINK);
        let file = dir.join("topology.yaml");
        fs::write(&file, TICKER).expect("written");
        file
    }

    /// Copies an example, with some of its lines replaced; returns the path of its topology file.
    pub(crate) fn example(&self, name: &str, replace: &[(&str, &str)]) -> PathBuf {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name);
        let to = self.path(&format!("example-{name}"));
        copy_dir(&from, &to);
        let file = to.join("topology.yaml");
        let mut text = fs::read_to_string(&file).expect("the topology file");
        for (before, after) in replace {
            assert!(text.contains(before), "{name} has no {before:?}");
            text = text.replace(before, after);
        }
        fs::write(&file, text).expect("written");
        file
    }
}

pub(crate) fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("readable") {
        let path = entry.expect("readable").path();
        let target = to.join(path.file_name().expect("entries have names"));
        if path.is_dir() {
            copy_dir(&path, &target)
        } else {
            fs::copy(&path, &target).map(drop).expect("copied")
        }
    }
}
