//! Three ZooKeeper servers, three nimbuses and three supervisors, to which everything happens
//! that may happen, while topologies are submitted, rebalanced, stopped, started and killed.
//! Afterwards everything must be as it was asked, and ZooKeeper's log must show leaders one
//! after the other.
//!
//! One seed decides what happens, and when; the times of real processes are their own, so the
//! same seed makes the same trouble and not the same run. `docs/testing.md` says how to run
//! it for longer, and with another seed.

mod expectation;
mod operator;
mod plan;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use stormkeeper_api_types::{
    client::{Client, Timeouts},
    message::TopologySummary,
};
use stormkeeper_coordination::cluster::layout;
use stormkeeper_model::status::TopologyStatus;
use stormkeeper_runtime::test_support::wait_until;
use stormkeeper_topology_package::flux;
use tokio::time::Instant;

use self::{
    expectation::{Outcome, State},
    operator::{Operator, Topology},
    plan::{Event, Plan},
};
use crate::{
    cluster::{Cluster, Shape, Wires, is_of_the_cluster, kill9},
    history::History,
};

/// What happens in every run of the tests.
const SEED: u64 = 20;
const SECONDS: u64 = 60;

/// How long the cluster may take, when nothing goes wrong any more, to be as it was asked: a
/// supervisor's or a task's time-out, a launch, and a busy machine.
const HEALING: Duration = Duration::from_secs(150);

/// How long a look at who leads may hold up the plan.
const AT_ONCE: Duration = Duration::from_millis(300);

/// Shorter than the defaults, so that what is lost is placed again while the test runs.
const SETTINGS: &str =
    "nimbus.supervisor.timeout.secs: 8\nnimbus.task.timeout.secs: 8\nnimbus.task.launch.secs: 30\n";

const SHAPE: Shape = Shape { wires: Wires::Proxied, ..Shape::REPLICATED };

#[tokio::test(flavor = "multi_thread")]
async fn chaos_leaves_everything_as_it_was_asked() {
    let seed = number_from("STORMKEEPER_CHAOS_SEED", SEED);
    let length = Duration::from_secs(number_from("STORMKEEPER_CHAOS_SECS", SECONDS));
    let plan = Plan::new(seed, length, SHAPE);
    eprintln!("STORMKEEPER_CHAOS_SEED={seed} STORMKEEPER_CHAOS_SECS={}\n{plan}", length.as_secs());
    let mut cluster = Cluster::with(SHAPE, SETTINGS).await;
    let source = flux::load(&cluster.ticker()).expect("a topology");
    let bundle = flux::bundle(&source, u64::MAX).expect("a bundle");

    let start = Instant::now();
    let operator = |name, seed| {
        let random = fastrand::Rng::with_seed(seed);
        Operator { name, nimbuses: cluster.apis().to_vec(), bundle: &bundle, random }
            .work(start, start + length)
    };
    let (ann, bob) = (operator("ann", seed.wrapping_add(1)), operator("bob", seed.wrapping_add(2)));
    let ((), ann, bob) = tokio::join!(inflict(&mut cluster, &plan, start), ann, bob);
    heal(&mut cluster).await;
    let topologies: Vec<Topology> = ann.into_iter().chain(bob).collect();

    cluster.wait_until_ready().await;
    let listed = wait_until_as_asked(&cluster, &topologies, &plan).await;
    wait_until("nothing else is left", HEALING, async || {
        strays(&cluster, &listed).await.map_err(|stray| format!("{stray}\n{plan}\n{}", cluster.logs()))
    })
    .await;
    for topology in &listed {
        cluster.ok(&["kill", topology.name.as_str(), "-w", "0s"]);
    }
    cluster.wait_until_nothing_is_left().await;

    let n_swallowed: u64 = cluster.proxies.iter().map(|proxy| proxy.n_swallowed()).sum();
    let history = History::of(&mut cluster);
    history.assert_lawful();
    let n_writes: usize = history.terms.values().map(|term| term.n_writes).sum();
    let n = |outcome| topologies.iter().map(|topology| topology.n_of(outcome)).sum::<usize>();
    eprintln!(
        "{} topologies; {} changes done, {} refused, {} of unknown outcome; {} terms with {n_writes} writes; \
         {} writes met the fence; {n_swallowed} answers swallowed",
        topologies.len(),
        n(Outcome::Done),
        n(Outcome::Nothing),
        n(Outcome::Unknown),
        history.terms.len(),
        history.n_fenced_off,
    );
    assert!(n(Outcome::Done) > 0, "nothing was ever done: {topologies:#?}");
}

/// Waits until every topology is whole or gone, as was asked, and answers those there are.
async fn wait_until_as_asked(
    cluster: &Cluster,
    topologies: &[Topology],
    plan: &Plan,
) -> Vec<TopologySummary> {
    let client = Client::new(cluster.apis().to_vec(), Timeouts::default()).expect("a client");
    let as_asked = async |spread| {
        wait_until("everything is as it was asked", HEALING, async || {
            let listed = client.list().await.map_err(|error| error.to_string())?.topologies;
            match judge(topologies, &listed, spread) {
                Ok(()) => Ok(listed),
                Err(wrong) => Err(format!("{wrong}\n{plan}\n{}", cluster.logs())),
            }
        })
        .await
    };
    // What was placed while slots were short stays where it is until someone asks.
    for short in as_asked(Spread::MaybeShort).await.iter().filter(|summary| is_short(summary)) {
        let workers = short.workers_wanted.to_string();
        cluster.ok(&["rebalance", short.name.as_str(), "-w", "0s", "-n", &workers]);
    }
    as_asked(Spread::Whole).await
}

fn number_from(variable: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration; docs/testing.md lists these")]
    let value = std::env::var(variable).ok();
    value.map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is no number")))
}

/// Carries out a plan.
async fn inflict(cluster: &mut Cluster, plan: &Plan, start: Instant) {
    for (at, event) in &plan.events {
        tokio::time::sleep_until(start + *at).await;
        happen(cluster, *event).await;
    }
}

async fn happen(cluster: &mut Cluster, event: Event) {
    let Cluster { nimbuses, supervisors, zookeeper, proxies, .. } = cluster;
    match event {
        Event::KillNimbus(i) => nimbuses[i].kill9(),
        Event::StartNimbus(i) => nimbuses[i].start_again(),
        Event::FreezeNimbus(i) => nimbuses[i].freeze(),
        Event::ThawNimbus(i) => nimbuses[i].thaw(),
        Event::KillSupervisor(i) => supervisors[i].kill9(),
        Event::StartSupervisor(i) => supervisors[i].start_again(),
        Event::FreezeSupervisor(i) => supervisors[i].freeze(),
        Event::ThawSupervisor(i) => supervisors[i].thaw(),
        Event::KillServer(i) => zookeeper.servers[i].kill9(),
        Event::StartServer(i) => zookeeper.servers[i].restart().await.expect("it comes back"),
        Event::FreezeServer(i) => zookeeper.servers[i].pause(),
        Event::ThawServer(i) => zookeeper.servers[i].resume(),
        Event::KillServers => zookeeper.kill9(),
        Event::StartServers => zookeeper.restart().await.expect("they come back"),
        Event::Set(i, mode) => proxies[i].set(mode),
        Event::Cut(i) => proxies[i].cut(),
        Event::Swallow(n) => {
            // Without an answer at once there is trouble enough.
            if let Ok(Ok(leading)) = tokio::time::timeout(AT_ONCE, cluster.leading()).await {
                cluster.proxies[leading.nimbus].swallow_after(n);
            }
        }
        Event::KillWorker(i) => {
            let workers = cluster.workers();
            if let Some(worker) = workers.values().cycle().nth(i) {
                kill9(worker.pid);
            }
        }
    }
}

/// Ends what the plan has not mended: answers that are still to be swallowed.
async fn heal(cluster: &mut Cluster) {
    for proxy in &cluster.proxies {
        proxy.heal();
    }
}

/// In how many workers a topology must run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    Whole,
    MaybeShort,
}

/// Whether a topology runs in fewer workers than it wants and could use.
fn is_short(summary: &TopologySummary) -> bool {
    let wanted = usize::try_from(summary.workers_wanted).expect("few");
    summary.workers_total < summary.tasks_total.min(wanted)
}

/// Whether every topology is whole or gone, as was asked.
fn judge(topologies: &[Topology], listed: &[TopologySummary], spread: Spread) -> Result<(), String> {
    let mut found: BTreeMap<&str, &TopologySummary> = BTreeMap::new();
    for summary in listed {
        if found.insert(summary.name.as_str(), summary).is_some() {
            return Err(format!("{} is there twice", summary.name));
        }
    }
    for topology in topologies {
        let summary = found.remove(topology.name.as_str());
        let tell = |what: String| {
            let possible = topology.expectation.possible();
            Err(format!("{}: {what}; possible: {possible:?}\n{}", topology.name, topology.story.join("\n")))
        };
        let state = match summary.map(|summary| whole(summary, spread)) {
            None => State::Gone,
            Some(Ok(state)) => state,
            Some(Err(trouble)) => return tell(trouble),
        };
        if !topology.expectation.allows(state) {
            return tell(format!("{state:?}"));
        }
    }
    match found.keys().next() {
        None => Ok(()),
        Some(name) => Err(format!("nobody asked for {name}")),
    }
}

/// The state of a topology that runs as it should.
fn whole(summary: &TopologySummary, spread: Spread) -> Result<State, String> {
    let workers = summary.workers_wanted;
    let is_placed = summary.tasks_alive == summary.tasks_total
        && summary.tasks_assigned == summary.tasks_total
        && (spread == Spread::MaybeShort || !is_short(summary));
    let is_active = match summary.status {
        TopologyStatus::Active => true,
        TopologyStatus::Inactive => false,
        TopologyStatus::Rebalancing | TopologyStatus::Killed => {
            return Err(format!("it is {}", summary.status));
        }
    };
    if !is_placed || summary.pending.is_some() {
        return Err(format!("it is not whole: {summary:?}"));
    }
    let sinks = u32::try_from(summary.tasks_total - 1).expect("few");
    Ok(State::There { workers, sinks, is_active })
}

/// Whether there is anything in the tree or among the processes that belongs to none of the
/// listed topologies.
async fn strays(cluster: &Cluster, listed: &[TopologySummary]) -> Result<(), String> {
    let ids: BTreeSet<String> = listed.iter().map(|summary| summary.id.to_string()).collect();
    for root in layout::topology_roots() {
        let children = cluster.tree.children(&root).await.map_err(|error| error.to_string())?;
        let children = children.unwrap_or_default().into_iter();
        let children: BTreeSet<String> = children.filter(|name| !is_of_the_cluster(name)).collect();
        if children != ids {
            return Err(format!("{root} has {children:?}, and the topologies are {ids:?}"));
        }
    }
    let n_workers: usize = listed.iter().map(|summary| summary.workers_total).sum();
    let n_tasks: usize = listed.iter().map(|summary| summary.tasks_total).sum();
    let processes = cluster.worker_processes();
    // Each task's component is one process.
    if cluster.workers().len() != n_workers || processes.len() != n_workers + n_tasks {
        return Err(format!("{processes:?} for {n_workers} workers with {n_tasks} tasks"));
    }
    Ok(())
}
