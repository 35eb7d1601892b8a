//! Parts of Storm that Stormkeeper does not have, by the names under which a topology asks for them, and
//! what to use instead.

use std::fmt;

/// A part of Storm that Stormkeeper does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Absent {
    /// Distributed RPC: a client waits for the result of a topology.
    Drpc,
    /// Storm's API of transactional micro-batches.
    Trident,
}

/// Packages of Java, Storm's and those before it, with a final dot.
const PACKAGES: &[(&str, Absent)] = &[
    ("org.apache.storm.drpc.", Absent::Drpc),
    ("backtype.storm.drpc.", Absent::Drpc),
    ("org.apache.storm.trident.", Absent::Trident),
    ("storm.trident.", Absent::Trident),
];

/// Parts of names of classes that stand in other packages: `LinearDRPCTopologyBuilder`,
/// `OpaqueTridentKafkaSpout`.
const WORDS: &[(&str, Absent)] = &[("DRPC", Absent::Drpc), ("Trident", Absent::Trident)];

impl Absent {
    /// Returns the part that a Java class belongs to.
    pub fn of_class(name: &str) -> Option<Self> {
        let package = PACKAGES.iter().find(|(package, _)| name.starts_with(package));
        let simple = name.rsplit('.').next().unwrap_or_default();
        let word = || WORDS.iter().find(|(word, _)| simple.contains(word));
        package.or_else(word).map(|(_, absent)| *absent)
    }

    /// Returns the part that a setting of a topology belongs to. Keys of daemons, such as `drpc.port`, are
    /// not settings of a topology.
    pub fn of_setting(key: &str) -> Option<Self> {
        key.starts_with("topology.trident.").then_some(Self::Trident)
    }

    /// Returns what to use instead.
    pub fn instead(self) -> &'static str {
        match self {
            Self::Drpc => {
                "let clients write requests to a queue that a spout reads, and a bolt write results to where the client \
                 reads them, under an id that the request brings"
            }
            Self::Trident => {
                "use a spout that emits with ids and repeats what failed, and write results under keys that follow from \
                 these ids (docs/streaming.md)"
            }
        }
    }
}

impl fmt::Display for Absent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Drpc => "DRPC",
            Self::Trident => "Trident",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_of_absent_parts_are_known_by_their_package_or_their_name() {
        for (class, absent) in [
            ("org.apache.storm.drpc.ReturnResults", Some(Absent::Drpc)),
            ("backtype.storm.drpc.JoinResult", Some(Absent::Drpc)),
            ("LinearDRPCTopologyBuilder", Some(Absent::Drpc)),
            ("com.example.MyDRPCSpout", Some(Absent::Drpc)),
            ("org.apache.storm.trident.spout.RichSpoutBatchExecutor", Some(Absent::Trident)),
            ("storm.trident.TridentTopology", Some(Absent::Trident)),
            ("org.apache.storm.kafka.spout.trident.KafkaTridentSpoutOpaque", Some(Absent::Trident)),
            ("com.example.trident.WaterBolt", None),
            ("org.apache.storm.flux.wrappers.bolts.FluxShellBolt", None),
            ("", None),
        ] {
            assert_eq!(Absent::of_class(class), absent, "{class}");
        }
    }

    #[test]
    fn settings_of_trident_are_known_and_others_are_not() {
        let key = "topology.trident.batch.emit.interval.millis";
        assert_eq!(Absent::of_setting(key), Some(Absent::Trident));
        assert_eq!(Absent::of_setting("topology.trident"), None);
        assert_eq!(Absent::of_setting("drpc.servers"), None);
    }
}
