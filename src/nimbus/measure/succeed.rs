//! What a new leader does first: it takes what other nimbuses have beyond its own.
//!
//! The leader before told masters that an entry is safe when one other nimbus had it. That
//! need not be the one that leads now. So before it takes anything in, a new leader asks every
//! live nimbus how far its log goes, the former leader among them, and fetches from the one
//! that has the most. Positions are compared by term first: entries of an earlier term that
//! another leader did not take over were never called safe.
//!
//! What is safe is marked in the tree. A leader that lacks some of it asks again and again, until
//! those who had it are heard or it has waited long enough. Meanwhile masters keep what they have.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tracing::{info, warn};

use crate::{
    archive::Archive,
    cluster::{archive::ArchiveRecord, event::Told},
    election::FencedWriter,
    model::{NimbusId, Position, event::EventKind},
    nimbus::measure::{
        Measure,
        follow::{FetchError, Fetched},
        mark::{self, Deposed},
        takeover::{Successor, Takeover},
    },
    rpc::{client::chain, metrics::LogQuery},
};

/// How long a nimbus may take to say how far its log goes. One that is gone is in the view
/// until its session ends, and should not hold up the rest for longer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Another nimbus, and where its API is.
type Other = (NimbusId, String);

impl Measure {
    /// Takes what other live nimbuses have beyond our own, and what is safe in any case, unless
    /// it does not come in time.
    pub(super) async fn succeed(&self, archive: &Archive, writer: &FencedWriter) -> Result<(), Deposed> {
        let _hand = self.shared.hand.lock().await;
        let (clock, pace) = (&self.shared.setup.clock, &self.shared.options.pace);
        let record = self.read_mark().await;
        let (term, began, grace) = (writer.term(), clock.monotonic(), self.shared.options.takeover_grace);
        let until = clock.now().plus(grace);
        loop {
            let heard = self.take_what_others_have(archive, &record).await;
            let own = archive.position();
            let successor = Successor {
                me: &self.shared.setup.me,
                term,
                own,
                heard: &heard,
                waited: clock.monotonic().since(began),
                grace,
            };
            match successor.decide(&record) {
                Takeover::Begins => {
                    *self.mark() = record;
                    return Ok(());
                }
                Takeover::GivesUp => {
                    let text = mark::given_up(term, own, &record);
                    warn!("{text}");
                    let told = Told::of_cluster(EventKind::MetricsLost, text);
                    return self
                        .write_mark(writer, record.given_up(term, own, clock.now()), Some(told))
                        .await;
                }
                Takeover::Waits { holders, left } => {
                    self.is_waiting(format!(
                        "metrics are not taken in yet: this nimbus has the log up to entry {own}, and up to {} it \
                         is safe; waiting for {} until {}",
                        record.safe,
                        holders.iter().map(ToString::to_string).collect::<Vec<_>>().join(", "),
                        until,
                    ));
                    tokio::time::sleep(left.min(pace.takeover)).await;
                }
                Takeover::IsForeign => {
                    self.is_waiting(format!(
                        "metrics are not taken in: this archive has entries of term {}, and term {term} is the \
                         latest that ZooKeeper knows of; \"A new ZooKeeper tree\" in docs/operations.md says what to do",
                        own.term,
                    ));
                    tokio::time::sleep(pace.takeover).await;
                }
            }
        }
    }

    /// Says what it waits for, in the log when it is news.
    fn is_waiting(&self, text: String) {
        let is_news = self.progress().trouble.replace(text.clone()).as_ref() != Some(&text);
        if is_news {
            warn!("{text}");
        }
    }

    /// Answers who has no more than this nimbus by now.
    async fn take_what_others_have(&self, archive: &Archive, record: &ArchiveRecord) -> BTreeSet<NimbusId> {
        let mut failed: BTreeSet<NimbusId> = BTreeSet::new();
        loop {
            let own = archive.position();
            let others = self.others().into_iter().filter(|(id, _)| !failed.contains(id));
            let reached = join_all(others.map(async |other| {
                let reached = tokio::time::timeout(ASK_TIMEOUT, self.reach(&other.1, own)).await;
                (reached.map_err(|_too_long| "no answer in time".to_owned()).flatten(), other)
            }));
            let mut heard = BTreeSet::new();
            let mut most: Option<(Position, Other)> = None;
            for (reached, other) in reached.await {
                match reached {
                    Ok(position) if position <= own => _ = heard.insert(other.0),
                    Ok(position) => {
                        if most.as_ref().is_none_or(|(most, _)| position > *most) {
                            most = Some((position, other));
                        }
                    }
                    Err(error) => {
                        info!(nimbus = %other.0, error, "a nimbus does not say which metrics it has");
                        failed.insert(other.0);
                    }
                }
            }
            let Some((position, (id, api))) = most else { return heard };
            info!(from = %id, term = position.term, seq = position.seq, "taking over metrics");
            if let Err(error) = self.catch_up(archive, &api, position, record).await {
                warn!(from = %id, error = chain(&error), "could not take over metrics");
                failed.insert(id);
            }
        }
    }

    /// The other live nimbuses.
    fn others(&self) -> Vec<Other> {
        let (view, _) = self.view();
        let others = view.nimbuses.iter().filter(|(id, _)| **id != self.shared.setup.me);
        others.map(|(id, nimbus)| (id.clone(), nimbus.api.clone())).collect()
    }

    /// How far the log of the nimbus at `api` goes.
    async fn reach(&self, api: &str, own: Position) -> Result<Position, String> {
        let me = self.shared.setup.me.clone();
        let query = LogQuery { nimbus: me, term: own.term, seq: own.seq, max_bytes: 1, leads: None };
        let answer = self.shared.sync.log(api, &query).await;
        answer.map(|(_, position)| position).map_err(|error| chain(&error))
    }

    async fn catch_up(
        &self,
        archive: &Archive,
        api: &str,
        until: Position,
        record: &ArchiveRecord,
    ) -> Result<(), FetchError> {
        let mut is_replaced = false;
        while archive.position() < until {
            let (page, _) = self.ask(archive, api, None).await?;
            match self.take(archive, api, page).await? {
                Fetched::UpTo(_) => {}
                Fetched::Level => return Ok(()),
                Fetched::Diverged | Fetched::Lacking if is_replaced => return Ok(()),
                Fetched::Diverged | Fetched::Lacking => {
                    // The other one does not lead, so what was given up is known here.
                    let keeps = record.lacks(archive.position());
                    let received = self.download(archive, api, keeps).await?;
                    self.replace(archive, api, received, keeps).await?;
                    is_replaced = true;
                }
            }
        }
        Ok(())
    }
}
