//! Someone who submits, rebalances, stops, starts and kills topologies all the while, and
//! remembers what was answered.

use std::time::Duration;

use bytes::Bytes;
use stormkeeper_api_types::{
    client::{Client, Error, Timeouts},
    message::{Code, InitialStatus, KillRequest, RebalanceRequest, SubmitRequest},
};
use stormkeeper_model::ComponentId;
use stormkeeper_topology_package::package::Bundle;
use tokio::time::Instant;

use super::expectation::{Expectation, Outcome, State, Wish};

/// How many topologies one operator has at a time: with two tasks and a few workers each
/// they are enough to fill two cores.
const MAX_TOPOLOGIES: usize = 2;

/// Between two wishes.
const PAUSE_MS: std::ops::Range<u64> = 100..1000;

/// Shorter than the defaults: a nimbus that stands still costs the operator little.
const TIMEOUTS: Timeouts = Timeouts {
    connect: Duration::from_secs(1),
    request: Duration::from_secs(4),
    leader: Duration::from_secs(8),
    recovery: Duration::from_secs(4),
};

/// A topology of an operator, under a name that nobody else uses.
#[derive(Debug)]
pub(super) struct Topology {
    pub(super) name: String,
    pub(super) expectation: Expectation,
    outcomes: Vec<Outcome>,
    /// What was asked and answered, for a failure's message.
    pub(super) story: Vec<String>,
}

impl Topology {
    fn new(name: String) -> Self {
        Self { name, expectation: Expectation::nothing(), outcomes: Vec::new(), story: Vec::new() }
    }

    /// How many changes ended so.
    pub(super) fn n_of(&self, outcome: Outcome) -> usize {
        self.outcomes.iter().filter(|seen| **seen == outcome).count()
    }
}

pub(super) struct Operator<'a> {
    pub(super) name: &'a str,
    pub(super) nimbuses: Vec<String>,
    pub(super) bundle: &'a Bundle,
    pub(super) random: fastrand::Rng,
}

impl Operator<'_> {
    /// Works until `end`; answers every topology that it ever asked for.
    pub(super) async fn work(mut self, start: Instant, end: Instant) -> Vec<Topology> {
        let mut topologies = Vec::<Topology>::new();
        while Instant::now() < end {
            let there: Vec<usize> =
                (0..topologies.len()).filter(|i| topologies[*i].expectation.may_be_there()).collect();
            let (i, wish) = if there.len() < MAX_TOPOLOGIES {
                let name = format!("{}-{}", self.name, topologies.len() + 1);
                topologies.push(Topology::new(name));
                (topologies.len() - 1, Wish::Submit)
            } else {
                (there[self.random.usize(..there.len())], self.wish())
            };
            let topology = &mut topologies[i];
            let asked = start.elapsed();
            let answer = self.ask(&topology.name, wish).await;
            let outcome = outcome(wish, &answer);
            let text = match &answer {
                Ok(()) => "done".to_owned(),
                Err(error) => error.to_string(),
            };
            let (from, to) = (asked.as_secs_f64(), start.elapsed().as_secs_f64());
            topology.story.push(format!("{from:>6.1} s to {to:.1} s {wish:?}: {outcome:?}: {text}"));
            refuse_lies(topology, wish, &answer);
            topology.outcomes.push(outcome);
            topology.expectation.learn(wish, outcome);
            tokio::time::sleep(Duration::from_millis(self.random.u64(PAUSE_MS))).await;
        }
        topologies
    }

    fn wish(&mut self) -> Wish {
        match self.random.u8(..10) {
            0..=4 => Wish::Rebalance { workers: self.random.u32(1..=3), sinks: self.random.u32(1..=3) },
            5 => Wish::Deactivate,
            6 => Wish::Activate,
            _ => Wish::Kill,
        }
    }

    async fn ask(&mut self, name: &str, wish: Wish) -> Result<(), Error> {
        // Any of them may be the one that stands still.
        self.random.shuffle(&mut self.nimbuses);
        let client = Client::new(self.nimbuses.clone(), TIMEOUTS)?;
        let wait_secs = Some(self.random.u64(0..2));
        let accepted = match wish {
            Wish::Submit => {
                client.put_blob(&self.bundle.key, Bytes::from(self.bundle.bytes.clone())).await?;
                let blob = self.bundle.key.clone();
                let name = Some(name.parse().expect("a name"));
                let (owner, status) = ("chaos".to_owned(), InitialStatus::Active);
                client.submit(&SubmitRequest { name, blob, owner, status }).await
            }
            Wish::Rebalance { workers, sinks } => {
                let sink: ComponentId = "sink".parse().expect("an id");
                let parallelism = [(sink, sinks)].into();
                let request = RebalanceRequest { wait_secs, workers: Some(workers), parallelism };
                client.rebalance(name, &request).await
            }
            Wish::Activate => client.activate(name).await,
            Wish::Deactivate => client.deactivate(name).await,
            Wish::Kill => client.kill(name, &KillRequest { wait_secs }).await,
        };
        accepted.map(drop)
    }
}

fn outcome(wish: Wish, answer: &Result<(), Error>) -> Outcome {
    match answer {
        Ok(()) => Outcome::Done,
        Err(Error::Refused { body, .. }) => match body.code {
            Code::OutcomeUnknown | Code::Internal | Code::Other => Outcome::Unknown,
            _ => Outcome::Nothing,
        },
        // These are sent again when an answer was lost, so one of them may have been taken.
        Err(Error::Unreachable { .. }) if matches!(wish, Wish::Activate | Wish::Deactivate) => {
            Outcome::Unknown
        }
        Err(Error::Unreachable { .. } | Error::NoSeeds | Error::Setup(_)) => Outcome::Nothing,
        Err(Error::Unanswered { .. } | Error::Foreign { .. }) => Outcome::Unknown,
    }
}

/// # Panics
/// When a refusal cannot be true.
fn refuse_lies(topology: &Topology, wish: Wish, answer: &Result<(), Error>) {
    let Err(Error::Refused { body, .. }) = answer else { return };
    let may_be_gone = topology.expectation.allows(State::Gone);
    let is_lie = match body.code {
        // Nobody else uses the name.
        Code::NameInUse => wish == Wish::Submit,
        Code::UnknownTopology => !may_be_gone,
        // Of these there is nothing that could be the matter.
        Code::InvalidRequest | Code::InvalidTopology | Code::BlobMismatch | Code::TooLarge => true,
        Code::UnreadableRecord | Code::NoSuchRoute | Code::WrongMethod => true,
        _ => false,
    };
    assert!(!is_lie, "{} cannot be {:?}: {:#?}", topology.name, body, topology.story);
}
