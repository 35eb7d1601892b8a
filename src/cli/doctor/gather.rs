//! Facts about ZooKeeper, nimbuses and names, each within a time limit.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use futures_util::future::join_all;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
};

use super::{
    facts::{Facts, Known, Memory, Name, Seed, Server},
    host, session,
};
use crate::{cli::Global, config::Config};
use stormkeeper_api_types::leader_clock::{NimbusTime as _, NimbusTimeClient};
use stormkeeper_coordination::{cluster::tree_id::TreeMemory, tree::options::OnMissingRoot};
use stormkeeper_model::{clock::Clock, clock_difference::ClockReading};
use stormkeeper_runtime::{blocking, error_chain};

/// Longest time of one check.
pub(super) const LIMIT: Duration = Duration::from_secs(5);

/// Longest answer of a server that is read.
const ANSWER_BYTES_MAX: u64 = 16 * 1024;

/// Returns what `work` finds out within [`LIMIT`].
pub(super) async fn within<T>(work: impl Future<Output = Known<T>>) -> Known<T> {
    let ended = tokio::time::timeout(LIMIT, work).await;
    ended.unwrap_or_else(|_elapsed| Err(format!("no answer within {LIMIT:?}")))
}

/// Returns what blocking work finds out within [`LIMIT`].
pub(super) async fn within_blocking<T: Send + 'static>(
    work: impl FnOnce() -> Known<T> + Send + 'static,
) -> Known<T> {
    within(blocking::run(work)).await
}

/// Gathers all facts, at the same time.
pub(super) async fn facts(global: &Global, config: &Config) -> Facts {
    let clock = Clock::new();
    let options = config.tree_options(OnMissingRoot::Wait);
    let over_tls = config.file_if_set("storm.zookeeper.tls.ca.file").is_some();
    let servers = options.servers.iter().map(|server| server_at(server, over_tls, &clock));
    let (of_names, of_servers, tree, seeds, cluster, ports) = tokio::join!(
        names(config, &options.servers),
        join_all(servers),
        session::tree(config, &clock),
        seeds(global, config, &clock),
        cluster(global, config),
        host::ports(config),
    );
    let (disk, descriptors, cgroup) = tokio::join!(host::disk(config), host::descriptors(), host::cgroup());
    let (files, certificates) = tokio::join!(host::secret_files(config), host::certificates(config));
    Facts {
        now: clock.now(),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        names: of_names,
        servers: of_servers,
        tree,
        memories: memories(&config.local_dir()).await,
        seeds,
        cluster,
        ports,
        disk,
        descriptors,
        files,
        certificates,
        cgroup,
    }
}

/// Returns the host of `host:port`.
fn host_of(address: &str) -> String {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.trim_matches(['[', ']']).to_owned()
}

async fn names(config: &Config, servers: &[String]) -> Vec<Name> {
    let own =
        [config.nimbus_host(), config.supervisor_host()].into_iter().map(|name| (name, "own name", true));
    let seeds = config.nimbus_seeds();
    let seeds = seeds.iter().map(|seed| (host_of(seed), "nimbus.seeds", false));
    let servers = servers.iter().map(|server| (host_of(server), "storm.zookeeper.servers", false));
    let mut seen = BTreeSet::new();
    let all = own.chain(seeds).chain(servers).filter(|(name, key, _)| seen.insert((name.clone(), *key)));
    let resolved = all.map(async |(name, key, is_own)| {
        let addresses = within(resolve(name.clone())).await;
        Name { name, key, is_own, addresses }
    });
    join_all(resolved).await
}

async fn resolve(name: String) -> Known<Vec<IpAddr>> {
    let found = tokio::net::lookup_host((name, 0)).await.map_err(|error| error.to_string())?;
    let addresses: BTreeSet<IpAddr> = found.map(|address| address.ip()).collect();
    Ok(addresses.into_iter().collect())
}

/// Asks a server of ZooKeeper for its version. Servers with TLS are only connected to.
async fn server_at(address: &str, over_tls: bool, clock: &Clock) -> Server {
    let began = clock.monotonic();
    let connected = within(async { TcpStream::connect(address).await.map_err(|error| error.to_string()) });
    let (connected, stream) = match connected.await {
        Ok(stream) => (Ok(clock.monotonic().since(began)), Some(stream)),
        Err(reason) => (Err(reason), None),
    };
    let answer = match stream {
        None => Err("it is not reached".to_owned()),
        Some(_) if over_tls => Err("it is not asked over TLS".to_owned()),
        Some(stream) => within(srvr(stream)).await,
    };
    Server { address: address.to_owned(), connected, answer }
}

async fn srvr(mut stream: TcpStream) -> Known<String> {
    let mut bytes = Vec::new();
    let asked = async {
        stream.write_all(b"srvr").await?;
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes).await
    };
    asked.await.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

async fn memories(local_dir: &Path) -> Vec<Memory> {
    let read = ["nimbus", "supervisor"].map(async |daemon| {
        let dir = local_dir.join(daemon);
        let load = move || TreeMemory::load(&dir, Clock::new()).map_err(|error| error.to_string());
        let mark = within_blocking(move || load().map(|memory| memory.mark())).await;
        Memory { daemon, mark }
    });
    join_all(read).await
}

async fn seeds(global: &Global, config: &Config, clock: &Clock) -> Vec<Seed> {
    let addresses = match global.nimbus.is_empty() {
        true => config.nimbus_seeds(),
        false => global.nimbus.iter().map(|nimbus| config.nimbus_at(nimbus)).collect(),
    };
    let client = global.tls(config).map_err(|failure| failure.text());
    let client = client.and_then(|tls| NimbusTimeClient::new(&tls).map_err(|error| error_chain(&error)));
    let asked = addresses.into_iter().map(async |address| {
        let answer = within(async {
            let began = clock.monotonic();
            let report = client.as_ref().map_err(String::clone)?.ask(&address).await;
            let report = report.map_err(|error| error_chain(&error))?;
            let reading = |time| ClockReading::new(clock.now(), time, clock.monotonic().since(began));
            Ok(report.time.map(reading))
        });
        let answer = answer.await;
        Seed { address, answer }
    });
    join_all(asked).await
}

async fn cluster(
    global: &Global,
    config: &Config,
) -> Known<(stormkeeper_api_types::message::NimbusList, stormkeeper_api_types::message::SupervisorList)> {
    within(async {
        let client = global.client_with(config).map_err(|failure| failure.text())?;
        let asked = async { Ok((client.nimbuses().await?, client.supervisors().await?)) };
        asked.await.map_err(|error: stormkeeper_api_types::client::Error| error_chain(&error))
    })
    .await
}
