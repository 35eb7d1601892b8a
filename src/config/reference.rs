//! The reference of all keys, for the documentation.

use crate::config::key::KEYS;
use stormkeeper_model::settings;

/// All keys as Markdown.
pub fn reference() -> String {
    let mut page = String::from(HEAD);
    page.push_str("\n## Daemons and commands\n\n");
    table(&mut page, KEYS.iter().map(|key| (key.name, key.default, key.kind.to_string(), key.doc)));
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

<!-- Generated from the tables in src/config/key.rs and src/model/settings.rs: change those, then run
     `UPDATE=1 cargo test --lib generated`. -->

Every daemon and command reads one YAML file of `key: value` lines: the one named by `--config`, else by the
environment variable `STORMKEEPER_CONF`, else `/etc/stormkeeper/storm.yaml` if it is there.
`-c key=value` on the command line wins over the file, and may be given many times; the value is YAML, so lists
are written `-c 'supervisor.slots.ports=[6700, 6701]'`.
`stormkeeper config show` prints every value and where it came from.

Keys have the names that Storm gives them, where Storm has them, so a `storm.yaml` can be carried over.
A key that is unknown, or that means something to Storm only, is reported and has no effect.
A value that does not fit its key is an error that names the key, the line and what would fit; everything is
checked before a port opens or a session starts.

Times are numbers in the unit that the key's name says, or have a unit: `500ms`, `30s`, `5m`, `2h`, `7d`.
Sizes are bytes, or have a unit: `512KiB`, `64MiB`, `1GiB`.
";

const TOPOLOGY_HEAD: &str = "
## Topologies

These stand under `config:` in a topology file, for the topology or for one component; a component's own wins.
In `storm.yaml` they are defaults for topologies that leave them open.
Components get all of them in their handshake, and any others that the author adds.
Times are plain numbers here.

";

fn table<'a>(page: &mut String, rows: impl Iterator<Item = (&'a str, &'a str, String, &'a str)>) {
    page.push_str("| key | default | takes | meaning |\n| --- | --- | --- | --- |\n");
    for (name, default, takes, doc) in rows {
        let default = if default == "null" { "unset".to_owned() } else { format!("`{default}`") };
        page.push_str(&format!("| `{name}` | {default} | {takes} | {doc} |\n"));
    }
}
