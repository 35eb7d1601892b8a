//! Reference of all keys, for the documentation.

use crate::config::key;
use stormkeeper_model::settings;

/// Formats all keys as Markdown.
pub fn reference() -> String {
    let mut page = String::from(HEAD);
    page.push_str("\n## Daemons and commands\n\n");
    table(&mut page, key::all().map(|key| (key.name, key.default, key.kind.to_string(), key.doc)));
    page.push_str(TOPOLOGY_HEAD);
    table(
        &mut page,
        settings::KNOWN
            .iter()
            .map(|setting| (setting.key, setting.default, setting.kind.to_string(), setting.doc)),
    );
    page
}

const HEAD: &str = "\
# Configuration

<!-- Generated from the tables in src/config/key/ and crates/model/src/settings.rs: change those, then run
     `UPDATE=1 cargo test --lib generated`. -->

Every daemon and command reads one YAML file of `key: value` lines: the file given by `--config`, else by the
environment variable `STORMKEEPER_CONF`, else `/etc/stormkeeper/storm.yaml` if it exists.
`-c key=value` on the command line overrides the file and can be repeated; the value is YAML, so a list is
written `-c 'supervisor.slots.ports=[6700, 6701]'`.
`stormkeeper config show` prints every value with its source.

A key has Storm's name if Storm has the key, so that a `storm.yaml` of Storm can be reused.
A key that is unknown, or that only Storm supports, is reported and has no effect.
An invalid value is an error that names the key, the line and the valid values; everything is checked before a
port opens or a session starts.

Times are numbers in the unit given by the key's name, or have a unit: `500ms`, `30s`, `5m`, `2h`, `7d`.
Sizes are bytes, or have a unit: `512KiB`, `64MiB`, `1GiB`.
";

const TOPOLOGY_HEAD: &str = "
## Topologies

These are set under `config:` in a topology file, for the topology or for one component.
A component's own setting wins for its ticks, environment, pauses, time until it counts as silent, and pending
tuples; settings of metrics, of tuple trees (but for pending tuples) and of the limit of errors are read from the
topology only.
In the `storm.yaml` of the supervisors they are defaults for topologies that do not set them. `-c` at
`stormkeeper submit` and `stormkeeper local` overrides those of the topology file, as with `storm jar`, and so it
does with keys of the author, such as `-c words.file=/data/words`; a component's own settings stay.
A component receives all of them in its handshake, with any other settings that the author adds.
Times are plain numbers here.

";

fn table<'a>(page: &mut String, rows: impl Iterator<Item = (&'a str, &'a str, String, &'a str)>) {
    page.push_str("| key | default | value | meaning |\n| --- | --- | --- | --- |\n");
    for (name, default, kind, doc) in rows {
        let default = if default == "null" { "unset".to_owned() } else { format!("`{default}`") };
        page.push_str(&format!("| `{name}` | {default} | {kind} | {doc} |\n"));
    }
}
