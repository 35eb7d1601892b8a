//! What a nimbus that follows makes of the cluster: what a leader would find, so that every
//! replica can say what keeps a topology from being whole.
//!
//! It decides as a leader does, on its own view and by what it has seen itself, and throws
//! the actions away.

use std::time::Duration;

use crate::{
    cluster::observer::Observation,
    nimbus::{
        decide::{Moment, decide},
        leader::Setting,
        liveness::Liveness,
        policy::Policy,
    },
};

/// The least time between two looks: a person reads this, nobody acts on it.
const PAUSE: Duration = Duration::from_secs(1);

/// Looks on for as long as the nimbus runs; while it leads, its leader knows better.
pub(super) async fn look_on(setting: Setting) {
    let policy = Policy::from(&*setting.options);
    let mut observations = setting.observer.observe();
    let mut liveness = Liveness::new(setting.clock.monotonic());
    loop {
        let Observation { view, fresh, .. } = observations.borrow_and_update().clone();
        let mut wait = setting.options.monitor_period;
        if fresh {
            let monotonic = setting.clock.monotonic();
            liveness.observe(&view, monotonic);
            if setting.status.borrow().term.is_none() {
                let moves_left = policy.max_moves_per_round;
                let moment = Moment { wall: setting.clock.now(), monotonic, moves_left };
                let plan = decide(&view, &liveness, moment, &policy);
                wait = wait.min(plan.next.unwrap_or(wait));
                setting.status.send_if_modified(|status| {
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
