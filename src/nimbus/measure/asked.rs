//! What others ask of a nimbus about metrics.

use std::collections::BTreeMap;

use bytes::Bytes;
use tokio::sync::SemaphorePermit;

use crate::{
    archive::Archive,
    daemon::tasks::Tasks,
    metrics::MetricId,
    model::{NimbusId, Position, TopologyId},
    nimbus::{
        Handle,
        measure::{Checkpoint, Lag, Measure, MeasureStatus, Stage},
        refusal::Refusal,
    },
    rpc::metrics::{ContributeAnswer, LogPage, LogQuery, MetaPage, MetaQuery, RegisterAnswer},
};

impl Handle {
    /// Its archive of metrics, to be read. Every nimbus has one; a follower's may be a few
    /// seconds behind.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`] while it is not open, which says why.
    pub fn metrics(&self) -> Result<Archive, Refusal> {
        self.measure()?.archive()
    }

    /// What it knows of the leader's archive. Costs nothing, so that each answer can tell.
    pub fn metrics_lag(&self) -> Lag {
        self.measure().map(Measure::lag).unwrap_or_default()
    }

    /// How many entries each nimbus' archive is behind the leader's log, as far as this one
    /// knows: of itself, and while it leads of those that follow it.
    pub fn metrics_behind(&self) -> BTreeMap<NimbusId, u64> {
        self.measure().map(Measure::behind).unwrap_or_default()
    }

    /// What keeps its archive from following the leader's, or keeps it as the leader from taking
    /// metrics in.
    pub fn metrics_trouble(&self) -> Option<String> {
        self.measure().ok()?.trouble()
    }

    /// How its metrics stand.
    pub async fn measure_status(&self) -> MeasureStatus {
        match self.measure() {
            Ok(measure) => measure.status().await,
            Err(refusal) => MeasureStatus { closed: Some(refusal.to_string()), ..MeasureStatus::default() },
        }
    }

    /// A place for the body of a registration or a contribution, which is to be read while this
    /// is held. Only a leader has one.
    ///
    /// # Errors
    /// [`Refusal::NotLeading`], and [`Refusal::NoMetrics`] when there is no room in time.
    pub async fn metrics_room(&self) -> Result<SemaphorePermit<'_>, Refusal> {
        if !self.takes_writes() {
            return Err(self.not_leading());
        }
        self.measure()?.room().await
    }

    /// Registers the names in `body`, a [`crate::rpc::metrics::RegisterRequest`].
    ///
    /// # Errors
    /// [`Refusal::NotLeading`]; [`Refusal::NoMetrics`] when it is worth another try;
    /// [`Refusal::BadOption`] when it is not.
    pub async fn register_metrics(&self, body: Bytes) -> Result<RegisterAnswer, Refusal> {
        self.measure()?.register(body).await
    }

    /// Takes in `body`, a [`crate::metrics::Contribution`].
    ///
    /// # Errors
    /// [`Refusal::NotLeading`], and [`Refusal::BadOption`] for what is no contribution.
    pub async fn contribute(&self, body: Bytes) -> Result<ContributeAnswer, Refusal> {
        match self.measure() {
            Ok(measure) => measure.contribute(body).await,
            Err(refusal) => Ok(ContributeAnswer::NotNow { reason: refusal.to_string() }),
        }
    }

    /// Lets go metas of a topology that is gone. Those that are not known change nothing.
    ///
    /// # Errors
    /// [`Refusal::NotLeading`]; [`Refusal::StillMeasured`] of a topology that is there;
    /// [`Refusal::NotReady`] and [`Refusal::NoMetrics`] when it is worth another try.
    pub async fn forget_metrics(&self, topology: &TopologyId, ids: Vec<MetricId>) -> Result<(), Refusal> {
        if !self.takes_writes() {
            return Err(self.not_leading());
        }
        self.measure()?.forget(topology, ids).await
    }

    /// Entries of its archive's log after those that another nimbus has, and how far it goes.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`].
    pub async fn metrics_log(&self, query: LogQuery) -> Result<(LogPage, Position), Refusal> {
        self.measure()?.log_after(query).await
    }

    /// A page of metas.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`].
    pub async fn metrics_metas(&self, query: MetaQuery) -> Result<MetaPage, Refusal> {
        self.measure()?.metas(query).await
    }

    /// A copy of its archive, and the tasks that are to send it.
    ///
    /// # Errors
    /// [`Refusal::NoMetrics`].
    pub async fn metrics_checkpoint(&self) -> Result<(Checkpoint, &Tasks), Refusal> {
        let measure = self.measure()?;
        Ok((measure.checkpoint().await?, measure.tasks()))
    }

    fn measure(&self) -> Result<&Measure, Refusal> {
        let none = || Refusal::NoMetrics { reason: "this nimbus keeps none (local mode)".to_owned() };
        self.measure.as_ref().ok_or_else(none)
    }
}

impl Measure {
    fn behind(&self) -> BTreeMap<NimbusId, u64> {
        let Ok(archive) = self.archive() else { return BTreeMap::new() };
        let own = archive.position();
        let mut behind = BTreeMap::new();
        if self.shared.stage.borrow().0 == Stage::Leading {
            let acks = self.acks();
            let heard = acks.heard().map(|(id, its)| (id.clone(), own.seq.saturating_sub(its.seq)));
            behind.extend(heard);
        }
        if let Some(leader) = self.lag().leader {
            behind.insert(self.shared.setup.me.clone(), leader.seq.saturating_sub(own.seq));
        }
        behind
    }

    fn lag(&self) -> Lag {
        let leads = self.shared.stage.borrow().0 == Stage::Leading;
        match self.archive() {
            Ok(archive) if leads => Lag { leader: Some(archive.position()), level_at: None },
            Ok(_) | Err(_) => {
                let progress = self.progress();
                Lag { leader: progress.leader, level_at: progress.level_at }
            }
        }
    }
}
