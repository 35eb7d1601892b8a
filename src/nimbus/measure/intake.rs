//! Taking in what topology masters and supervisors send; only while leading.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;
use serde::de::DeserializeOwned;
use tokio::sync::{Semaphore, SemaphorePermit};
use tracing::{debug, info};

use crate::{
    archive::{self, Archive, Taken},
    cluster::layout,
    daemon::blocking,
    metrics::{Contribution, MetricId},
    model::{Position, Term, TopologyId},
    nimbus::{
        measure::{Measure, Stage, is_of_daemons, status::count},
        refusal::Refusal,
    },
    rpc::metrics::{
        ContributeAnswer, LogPage, LogQuery, MetaPage, MetaQuery, NAMES_MAX, RegisterAnswer, RegisterRequest,
        Registered,
    },
};

/// How many bodies may be on their way at once. With the largest ones that is 1 GiB; those of
/// a cluster are a few MiB.
const BODIES: usize = 16;

/// How many bodies are decoded at once: the other cores are for deciding and for reads.
const DECODES: usize = 2;

/// How many requests of one topology may be stored at once, so that one cannot take the place
/// of all: its master sends one after the other, and supervisors a few when workers died.
const OF_ONE_TOPOLOGY: usize = 4;

/// How long a body waits for its turn before its sender is told to come again.
const TURN: Duration = Duration::from_secs(10);

/// The most bytes of one page of the log.
const LOG_PAGE_BYTES_MAX: u64 = 8 << 20;

/// Lets in as much at once as there is room for.
#[derive(Debug)]
pub(super) struct Gate {
    bodies: Semaphore,
    decodes: Semaphore,
    // Guards how many requests of each topology are being stored; held for a few instructions.
    in_flight: Mutex<BTreeMap<TopologyId, usize>>,
}

/// A place for one request of a topology.
struct Place<'a> {
    gate: &'a Gate,
    topology: TopologyId,
}

impl Gate {
    pub(super) fn new() -> Self {
        let in_flight = Mutex::default();
        Self { bodies: Semaphore::new(BODIES), decodes: Semaphore::new(DECODES), in_flight }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopologyId, usize>> {
        self.in_flight.lock().expect("no one panics while holding the counts")
    }

    fn enter(&self, topology: &TopologyId) -> Option<Place<'_>> {
        let mut in_flight = self.lock();
        let n = in_flight.entry(topology.clone()).or_default();
        if *n >= OF_ONE_TOPOLOGY {
            return None;
        }
        *n += 1;
        Some(Place { gate: self, topology: topology.clone() })
    }

    /// How many requests are being stored, or wait for that.
    pub(super) fn n_in_flight(&self) -> usize {
        self.lock().values().sum()
    }

    async fn decode<T: DeserializeOwned + Send + 'static>(&self, body: Bytes) -> Result<T, Refusal> {
        let Some(_turn) = turn(&self.decodes).await else {
            return Err(Refusal::NoMetrics { reason: "too much waits to be decoded".to_owned() });
        };
        let decoded = blocking::run(move || rmp_serde::from_slice(&body)).await;
        decoded.map_err(|error: rmp_serde::decode::Error| {
            Refusal::BadOption(format!("the body is not the message expected: {error}"))
        })
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut in_flight = self.gate.lock();
        if let Some(n) = in_flight.get_mut(&self.topology) {
            *n -= 1;
            if *n == 0 {
                in_flight.remove(&self.topology);
            }
        }
    }
}

async fn turn(semaphore: &Semaphore) -> Option<SemaphorePermit<'_>> {
    tokio::time::timeout(TURN, semaphore.acquire()).await.ok()?.ok()
}

impl Measure {
    /// A place for a body that is about to be read, while this nimbus takes any.
    pub(in crate::nimbus) async fn room(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        let busy = || Refusal::NoMetrics { reason: format!("{BODIES} requests are on their way already") };
        match turn(&self.shared.gate.bodies).await {
            Some(permit) => Ok(permit),
            None => {
                count(&self.shared.counts.not_now, 1);
                Err(busy())
            }
        }
    }

    /// The archive and the term, while this nimbus leads.
    pub(super) fn leading(&self) -> Result<(Archive, Term), Refusal> {
        let archive = self.archive()?;
        match *self.shared.stage.borrow() {
            (Stage::Leading, Some(term)) => Ok((archive, term)),
            (Stage::Leading | Stage::TakingOver | Stage::Following, _) => {
                let reason = "this nimbus has just begun to lead, and fetches what others have".to_owned();
                Err(Refusal::NoMetrics { reason })
            }
        }
    }

    /// Registers names.
    pub(in crate::nimbus) async fn register(&self, body: Bytes) -> Result<RegisterAnswer, Refusal> {
        let answer = self.register_decoded(body).await;
        let counts = &self.shared.counts;
        match &answer {
            Ok(answer) => {
                let refused =
                    answer.claims.iter().filter(|claim| matches!(claim, Registered::Refused(_))).count();
                count(&counts.claims, answer.claims.len());
                self.shared.own.registered.add(answer.claims.len() as u64);
                count(&counts.claims_refused, refused);
            }
            Err(Refusal::BadOption(_)) => count(&counts.undecodable, 1),
            Err(_) => count(&counts.not_now, 1),
        }
        answer
    }

    async fn register_decoded(&self, body: Bytes) -> Result<RegisterAnswer, Refusal> {
        let (archive, term) = self.leading()?;
        let request: RegisterRequest = self.shared.gate.decode(body).await?;
        if request.claims.len() > NAMES_MAX {
            let n = request.claims.len();
            return Err(Refusal::BadOption(format!(
                "{n} names are more than {NAMES_MAX} in one registration"
            )));
        }
        self.check_known(&archive, &request.topology).await?;
        let Some(_place) = self.shared.gate.enter(&request.topology) else {
            return Err(Refusal::NoMetrics { reason: of_one(&request.topology) });
        };
        archive.register(term, request).await.map_err(|error| self.refused(error))
    }

    /// Takes a contribution in.
    pub(in crate::nimbus) async fn contribute(&self, body: Bytes) -> Result<ContributeAnswer, Refusal> {
        let (archive, term) = match self.leading() {
            Ok(leading) => leading,
            Err(refusal) => return Ok(self.not_now(refusal.to_string())),
        };
        let contribution: Contribution = match self.shared.gate.decode(body).await {
            Ok(contribution) => contribution,
            Err(refusal @ Refusal::BadOption(_)) => {
                count(&self.shared.counts.undecodable, 1);
                return Err(refusal);
            }
            Err(refusal) => return Ok(self.not_now(refusal.to_string())),
        };
        let topology = contribution.topology.clone();
        if let Err(refusal) = self.check_known(&archive, &topology).await {
            return Ok(self.not_now(refusal.to_string()));
        }
        let Some(_place) = self.shared.gate.enter(&topology) else {
            return Ok(self.not_now(of_one(&topology)));
        };
        self.store(&archive, term, contribution).await
    }

    /// Stores a contribution, and answers what became of it.
    pub(super) async fn store(
        &self,
        archive: &Archive,
        term: Term,
        contribution: Contribution,
    ) -> Result<ContributeAnswer, Refusal> {
        let (topology, minute) = (contribution.topology.clone(), contribution.minute);
        let (n_points, before) = (contribution.points.len(), archive.position());
        let counts = &self.shared.counts;
        Ok(match archive.contribute(term, contribution).await {
            Ok(Taken::Stored(at)) => {
                debug!(%topology, %minute, n_points, seq = at.seq, "took in a contribution");
                match at > before {
                    true => {
                        count(&counts.contributions, 1);
                        count(&counts.points, n_points);
                        self.shared.own.contributions.mark();
                        self.shared.own.points.mark_many(n_points as u64);
                    }
                    false => count(&counts.repeats, 1),
                }
                self.shared.stored.notify_one();
                ContributeAnswer::Stored { at, safe: self.safe() }
            }
            Ok(Taken::Overlaps(stored)) => {
                count(&counts.overlaps, 1);
                ContributeAnswer::Overlaps { stored }
            }
            Ok(Taken::Unregistered(mut ids)) => {
                count(&counts.not_now, 1);
                ids.truncate(NAMES_MAX);
                ContributeAnswer::Unregistered { ids }
            }
            Err(archive::Error::Invalid(reason)) => {
                info!(%topology, %minute, reason, "a contribution is refused");
                count(&counts.refused, 1);
                self.shared.own.refused.increment();
                ContributeAnswer::Refused { reason }
            }
            Err(error @ archive::Error::StaleTerm { .. }) => return Err(self.refused(error)),
            Err(error) => self.not_now(error.to_string()),
        })
    }

    fn not_now(&self, reason: String) -> ContributeAnswer {
        debug!(reason, "a contribution is not taken now");
        self.shared.own.refused.increment();
        count(&self.shared.counts.not_now, 1);
        ContributeAnswer::NotNow { reason }
    }

    /// Whether metrics of `topology` are taken: it is there, or was. Its last minutes come when
    /// it is gone already.
    async fn check_known(&self, archive: &Archive, topology: &TopologyId) -> Result<(), Refusal> {
        if is_of_daemons(topology) || self.view().0.storms.contains_key(topology) {
            return Ok(());
        }
        match archive.fingerprint(topology).await {
            Ok(known) if known.count > 0 => Ok(()),
            Ok(_) => Err(Refusal::NoMetrics { reason: format!("topology {topology} is not known here") }),
            Err(error) => Err(self.refused(error)),
        }
    }

    /// Lets go metas of a topology that is gone.
    pub(super) async fn forget(&self, topology: &TopologyId, ids: Vec<MetricId>) -> Result<(), Refusal> {
        let (archive, term) = self.leading()?;
        let (view, fresh) = self.view();
        if !fresh {
            return Err(Refusal::NotReady);
        }
        let is_there = view.storms.contains_key(topology) || view.is_unreadable(&layout::storm(topology));
        if is_there || is_of_daemons(topology) {
            return Err(Refusal::StillMeasured { topology: topology.clone() });
        }
        let n = ids.len();
        archive.forget(term, (topology.clone(), ids)).await.map_err(|error| self.refused(error))?;
        info!(%topology, n, "metas were forgotten, as somebody asked for it");
        Ok(())
    }

    /// What an error of the archive is to the one who asked.
    fn refused(&self, error: archive::Error) -> Refusal {
        match error {
            archive::Error::StaleTerm { .. } => Refusal::NotLeading { leader: None },
            archive::Error::Invalid(reason) => Refusal::BadOption(reason),
            error => Refusal::NoMetrics { reason: error.to_string() },
        }
    }

    /// Entries of the log, for another nimbus. A follower says by its question what it has, and
    /// gets nothing from one that does not lead: what that one has may be less than what is safe.
    pub(in crate::nimbus) async fn log_after(
        &self,
        mut query: LogQuery,
    ) -> Result<(LogPage, Position), Refusal> {
        let archive = self.archive()?;
        let (stage, term) = *self.shared.stage.borrow();
        match query.leads {
            Some(leads) if (stage, term) != (Stage::Leading, Some(leads)) => {
                let reason =
                    format!("it does not take metrics in as the leader of term {leads}: {}", stage.word());
                return Err(Refusal::NoMetrics { reason });
            }
            None if stage == Stage::TakingOver => {
                let reason = "it is about to lead, and asks others itself".to_owned();
                return Err(Refusal::NoMetrics { reason });
            }
            Some(_) | None => {}
        }
        query.max_bytes = query.max_bytes.min(LOG_PAGE_BYTES_MAX);
        let mut page = archive.log_after(&query).await.map_err(|error| self.refused(error))?;
        if query.leads.is_some() {
            let has = Position { term: query.term, seq: query.seq };
            match &page {
                LogPage::Entries { .. } => {
                    self.acks().has(query.nimbus, has, self.shared.setup.clock.monotonic());
                }
                LogPage::Diverged if self.mark().lacks(has) => {
                    self.acks().diverged(&query.nimbus);
                    page = LogPage::Lacking;
                }
                LogPage::Diverged | LogPage::Lacking => self.acks().diverged(&query.nimbus),
            }
            self.shared.stored.notify_one();
        }
        Ok((page, archive.position()))
    }

    /// Metas, for another nimbus.
    pub(in crate::nimbus) async fn metas(&self, mut query: MetaQuery) -> Result<MetaPage, Refusal> {
        query.limit = query.limit.clamp(1, NAMES_MAX);
        self.archive()?.metas(query).await.map_err(|error| self.refused(error))
    }
}

fn of_one(topology: &TopologyId) -> String {
    format!("{OF_ONE_TOPOLOGY} requests of topology {topology} are being stored already")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_topology_does_not_take_the_place_of_others() {
        let gate = Gate::new();
        let (one, other): (TopologyId, TopologyId) =
            ("a-1-1".parse().expect("valid"), "b-1-1".parse().expect("valid"));
        let mut places: Vec<_> =
            (0..OF_ONE_TOPOLOGY).map(|_| gate.enter(&one).expect("there is room")).collect();
        assert!(gate.enter(&one).is_none());
        assert!(gate.enter(&other).is_some());
        places.pop();
        assert!(gate.enter(&one).is_some());
        drop(places);
        assert!(gate.lock().is_empty());
    }
}
