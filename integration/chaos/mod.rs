//! Random faults in a cluster of three ZooKeeper servers, three nimbuses and three supervisors,
//! while topologies are submitted, rebalanced, deactivated, activated and killed. At the end every
//! topology must be in a state that its operator requested, and ZooKeeper's logs must show one
//! leader after the other.
//!
//! One seed decides the faults and their times. The timing of real processes varies, so the same
//! seed gives the same faults but not the same run. `docs/testing.md` explains how to run the test
//! for longer, and with another seed.

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
    cluster::{Cluster, Network, Shape, is_of_the_cluster, kill9},
    history::History,
};

/// Seed and duration of a normal run.
const SEED: u64 = 20;
const SECONDS: u64 = 60;

/// Maximum time from the last fault until all topologies are as requested: a supervisor's or a
/// task's timeout, a launch, and a busy machine.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(150);

/// Longest delay of the plan by a query for the leader.
const LEADER_TIMEOUT: Duration = Duration::from_millis(300);

/// Timeouts shorter than the defaults, so that lost tasks are placed again during the test.
const SETTINGS: &str =
    "nimbus.supervisor.timeout.secs: 8\nnimbus.task.timeout.secs: 8\nnimbus.task.launch.secs: 30\n";

const SHAPE: Shape = Shape { network: Network::Proxied, ..Shape::REPLICATED };

#[tokio::test(flavor = "multi_thread")]
async fn topologies_are_as_requested_after_random_faults() {
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
    let ((), ann, bob) = tokio::join!(run_plan(&mut cluster, &plan, start), ann, bob);
    heal(&mut cluster).await;
    let topologies: Vec<Topology> = ann.into_iter().chain(bob).collect();

    cluster.wait_until_ready().await;
    let listed = wait_until_as_asked(&cluster, &topologies, &plan).await;
    wait_until("no orphans are left", RECOVERY_TIMEOUT, async || {
        find_orphans(&cluster, &listed)
            .await
            .map_err(|orphan| format!("{orphan}\n{plan}\n{}", cluster.logs()))
    })
    .await;
    for topology in &listed {
        cluster.ok(&["kill", topology.name.as_str(), "-w", "0s"]);
    }
    cluster.wait_until_nothing_is_left().await;

    let n_dropped_replies: u64 = cluster.proxies.iter().map(|proxy| proxy.n_dropped_replies()).sum();
    let history = History::of(&mut cluster);
    history.assert_valid();
    let n_writes: usize = history.terms.values().map(|term| term.n_writes).sum();
    let n = |outcome| topologies.iter().map(|topology| topology.n_of(outcome)).sum::<usize>();
    eprintln!(
        "{} topologies; {} operations done, {} rejected, {} of unknown outcome; {} terms with {n_writes} writes; \
         {} writes rejected by the fence; {n_dropped_replies} replies dropped",
        topologies.len(),
        n(Outcome::Done),
        n(Outcome::Nothing),
        n(Outcome::Unknown),
        history.terms.len(),
        history.n_rejected_by_fence,
    );
    assert!(n(Outcome::Done) > 0, "no operation succeeded: {topologies:#?}");
}

/// Waits until every topology is healthy or gone, as requested, and returns the existing ones.
async fn wait_until_as_asked(
    cluster: &Cluster,
    topologies: &[Topology],
    plan: &Plan,
) -> Vec<TopologySummary> {
    let client = Client::new(cluster.apis().to_vec(), Timeouts::default()).expect("a client");
    let as_asked = async |spread| {
        wait_until("every topology is as requested", RECOVERY_TIMEOUT, async || {
            let listed = client.list().await.map_err(|error| error.to_string())?.topologies;
            match check(topologies, &listed, spread) {
                Ok(()) => Ok(listed),
                Err(wrong) => Err(format!("{wrong}\n{plan}\n{}", cluster.logs())),
            }
        })
        .await
    };
    // A topology that was placed while slots were scarce stays there until a rebalance.
    for short in as_asked(Spread::MayBeShort).await.iter().filter(|summary| is_short(summary)) {
        let workers = short.workers_wanted.to_string();
        cluster.ok(&["rebalance", short.name.as_str(), "-w", "0s", "-n", &workers]);
    }
    as_asked(Spread::Full).await
}

fn number_from(variable: &str, default: u64) -> u64 {
    #[expect(clippy::disallowed_methods, reason = "a test has no configuration; docs/testing.md lists these")]
    let value = std::env::var(variable).ok();
    value.map_or(default, |text| {
        text.parse().unwrap_or_else(|_| panic!("{variable}={text:?} is not a number"))
    })
}

/// Applies the events of a plan at their times.
async fn run_plan(cluster: &mut Cluster, plan: &Plan, start: Instant) {
    for (at, event) in &plan.events {
        tokio::time::sleep_until(start + *at).await;
        apply_event(cluster, *event).await;
    }
}

async fn apply_event(cluster: &mut Cluster, event: Event) {
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
        Event::StartServer(i) => zookeeper.servers[i].restart().await.expect("the server starts again"),
        Event::FreezeServer(i) => zookeeper.servers[i].pause().await,
        Event::ThawServer(i) => zookeeper.servers[i].resume(),
        Event::KillServers => zookeeper.kill9(),
        Event::StartServers => zookeeper.restart().await.expect("the servers start again"),
        Event::Set(i, mode) => proxies[i].set(mode),
        Event::Disconnect(i) => proxies[i].disconnect(),
        Event::DropReply(n) => {
            // Without an immediate response the cluster has faults enough.
            if let Ok(Ok(leading)) = tokio::time::timeout(LEADER_TIMEOUT, cluster.leading()).await {
                cluster.proxies[leading.nimbus].drop_reply_after(n);
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

/// Ends the faults that the plan has not ended: replies that are still to be dropped.
async fn heal(cluster: &mut Cluster) {
    for proxy in &cluster.proxies {
        proxy.heal();
    }
}

/// Required number of workers of a topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spread {
    Full,
    MayBeShort,
}

/// True if a topology has fewer workers than it requests and could use.
fn is_short(summary: &TopologySummary) -> bool {
    let wanted = usize::try_from(summary.workers_wanted).expect("few");
    summary.workers_total < summary.tasks_total.min(wanted)
}

/// Checks that every topology is healthy or gone, as requested.
fn check(topologies: &[Topology], listed: &[TopologySummary], spread: Spread) -> Result<(), String> {
    let mut found: BTreeMap<&str, &TopologySummary> = BTreeMap::new();
    for summary in listed {
        if found.insert(summary.name.as_str(), summary).is_some() {
            return Err(format!("{} is listed twice", summary.name));
        }
    }
    for topology in topologies {
        let summary = found.remove(topology.name.as_str());
        let fail = |what: String| {
            let possible = topology.expectation.possible();
            Err(format!("{}: {what}; possible: {possible:?}\n{}", topology.name, topology.log.join("\n")))
        };
        let state = match summary.map(|summary| healthy_state(summary, spread)) {
            None => State::Gone,
            Some(Ok(state)) => state,
            Some(Err(problem)) => return fail(problem),
        };
        if !topology.expectation.allows(state) {
            return fail(format!("{state:?}"));
        }
    }
    match found.keys().next() {
        None => Ok(()),
        Some(name) => Err(format!("{name} was never submitted")),
    }
}

/// Returns the state of a healthy topology, or the reason why it is not healthy.
fn healthy_state(summary: &TopologySummary, spread: Spread) -> Result<State, String> {
    let workers = summary.workers_wanted;
    let is_placed = summary.tasks_alive == summary.tasks_total
        && summary.tasks_assigned == summary.tasks_total
        && (spread == Spread::MayBeShort || !is_short(summary));
    let is_active = match summary.status {
        TopologyStatus::Active => true,
        TopologyStatus::Inactive => false,
        TopologyStatus::Rebalancing | TopologyStatus::Killed => {
            return Err(format!("it is {}", summary.status));
        }
    };
    if !is_placed || summary.pending.is_some() {
        return Err(format!("it is not healthy: {summary:?}"));
    }
    let sinks = u32::try_from(summary.tasks_total - 1).expect("few");
    Ok(State::Present { workers, sinks, is_active })
}

/// Fails if the tree or the process table contains anything that belongs to none of the listed
/// topologies.
async fn find_orphans(cluster: &Cluster, listed: &[TopologySummary]) -> Result<(), String> {
    let ids: BTreeSet<String> = listed.iter().map(|summary| summary.id.to_string()).collect();
    for root in layout::topology_parents() {
        let children = cluster.tree.children(&root).await.map_err(|error| error.to_string())?;
        let children = children.unwrap_or_default().into_iter();
        let children: BTreeSet<String> = children.filter(|name| !is_of_the_cluster(name)).collect();
        // Few topologies have credentials.
        let is_right = match root == layout::credentials_parent() {
            true => children.is_subset(&ids),
            false => children == ids,
        };
        if !is_right {
            return Err(format!("{root} has {children:?}, but the topologies are {ids:?}"));
        }
    }
    let n_workers: usize = listed.iter().map(|summary| summary.workers_total).sum();
    let n_tasks: usize = listed.iter().map(|summary| summary.tasks_total).sum();
    let processes = cluster.worker_processes();
    // The component of each task is one process.
    if cluster.workers().len() != n_workers || processes.len() != n_workers + n_tasks {
        return Err(format!("{processes:?} for {n_workers} workers with {n_tasks} tasks"));
    }
    Ok(())
}
