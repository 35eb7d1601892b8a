//! An operator that submits, rebalances, deactivates, activates and kills topologies, and records
//! the responses.

use std::time::Duration;

use bytes::Bytes;
use stormkeeper_api_types::{
    client::{Client, Error, Timeouts},
    message::{Code, InitialStatus, KillRequest, RebalanceRequest, SubmitRequest},
};
use stormkeeper_model::ComponentId;
use stormkeeper_topology_package::package::TopologyPackage;
use tokio::time::Instant;

use super::expectation::{Expectation, Operation, Outcome, State};

/// Maximum number of topologies of one operator: with two tasks and a few workers each they are
/// enough to load two cores.
const MAX_TOPOLOGIES: usize = 2;

/// Time between two operations.
const PAUSE_MS: std::ops::Range<u64> = 100..1000;

/// Timeouts shorter than the defaults, so that a frozen nimbus delays the operator little.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    request: Duration::from_secs(4),
    leader: Duration::from_secs(8),
    recovery: Duration::from_secs(4),
};

/// A topology of an operator, with a name that no other operator uses.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) name: String,
    pub(super) expectation: Expectation,
    outcomes: Vec<Outcome>,
    /// Operations and responses, for failure messages.
    pub(super) log: Vec<String>,
}

impl Topology {
    fn new(name: String) -> Self {
        Self { name, expectation: Expectation::nothing(), outcomes: Vec::new(), log: Vec::new() }
    }

    /// Number of operations with this outcome.
    pub(super) fn n_of(&self, outcome: Outcome) -> usize {
        self.outcomes.iter().filter(|seen| **seen == outcome).count()
    }
}

pub(super) struct Operator<'a> {
    pub(super) name: &'a str,
    pub(super) nimbuses: Vec<String>,
    pub(super) bundle: &'a TopologyPackage,
    pub(super) random: fastrand::Rng,
}

impl Operator<'_> {
    /// Runs operations until `end`; returns all topologies that were ever requested.
    pub(super) async fn work(mut self, start: Instant, end: Instant) -> Vec<Topology> {
        let mut topologies = Vec::<Topology>::new();
        while Instant::now() < end {
            let there: Vec<usize> =
                (0..topologies.len()).filter(|i| topologies[*i].expectation.may_exist()).collect();
            let (i, operation) = if there.len() < MAX_TOPOLOGIES {
                let name = format!("{}-{}", self.name, topologies.len() + 1);
                topologies.push(Topology::new(name));
                (topologies.len() - 1, Operation::Submit)
            } else {
                (there[self.random.usize(..there.len())], self.random_operation())
            };
            let topology = &mut topologies[i];
            let asked = start.elapsed();
            let answer = self.send(&topology.name, operation).await;
            let outcome = outcome(operation, &answer);
            let text = match &answer {
                Ok(()) => "done".to_owned(),
                Err(error) => error.to_string(),
            };
            let (from, to) = (asked.as_secs_f64(), start.elapsed().as_secs_f64());
            topology.log.push(format!("{from:>6.1} s to {to:.1} s {operation:?}: {outcome:?}: {text}"));
            assert_rejection_is_plausible(topology, operation, &answer);
            topology.outcomes.push(outcome);
            topology.expectation.record(operation, outcome);
            tokio::time::sleep(Duration::from_millis(self.random.u64(PAUSE_MS))).await;
        }
        topologies
    }

    fn random_operation(&mut self) -> Operation {
        match self.random.u8(..10) {
            0..=4 => Operation::Rebalance { workers: self.random.u32(1..=3), sinks: self.random.u32(1..=3) },
            5 => Operation::Deactivate,
            6 => Operation::Activate,
            _ => Operation::Kill,
        }
    }

    async fn send(&mut self, name: &str, operation: Operation) -> Result<(), Error> {
        // Any nimbus may be frozen.
        self.random.shuffle(&mut self.nimbuses);
        let client = Client::new(self.nimbuses.clone(), TIMEOUTS)?;
        let wait_secs = Some(self.random.u64(0..2));
        let accepted = match operation {
            Operation::Submit => {
                client.put_blob(&self.bundle.key, Bytes::from(self.bundle.bytes.clone())).await?;
                let blob = self.bundle.key.clone();
                let name = Some(name.parse().expect("a name"));
                let (owner, status) = ("chaos".to_owned(), InitialStatus::Active);
                client.submit(&SubmitRequest { name, blob, owner, status }).await
            }
            Operation::Rebalance { workers, sinks } => {
                let sink: ComponentId = "sink".parse().expect("an id");
                let parallelism = [(sink, sinks)].into();
                let request =
                    RebalanceRequest { wait_secs, workers: Some(workers), parallelism, restart: false };
                client.rebalance(name, &request).await
            }
            Operation::Activate => client.activate(name).await,
            Operation::Deactivate => client.deactivate(name).await,
            Operation::Kill => client.kill(name, &KillRequest { wait_secs }).await,
        };
        accepted.map(drop)
    }
}

fn outcome(operation: Operation, answer: &Result<(), Error>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(Error::Refused { body, .. }) => match body.code {
            Code::OutcomeUnknown | Code::Internal | Code::Other => Outcome::Unknown,
            _ => Outcome::Nothing,
        },
        // The client retries these requests without a response, so an earlier one may have
        // succeeded.
        Err(Error::Unreachable { .. })
            if matches!(operation, Operation::Activate | Operation::Deactivate) =>
        {
            Outcome::Unknown
        }
        Err(Error::Unreachable { .. } | Error::NoSeeds | Error::Setup(_)) => Outcome::Nothing,
        Err(Error::Unanswered { .. } | Error::Foreign { .. }) => Outcome::Unknown,
    }
}

/// # Panics
/// If the rejection contradicts the possible states.
fn assert_rejection_is_plausible(topology: &Topology, operation: Operation, answer: &Result<(), Error>) {
    let Err(Error::Refused { body, .. }) = answer else { return };
    let may_be_gone = topology.expectation.allows(State::Gone);
    let is_impossible = match body.code {
        // No other operator uses the name.
        Code::NameInUse => operation == Operation::Submit,
        Code::UnknownTopology => !may_be_gone,
        // No request of the operator can cause these.
        Code::InvalidRequest | Code::InvalidTopology | Code::BlobMismatch | Code::TooLarge => true,
        Code::UnreadableRecord | Code::NoSuchRoute | Code::WrongMethod => true,
        _ => false,
    };
    assert!(!is_impossible, "{} cannot be {:?}: {:#?}", topology.name, body, topology.log);
}
