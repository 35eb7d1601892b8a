//! Dry run of [`decide`] on a follower, so that every replica can report why a topology is not
//! fully placed.
//!
//! The follower decides as a leader does, on its own view and its own observations. The actions
//! are discarded.

use std::time::Duration;

use crate::{
    credentials,
    decide::{Moment, decide},
    leader::LeaderContext,
    liveness::Liveness,
    policy::Policy,
    table_check::TableChecker,
};
use stormkeeper_access::file::WatchedFile;
use stormkeeper_coordination::cluster::observer::Observation;

/// Shortest time between two dry runs: the result is for people, nothing acts on it.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs as long as the nimbus does. While this nimbus leads, the leader loop reports instead.
pub(super) async fn diagnose(context: LeaderContext) {
    let policy = Policy::from(&*context.options);
    let mut observations = context.observer.observe();
    let mut liveness = Liveness::new(context.clock.monotonic());
    let mut known_interruptions = 0;
    let mut tables = TableChecker::new(context.blobs.clone());
    loop {
        let Observation { view, fresh, n_interruptions, .. } = observations.borrow_and_update().clone();
        let mut wait = context.options.monitor_period;
        if fresh {
            let view = tables.check(view).await;
            let monotonic = context.clock.monotonic();
            if std::mem::replace(&mut known_interruptions, n_interruptions) != n_interruptions {
                liveness.interrupt();
            }
            liveness.observe(&view, monotonic);
            context.announcers.send_if_modified(|known| {
                let announcers = liveness.announcers(monotonic);
                let is_news = *known != announcers;
                *known = announcers;
                is_news
            });
            if context.status.borrow().term.is_none() {
                let moves_left = policy.max_moves_per_round;
                let moment = Moment { wall: context.clock.now(), monotonic, moves_left };
                let mut plan = decide(&view, &liveness, moment, &policy);
                let secrets = context.options.locks.secrets().map(WatchedFile::get);
                plan.findings.extend(credentials::review(&view, secrets.as_deref()).1);
                wait = wait.min(plan.next.unwrap_or(wait));
                context.status.send_if_modified(|status| {
                    let is_news = status.term.is_none() && status.findings != plan.findings;
                    if is_news {
                        status.findings = plan.findings;
                    }
                    is_news
                });
            }
        } else {
            liveness.interrupt();
        }
        tokio::time::sleep(PAUSE).await;
        tokio::select! {
            biased;
            // Cancel-safe: both only wait.
            changed = observations.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(wait) => {}
        }
    }
}
