//! What a new leader does first: it takes what other nimbuses have beyond its own.
//!
//! The leader before told masters that an entry is safe when one other nimbus had it. That
//! need not be the one that leads now. So before it takes anything in, a new leader asks every
//! live nimbus how far its log goes, the former leader among them, and fetches from the one
//! that has the most. Positions are compared by term first: entries of an earlier term that
//! another leader did not take over were never called safe.

use std::{collections::BTreeSet, time::Duration};

use futures_util::future::join_all;
use tracing::{info, warn};

use crate::{
    archive::Archive,
    model::Position,
    nimbus::measure::{
        Measure,
        follow::{FetchError, Fetched},
    },
    rpc::{client::chain, metrics::LogQuery},
};

/// How long a nimbus may take to say how far its log goes. One that is gone is in the view
/// until its session ends, and should not hold up the rest for longer.
const ASK_TIMEOUT: Duration = Duration::from_secs(5);

/// How long all of it may take. A large archive is fetched in minutes; meanwhile masters keep
/// what they have.
const TAKE_OVER_TIMEOUT: Duration = Duration::from_secs(600);

impl Measure {
    /// Takes what other live nimbuses have beyond our own. Whoever cannot be reached is left
    /// out.
    pub(super) async fn succeed(&self, archive: &Archive) {
        let _hand = self.shared.hand.lock().await;
        let taking = self.take_what_others_have(archive);
        if tokio::time::timeout(TAKE_OVER_TIMEOUT, taking).await.is_err() {
            warn!("taking over the metrics of other nimbuses took too long: what we have has to do");
        }
    }

    async fn take_what_others_have(&self, archive: &Archive) {
        let mut failed: BTreeSet<String> = BTreeSet::new();
        loop {
            let own = archive.position();
            let reached =
                join_all(self.others().into_iter().filter(|api| !failed.contains(api)).map(async |api| {
                    let reached = tokio::time::timeout(ASK_TIMEOUT, self.reach(&api, own)).await;
                    (reached.map_err(|_too_long| "no answer in time".to_owned()).flatten(), api)
                }))
                .await;
            let mut most: Option<(Position, String)> = None;
            for (reached, api) in reached {
                match reached {
                    Ok(position) if position > own && most.as_ref().is_none_or(|(p, _)| position > *p) => {
                        most = Some((position, api));
                    }
                    Ok(_) => {}
                    Err(error) => {
                        info!(nimbus = api, error, "a nimbus does not say which metrics it has");
                        failed.insert(api);
                    }
                }
            }
            let Some((position, api)) = most else { return };
            info!(from = api, term = position.term, seq = position.seq, "taking over metrics");
            if let Err(error) = self.catch_up(archive, &api, position).await {
                warn!(from = api, error = chain(&error), "could not take over metrics");
                failed.insert(api);
            }
        }
    }

    /// Where the APIs of the other live nimbuses are.
    fn others(&self) -> Vec<String> {
        let (view, _) = self.view();
        let others = view.nimbuses.iter().filter(|(id, _)| **id != self.shared.setup.me);
        others.map(|(_, nimbus)| nimbus.api.clone()).collect()
    }

    /// How far the log of the nimbus at `api` goes.
    async fn reach(&self, api: &str, own: Position) -> Result<Position, String> {
        let query =
            LogQuery { nimbus: self.shared.setup.me.clone(), term: own.term, seq: own.seq, max_bytes: 1 };
        let answer = self.shared.sync.log(api, &query).await;
        answer.map(|(_, position)| position).map_err(|error| chain(&error))
    }

    async fn catch_up(&self, archive: &Archive, api: &str, until: Position) -> Result<(), FetchError> {
        let mut is_replaced = false;
        while archive.position() < until {
            let (page, _) = self.ask(archive, api).await?;
            match self.take(archive, api, page).await? {
                Fetched::UpTo(_) => {}
                Fetched::Level => return Ok(()),
                Fetched::Diverged if is_replaced => return Ok(()),
                Fetched::Diverged => {
                    let received = self.download(archive, api).await?;
                    self.replace(archive, api, received).await?;
                    is_replaced = true;
                }
            }
        }
        Ok(())
    }
}
