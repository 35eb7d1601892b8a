//! Whole workers on a memory tree, with real children.

use std::{path::Path, time::Duration};

use super::Options;
use crate::model::{Port, Slot, Timestamp, topology::Settings};

/// Options of a worker whose directory is `dir`.
pub(super) fn options(dir: &Path) -> Options {
    Options {
        topology: "t-1-100".parse().expect("valid"),
        slot: Slot { supervisor: "s".parse().expect("valid"), port: Port(0) },
        start: Timestamp::from_millis(5),
        worker: "w".parse().expect("valid"),
        host: "127.0.0.1".to_owned(),
        dir: dir.to_owned(),
        code: dir.to_owned(),
        defaults: Settings::new(),
        heartbeat_period: Duration::from_millis(20),
        task_beat_period: Duration::from_millis(20),
        subprocess_timeout: Duration::from_secs(30),
    }
}
