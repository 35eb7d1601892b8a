//! Following the leader's archive by its log.

use std::time::Duration;

use tracing::{debug, info, warn};

use crate::{
    archive::{self, Archive},
    backoff::Backoff,
    cluster::{record::Leader, store},
    model::{Position, Term},
    nimbus::measure::{
        Measure, Stage,
        checkpoint::{self, Directory},
        status::count,
    },
    rpc::{
        client::chain,
        metrics::{LogPage, LogQuery},
        metrics_sync::SyncError,
    },
};

/// How much is asked for at once: a fraction of a second to send and to write.
const PAGE_BYTES: u64 = 4 << 20;

/// How many pages follow one another without a pause. Between them others get their turn.
const PAGES_IN_A_ROW: usize = 16;

/// After a failure; the leader may be on its way to another nimbus.
const RETRY_MIN: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(30);

/// Between two whole archives: one that diverges again at once would copy gigabytes for ever.
const CHECKPOINT_PAUSE: Duration = Duration::from_secs(30);

/// Why nothing was fetched.
#[derive(Debug, thiserror::Error)]
pub(super) enum FetchError {
    #[error(transparent)]
    Sync(#[from] SyncError),
    #[error(transparent)]
    Archive(#[from] archive::Error),
    #[error(
        "the last leader that this nimbus knows of is of term {leader}, and its own log goes up to entry {own}: \
         a later leader is not known yet, or ZooKeeper's tree is a new one"
    )]
    Older { leader: Term, own: Position },
    #[error("another nimbus leads since the archive of the leader of term {leader} was fetched")]
    Deposed { leader: Term },
    #[error("it is not known whether the leader still leads")]
    Tree(#[from] store::Error),
}

/// What one question brought.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fetched {
    /// The other one has no more than this nimbus.
    Level,
    /// This was taken, and there may be more.
    UpTo(Position),
    /// Its log does not go on where ours ends.
    Diverged,
    /// Nor does it have all that ours has.
    Lacking,
}

/// Follows for as long as the nimbus runs; not while it leads.
pub(super) async fn follow(measure: Measure) {
    let archive = measure.opened().await;
    let mut stage = measure.shared.stage.subscribe();
    let mut observations = measure.shared.setup.observations.clone();
    let mut backoff =
        Backoff::new(RETRY_MIN, RETRY_MAX, fastrand::Rng::new()).expect("the constants are in order");
    loop {
        let pace = &measure.shared.options.pace;
        let (now, leader) = (stage.borrow_and_update().0, measure.leader());
        let wait = match leader.as_ref().filter(|_| now == Stage::Following) {
            None => pace.pull_idle,
            Some(leader) => match measure.pull(&archive, leader).await {
                Ok(wait) => {
                    backoff.reset();
                    measure.progress().trouble = None;
                    wait
                }
                Err(error) => {
                    let (text, leader) = (chain(&error), &leader.nimbus);
                    let is_news = measure.progress().trouble.replace(text.clone()).as_ref() != Some(&text);
                    match is_news {
                        true => info!(%leader, error = text, "could not follow the leader's metrics"),
                        false => debug!(%leader, error = text, "could not follow the leader's metrics"),
                    }
                    backoff.next_delay().max(pace.pull_busy)
                }
            },
        };
        let heard_of = async {
            // Another leader may have the answer at once; what else changes is not looked at.
            while observations.changed().await.is_ok() {
                if measure.leader() != leader {
                    return;
                }
            }
            std::future::pending().await
        };
        tokio::select! {
            biased;
            // Cancel-safe: all of them only wait.
            _changed = stage.changed() => {}
            () = heard_of => {}
            () = tokio::time::sleep(wait) => {}
        }
    }
}

impl Measure {
    /// Takes what the leader has, page by page, and answers how long to wait.
    async fn pull(&self, archive: &Archive, leader: &Leader) -> Result<Duration, FetchError> {
        let (pace, api, leads) = (&self.shared.options.pace, &leader.api, Some(leader.term));
        for _ in 0..PAGES_IN_A_ROW {
            let _hand = self.shared.hand.lock().await;
            let own = archive.position();
            if own.term > leader.term.0 {
                return Err(FetchError::Older { leader: leader.term, own });
            }
            let Some(asked) = self.while_following(self.ask(archive, api, leads)).await else {
                return Ok(pace.pull_idle);
            };
            let (page, last) = asked?;
            self.progress().leader = Some(last);
            let fetched = self.take(archive, api, page).await?;
            match fetched {
                Fetched::Level => return Ok(self.level()),
                Fetched::UpTo(position) if position >= last => return Ok(self.level()),
                Fetched::UpTo(_) => {}
                Fetched::Diverged | Fetched::Lacking => {
                    let keeps = fetched == Fetched::Lacking;
                    let Some(received) = self.while_following(self.download(archive, api, keeps)).await
                    else {
                        return Ok(pace.pull_idle);
                    };
                    let received = received?;
                    // What it leads may have been given up by now, and is not in this then.
                    if !self.shared.setup.store.is_latest(leader.term).await? {
                        return Err(FetchError::Deposed { leader: leader.term });
                    }
                    self.replace(archive, api, received, keeps).await?;
                    // The log since then follows at once, unless it diverges once more.
                    let (page, _) = self.ask(archive, api, leads).await?;
                    let is_odd =
                        matches!(self.take(archive, api, page).await?, Fetched::Diverged | Fetched::Lacking);
                    return Ok(if is_odd { CHECKPOINT_PAUSE.max(pace.pull_busy) } else { pace.pull_busy });
                }
            }
        }
        Ok(pace.pull_busy)
    }

    /// Notes that everything is here that the leader has, and answers how long to wait.
    fn level(&self) -> Duration {
        self.progress().level_at = Some(self.shared.setup.clock.now());
        self.shared.options.pace.pull_idle
    }

    /// What `asking` answers, unless this nimbus leads before: a leader that is gone may take
    /// long to answer, and whoever takes over waits for the hand.
    pub(super) async fn while_following<T>(&self, asking: impl Future<Output = T>) -> Option<T> {
        let mut stage = self.shared.stage.subscribe();
        tokio::select! {
            biased;
            // Cancel-safe: what only asks has changed nothing here.
            _changed = stage.wait_for(|(stage, _)| *stage != Stage::Following) => None,
            answer = asking => Some(answer),
        }
    }

    /// Asks the nimbus at `api` for what comes after our last entry, and how far its log goes; as
    /// a follower of the leader of the term `leads`, or as a leader.
    pub(super) async fn ask(
        &self,
        archive: &Archive,
        api: &str,
        leads: Option<Term>,
    ) -> Result<(LogPage, Position), FetchError> {
        let Position { term, seq } = archive.position();
        let query =
            LogQuery { nimbus: self.shared.setup.me.clone(), term, seq, max_bytes: PAGE_BYTES, leads };
        Ok(self.shared.sync.log(api, &query).await?)
    }

    /// Takes a page of another nimbus' log. The hand must be held.
    pub(super) async fn take(
        &self,
        archive: &Archive,
        api: &str,
        page: LogPage,
    ) -> Result<Fetched, FetchError> {
        Ok(match page {
            LogPage::Entries { entries, .. } if entries.is_empty() => Fetched::Level,
            LogPage::Entries { entries, .. } => {
                let n = entries.len();
                let position = archive.apply(entries).await?;
                debug!(from = api, n, seq = position.seq, "took entries of the metrics log");
                Fetched::UpTo(position)
            }
            LogPage::Diverged => Fetched::Diverged,
            LogPage::Lacking => Fetched::Lacking,
        })
    }

    /// Fetches the whole archive of the nimbus at `api`. If our own is one to keep, only when there
    /// is room for that.
    pub(super) async fn download(
        &self,
        archive: &Archive,
        api: &str,
        keeps: bool,
    ) -> Result<Directory, FetchError> {
        if keeps {
            archive.has_room_aside().await?;
        }
        let Position { term, seq } = archive.position();
        warn!(
            from = api,
            term,
            seq,
            "our metrics log does not lead on to that of another nimbus: fetching its whole archive"
        );
        let received = Directory(self.new_dir(checkpoint::RECEIVED));
        let bytes = self.shared.sync.checkpoint(api, &received.0).await?;
        debug!(from = api, bytes, "fetched a whole metrics archive");
        Ok(received)
    }

    /// Goes on with what was fetched in place of ours, which is put aside if it is one to keep. The
    /// hand must be held.
    pub(super) async fn replace(
        &self,
        archive: &Archive,
        api: &str,
        received: Directory,
        keeps: bool,
    ) -> Result<(), FetchError> {
        let own = archive.position();
        if keeps {
            archive.give_way_to(received.0.clone()).await?;
            warn!(term = own.term, seq = own.seq, "metrics that the cluster lacks were put aside");
        } else {
            archive.replace_with(received.0.clone()).await?;
        }
        count(&self.shared.counts.checkpoints, 1);
        let Position { term, seq } = archive.position();
        info!(from = api, term, seq, "took the whole metrics archive");
        Ok(())
    }
}
