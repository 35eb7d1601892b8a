//! Answers of this nimbus to the replication requests of other nimbuses.

use stormkeeper_metrics::protocol::{LogPage, LogQuery, MetaPage, MetaQuery, NAMES_MAX};
use stormkeeper_model::LogPosition;

use crate::{MetricsService, ReplicaState, RequestError};

/// Limit on the bytes of one page of the log.
const LOG_PAGE_BYTES_MAX: u64 = 8 << 20;

impl MetricsService {
    /// Returns log entries for another nimbus. A follower reports its log end with its query. A
    /// follower gets no entries from a nimbus that is not the leader: the log of such a nimbus may
    /// lack committed entries.
    pub async fn log_after(&self, mut query: LogQuery) -> Result<(LogPage, LogPosition), RequestError> {
        let archive = self.archive()?;
        let (state, term) = *self.shared.replica_state.borrow();
        match query.leader_term {
            Some(leads) if (state, term) != (ReplicaState::Leading, Some(leads)) => {
                let reason = format!(
                    "this nimbus does not ingest metrics as the leader of term {leads}: it is {}",
                    state.word()
                );
                return Err(RequestError::Unavailable { reason });
            }
            None if state == ReplicaState::TakingOver => {
                let reason = "this nimbus is taking over, and polls other nimbuses itself".to_owned();
                return Err(RequestError::Unavailable { reason });
            }
            Some(_) | None => {}
        }
        query.max_bytes = query.max_bytes.min(LOG_PAGE_BYTES_MAX);
        let mut page = archive.log_after(&query).await.map_err(|error| self.refusal_of(error))?;
        if query.leader_term.is_some() {
            let has = LogPosition { term: query.term, index: query.index };
            match &page {
                LogPage::Entries { .. } => {
                    self.replica_progress().record_fetch(
                        query.nimbus,
                        has,
                        self.shared.setup.clock.monotonic(),
                    );
                }
                LogPage::Diverged if self.log_state().may_hold_discarded(has) => {
                    self.replica_progress().reset(&query.nimbus);
                    page = LogPage::DivergedCommitted;
                }
                LogPage::Diverged | LogPage::DivergedCommitted => {
                    self.replica_progress().reset(&query.nimbus)
                }
            }
            self.shared.commit_wakeup.notify_one();
        }
        Ok((page, archive.position()))
    }

    /// Returns metas for another nimbus.
    pub async fn metas(&self, mut query: MetaQuery) -> Result<MetaPage, RequestError> {
        query.limit = query.limit.clamp(1, NAMES_MAX);
        self.archive()?.metas(query).await.map_err(|error| self.refusal_of(error))
    }
}
