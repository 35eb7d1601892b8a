//! Settings of server processes.

use std::time::Duration;

/// Debian's paths of the server and of a logger that works with it.
pub(super) const JARS: [&str; 2] = ["/usr/share/java/zookeeper.jar", "/usr/share/java/slf4j-simple.jar"];

/// Libraries of Netty that TLS needs and that Debian's library of ZooKeeper does not name.
pub(super) const TLS_JARS: [&str; 2] =
    ["/usr/share/java/netty-codec.jar", "/usr/share/java/netty-resolver.jar"];

/// Settings of a server process.
#[derive(Debug, Clone, Copy)]
pub(super) struct Setup {
    /// ZooKeeper's unit of time. Sessions last at least two ticks, and expire at a tick.
    pub(super) tick: Duration,
    /// Options for Java.
    pub(super) java: &'static [&'static str],
}

/// Settings for tests: a short tick, so that sessions can be short and expire soon; a quick start;
/// no sync to disk.
pub(super) const TEST_SETUP: Setup = Setup {
    tick: Duration::from_millis(250),
    java: &[
        "-Xmx256m",
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-XX:-UsePerfData",
        "-Dzookeeper.forceSync=no",
        "-Dzookeeper.preAllocSize=1024",
    ],
};

/// Settings as in production: ZooKeeper's default tick, every transaction synced, and a heap for a
/// few hundred thousand znodes.
pub(super) const PRODUCTION_SETUP: Setup =
    Setup { tick: Duration::from_secs(2), java: &["-Xmx1g", "-XX:-UsePerfData"] };
