//! Responses of this nimbus to the replication requests of other nimbuses.

use stormkeeper_metrics::protocol::{LogPage, LogQuery, MetaPage, MetaQuery, NAMES_MAX};
use stormkeeper_model::{LogPosition, NimbusId};

use crate::{ReplicaState, RequestError, replication::Replication};

/// Limit on the bytes of one page of the log.
const LOG_PAGE_BYTES_MAX: u64 = 8 << 20;

impl Replication {
    /// Returns log entries for another nimbus. A follower reports its log end with its query. A
    /// follower gets no entries from a nimbus that is not the leader: the log of such a nimbus may
    /// lack committed entries.
    pub(crate) async fn log_after(
        &self,
        mut query: LogQuery,
    ) -> Result<(LogPage, LogPosition), RequestError> {
        let store = self.store.get()?;
        let (state, term) = *self.role.borrow();
        match query.leader_term {
            Some(leads) if (state, term) != (ReplicaState::Leading, Some(leads)) => {
                let reason =
                    format!("its metric store does not serve term {leads} yet: it is {}", state.word());
                return Err(RequestError::Unavailable { reason });
            }
            None if state == ReplicaState::TakingOver => {
                let reason = "this nimbus is taking over, and polls other nimbuses itself".to_owned();
                return Err(RequestError::Unavailable { reason });
            }
            Some(_) | None => {}
        }
        query.max_bytes = query.max_bytes.min(LOG_PAGE_BYTES_MAX);
        let mut page = store.log_after(&query).await?;
        let own = store.position();
        if query.leader_term.is_some() {
            let log_end = LogPosition { term: query.term, index: query.index };
            page = self.record_fetch(&query.nimbus, (log_end, own), page);
        }
        Ok((page, own))
    }

    /// Records in the progress that a follower fetched `page` from this leader, and wakes the commit
    /// task. Returns the page, marked if the follower's log may hold discarded entries.
    fn record_fetch(
        &self,
        follower: &NimbusId,
        (log_end, own): (LogPosition, LogPosition),
        page: LogPage,
    ) -> LogPage {
        let page = match page {
            LogPage::Entries { .. } => {
                let now = self.cluster.clock.monotonic();
                self.progress().record_fetch(follower.clone(), (log_end, own), now);
                page
            }
            LogPage::Diverged | LogPage::DivergedCommitted => {
                self.progress().reset(follower);
                match self.log_state().may_hold_discarded(log_end) {
                    true => LogPage::DivergedCommitted,
                    false => page,
                }
            }
        };
        self.wake_commit();
        page
    }

    /// Returns metas for another nimbus.
    pub(crate) async fn metas(&self, mut query: MetaQuery) -> Result<MetaPage, RequestError> {
        query.limit = query.limit.clamp(1, NAMES_MAX);
        Ok(self.store.get()?.metas(query).await?)
    }
}
