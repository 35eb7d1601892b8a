//! What a new leader does first: it takes what other nimbuses have beyond its own.
//!
//! The leader before told masters that an entry is safe when one other nimbus had it. That need
//! not be the one that leads now. What is safe is marked in the tree; so before it takes anything
//! in, a new leader asks every live nimbus how far its log goes, the former leader among them,
//! and fetches what it lacks from one that has all that is safe.
//!
//! Nobody who can be reached may have it: then the leader asks again and again, until those who
//! had it are heard or it has waited long enough. Meanwhile masters keep what they have.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tracing::{info, warn};

use crate::{
    archive::Archive,
    cluster::{archive::ArchiveRecord, event::Told},
    election::{FencedWriter, WriteError},
    model::{NimbusId, Position, event::EventKind},
    nimbus::measure::{
        Measure,
        follow::{FetchError, Fetched},
        mark::{self, Deposed},
        takeover::{self, Offer, Successor, Takeover},
    },
    rpc::{
        client::chain,
        metrics::{LogPage, LogQuery},
    },
};

/// How long a nimbus may take to say how far its log goes. One that is gone is in the view
/// until its session ends, and should not hold up the rest for longer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// Why nothing was taken over from a nimbus.
#[derive(Debug, thiserror::Error)]
enum TakeError {
    #[error(transparent)]
    Fetch(#[from] FetchError),
    #[error("it is not known whether this nimbus leads")]
    Write(#[from] WriteError),
}

/// Another nimbus, and where its API is.
type Other = (NimbusId, String);

impl Measure {
    /// Takes what other live nimbuses have beyond our own, and what is safe in any case, unless
    /// nobody comes who has it.
    pub(super) async fn succeed(&self, archive: &Archive, writer: &FencedWriter) -> Result<(), Deposed> {
        let _hand = self.shared.hand.lock().await;
        let (clock, options) = (&self.shared.setup.clock, &self.shared.options);
        let (me, term, grace) = (&self.shared.setup.me, writer.term(), options.takeover_grace);
        let known = self.read_mark().await;
        let is_new = known.is_none() && archive.position() == Position::default();
        let record = known.unwrap_or_else(ArchiveRecord::unknown);
        let (mut began, mut until, mut said) = (clock.monotonic(), clock.now().plus(grace), None);
        loop {
            let (heard, failure) = self.take_what_others_have(archive, writer, &record).await?;
            let (own, now) = (archive.position(), clock.monotonic());
            let (is_in_reach, waited) = (failure.is_some(), now.since(began));
            let successor = Successor { me, term, own, heard: &heard, is_in_reach, waited, grace };
            let text = match successor.decide(&record) {
                Takeover::Begins => {
                    *self.mark() = record;
                    return Ok(());
                }
                // Nobody has anything, and nobody ever said what is safe: all of it is new.
                Takeover::GivesUp if is_new && own == Position::default() => {
                    return self.write_mark(writer, ArchiveRecord::default(), None).await;
                }
                Takeover::GivesUp => {
                    let text = mark::given_up(term, own, &record);
                    let told = Told::of_cluster(EventKind::MetricsLost, text.as_str());
                    let record = record.give_up(me, term, own, clock.now());
                    self.write_mark(writer, record, Some(told)).await?;
                    warn!("{text}");
                    return Ok(());
                }
                Takeover::Waits(holders) => {
                    let holders: Vec<String> = holders.iter().map(ToString::to_string).collect();
                    let (safe, holders) = (record.safe, holders.join(", "));
                    format!(
                        "metrics are not taken in yet: this nimbus has the log up to entry {own}, and up to {safe} \
                         it is safe; waiting for {holders} until {until}"
                    )
                }
                Takeover::Insists => {
                    (began, until) = (now, clock.now().plus(grace));
                    let failure = failure.unwrap_or_default();
                    format!(
                        "metrics are not taken in yet: this nimbus has the log up to entry {own}, and what it \
                         lacks could not be fetched: {failure}"
                    )
                }
                Takeover::IsForeign => format!(
                    "metrics are not taken in: this archive has entries of term {}, and this nimbus leads in \
                     term {term}; \"A new ZooKeeper tree\" in docs/operations.md says what to do",
                    own.term
                ),
            };
            self.progress().trouble = Some(text.clone());
            if said.as_ref() != Some(&text) {
                warn!("{text}");
            }
            said = Some(text);
            tokio::time::sleep(options.pace.takeover).await;
        }
    }

    /// Answers who has nothing more for this nimbus, and why that of one that has what is safe
    /// could not be fetched.
    async fn take_what_others_have(
        &self,
        archive: &Archive,
        writer: &FencedWriter,
        record: &ArchiveRecord,
    ) -> Result<(BTreeSet<NimbusId>, Option<String>), Deposed> {
        let (mut done, mut failure): (BTreeSet<NimbusId>, _) = (BTreeSet::new(), None);
        loop {
            let said = self.ask_others(archive.position()).await;
            let own = archive.position();
            let offer = |at: Position| takeover::offer(record, writer.term(), own, at);
            let offers = said.iter().map(|(other, at)| (offer(*at), *at, other));
            let open = offers.filter(|(offer, _, (id, _))| *offer > Offer::Nothing && !done.contains(id));
            let Some((offer, at, (id, api))) = open.max_by_key(|(offer, at, _)| (*offer, *at)) else {
                let heard = said.iter().map(|((id, _), _)| id.clone());
                return Ok((heard.collect(), failure.filter(|_| !record.has_all(own))));
            };
            info!(from = %id, term = at.term, seq = at.seq, "taking over metrics");
            self.progress().trouble =
                Some(format!("metrics are not taken in yet: taking over those of {id}, up to entry {at}"));
            match self.catch_up(archive, api, at, (writer, record, offer)).await {
                Ok(true) => {}
                // Its log does not lead on from ours, and it need not.
                Ok(false) => _ = done.insert(id.clone()),
                Err(TakeError::Write(WriteError::Deposed { .. })) => return Err(Deposed),
                Err(error) => {
                    let reason = format!("from {id}: {}", chain(&error));
                    info!(reason, "could not take over metrics");
                    done.insert(id.clone());
                    failure = failure.or((offer == Offer::Archive).then_some(reason));
                }
            }
        }
    }

    /// How far the logs of the other live nimbuses go; of those that answer.
    async fn ask_others(&self, own: Position) -> Vec<(Other, Position)> {
        let (view, _) = self.view();
        let others = view.nimbuses.iter().filter(|(id, _)| **id != self.shared.setup.me);
        let asked = join_all(others.map(async |(id, nimbus)| {
            let answer = tokio::time::timeout(ASK_TIMEOUT, self.reach(&nimbus.api, own)).await;
            match answer.map_err(|_too_long| "no answer in time".to_owned()).flatten() {
                Ok(position) => Some(((id.clone(), nimbus.api.clone()), position)),
                Err(error) => {
                    info!(nimbus = %id, error, "a nimbus does not say which metrics it has");
                    None
                }
            }
        }));
        asked.await.into_iter().flatten().collect()
    }

    /// How far the log of the nimbus at `api` goes.
    async fn reach(&self, api: &str, own: Position) -> Result<Position, String> {
        let me = self.shared.setup.me.clone();
        let query = LogQuery { nimbus: me, term: own.term, seq: own.seq, max_bytes: 1, leads: None };
        let answer = self.shared.sync.log(api, &query).await;
        answer.map(|(_, position)| position).map_err(|error| chain(&error))
    }

    /// Takes the log of the nimbus at `api` up to `until`. Answers whether that led on from ours,
    /// or its archive took the place of ours.
    async fn catch_up(
        &self,
        archive: &Archive,
        api: &str,
        until: Position,
        (writer, record, offer): (&FencedWriter, &ArchiveRecord, Offer),
    ) -> Result<bool, TakeError> {
        let mut may_replace = offer == Offer::Archive;
        while archive.position() < until {
            let (page, _) = self.ask(archive, api, None).await?;
            if let LogPage::Entries { entries, .. } = &page
                && entries.iter().any(|(at, _)| at.term >= writer.term().0)
            {
                // It follows a later leader by now.
                return Ok(false);
            }
            match self.take(archive, api, page).await? {
                Fetched::UpTo(_) => {}
                Fetched::Level => return Ok(true),
                Fetched::Diverged | Fetched::Lacking if !may_replace => return Ok(false),
                Fetched::Diverged | Fetched::Lacking => {
                    let own = archive.position();
                    let keeps = record.lacks(own) || record.is_unknown() && own != Position::default();
                    let received = self.download(archive, api, keeps).await?;
                    // What was fetched before this has nothing of a later leader, which may have
                    // given something up that is not known here.
                    writer.commit(Vec::new()).await?;
                    self.replace(archive, api, received, keeps).await?;
                    may_replace = false;
                }
            }
        }
        Ok(true)
    }
}
