//! Resource requests of a component: `onHeapMemoryLoad`, `offHeapMemoryLoad` and `cpuLoad`.

use crate::{
    flux::{
        component::SettingAt,
        walk::{Entries, Walk},
    },
    yaml::Value,
};
use stormkeeper_model::{topology::Settings, unsupported_keys};

/// Keys of a component in Flux, and the setting that each of them sets in Storm.
const LOADS: &[(&str, &str)] = &[
    ("onHeapMemoryLoad", "topology.component.resources.onheap.memory.mb"),
    ("offHeapMemoryLoad", "topology.component.resources.offheap.memory.mb"),
    ("cpuLoad", "topology.component.cpu.pcore.percent"),
];

/// Reads the requests into the settings of their component.
pub(super) fn read(walk: &mut Walk, map: &Entries<'_>, settings: &mut Settings) -> Vec<SettingAt> {
    let mut places = Vec::new();
    for (key, setting) in LOADS {
        let Some(at) = map.get(key) else { continue };
        let is_amount = match at.node.value {
            Value::Whole(n) => n >= 0,
            Value::Number(n) => n >= 0.0,
            Value::Null | Value::Flag(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => false,
        };
        if !is_amount {
            let unit = if *key == "cpuLoad" { "percent of a core" } else { "MB" };
            let what = format!("expected a number of {unit}, 0 or more, found {}", at.node.to_json());
            walk.fault(&at, what, format!("for example `{key}: 100`, or leave it out"));
            continue;
        }
        if let Some(warning) = unsupported_keys::key_warning(setting) {
            walk.warn(at.node.at, at.path.clone(), format!("sets `{setting}`, which {warning}"));
        }
        settings.insert((*setting).to_owned(), at.node.to_json());
        places.push(((*setting).to_owned(), at.path, at.node.at));
    }
    places
}
