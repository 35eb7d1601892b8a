//! The thread of a spout.

use std::{sync::Arc, time::Duration};

use tokio::sync::watch;

use super::{
    Error, Spout, SpoutOutput,
    pace::Pace,
    registry::MakeSpout,
    task::{Sending, Surroundings},
};
use crate::{
    settings::TaskSettings,
    task::{Activity, Pauses},
    tracking::{Mailbox, News, Outcome, PendingTuples},
};
use stormkeeper_model::{clock::Monotonic, heartbeat::TaskStatus};
use stormkeeper_stream::Value;

/// Period of looking for tuples that time out.
const EXPIRE_PERIOD: Duration = Duration::from_secs(1);

/// Period in which a spout that never waits makes its counts durable.
const SETTLE_PERIOD: Duration = Duration::from_millis(10);

/// A spout's task, as far as it outlives the instances of the spout.
pub(super) struct SpoutTask {
    pub(super) sending: Sending,
    surroundings: Surroundings,
    make: MakeSpout,
    activity: watch::Receiver<Activity>,
    // Activity that the instance knows.
    known: Option<Activity>,
    mailbox: Option<Arc<Mailbox>>,
    pending: PendingTuples,
    max_pending: usize,
    acked_at_once: Vec<u64>,
    pauses: Pauses,
    expired: Monotonic,
    settled: Monotonic,
    n_timed_out: u64,
    pace: Pace,
}

impl SpoutTask {
    pub(super) fn new(
        sending: Sending,
        surroundings: Surroundings,
        make: MakeSpout,
        activity: watch::Receiver<Activity>,
        settings: &TaskSettings,
    ) -> Self {
        let now = sending.clock.monotonic();
        let tracking = sending.tracking.as_ref();
        let mailbox = tracking.map(|tracking| tracking.tracker.mailbox(sending.task));
        let pending = PendingTuples::new(tracking.and_then(|tracking| tracking.timeout));
        Self {
            sending,
            surroundings,
            make,
            activity,
            known: None,
            mailbox,
            pending,
            max_pending: settings.max_spout_pending,
            acked_at_once: Vec::new(),
            pauses: Pauses::from(settings.spout_wait),
            expired: now,
            settled: now,
            n_timed_out: 0,
            pace: Pace::new(now),
        }
    }

    /// Runs a new instance until the task is stopped.
    ///
    /// # Errors
    /// Error of opening the instance.
    pub(super) fn run_instance(&mut self) -> Result<(), Error> {
        self.sending.call.begin();
        let mut spout = (self.make)();
        let opened = spout.open(&mut self.surroundings.context(&mut self.sending));
        self.sending.call.end();
        opened?;
        loop {
            let is_asked = self.sending.call.takes_look();
            if (self.pace.is_due() || is_asked) && !self.look(&mut *spout) {
                break;
            }
            self.take_news(&mut *spout);
            let is_active = self.follow_activity(&mut *spout) == Activity::Active;
            let may_call = is_active && self.pending.len() < self.max_pending;
            let pause = match may_call && self.call_next(&mut *spout) {
                true => continue,
                false if may_call => self.pauses.take(),
                false => EXPIRE_PERIOD,
            };
            self.pause(pause);
            self.sending.call.ask_to_look();
        }
        if self.known == Some(Activity::Active) {
            spout.deactivate();
        }
        spout.close();
        Ok(())
    }

    /// Does what depends on the clock. Returns whether the task goes on.
    fn look(&mut self, spout: &mut dyn Spout) -> bool {
        let now = self.sending.clock.monotonic();
        self.pace.looked(now);
        self.sending.metrics.calls_go_on(now, &self.sending.clock);
        self.expire(spout, now);
        if now.since(self.settled) >= SETTLE_PERIOD {
            self.settle();
            self.settled = now;
        }
        !self.sending.stop.is_cancelled()
    }

    /// Counts what an instance leaves behind: nobody knows the ids of its pending tuples any more.
    pub(super) fn end_instance(&mut self) {
        self.sending.call.end();
        let Self { sending, pending, .. } = self;
        sending.metrics.calls_end(&sending.clock);
        for (root, tuple) in pending.clear() {
            if let Some(tracking) = &sending.tracking {
                tracking.tracker.forget(root);
            }
            sending.counters.failed.add(1);
            sending.metrics.tree_failed(tuple.stream);
        }
        self.acked_at_once.clear();
        self.known = None;
        self.sending.metrics.child_ended();
        self.settle();
    }

    /// Calls `next` once. Returns whether it emitted something.
    fn call_next(&mut self, spout: &mut dyn Spout) -> bool {
        let Self { sending, pending, acked_at_once, pauses, .. } = self;
        let is_timed = sending.metrics.next_begins(&sending.clock);
        sending.call.begin();
        let mut out = SpoutOutput { sending, pending, acked_at_once, n_emitted: 0 };
        let outcome = spout.next(&mut out);
        let n_emitted = out.n_emitted;
        for id in self.acked_at_once.drain(..) {
            spout.ack(id);
        }
        sending.call.end();
        sending.metrics.next_ended(is_timed, n_emitted == 0, &sending.clock);
        if n_emitted > 0 {
            sending.counters.executed.add(1);
            pauses.start_over();
        }
        if let Err(error) = outcome {
            self.sending.report(&error);
            return false;
        }
        n_emitted > 0
    }

    /// Waits for news, a change of the activity, or the end of the pause.
    fn pause(&mut self, pause: Duration) {
        self.sending.metrics.calls_end(&self.sending.clock);
        self.settle();
        // A change that the copy has seen is still one for `follow_activity`.
        let (mailbox, mut activity) = (self.mailbox.clone(), self.activity.clone());
        let news = async {
            match &mailbox {
                Some(mailbox) => mailbox.added().await,
                None => std::future::pending().await,
            }
        };
        self.sending.wait(async {
            tokio::select! {
                // Cancel-safe: all arms only wait, and what they wait for is looked up after each wait.
                () = tokio::time::sleep(pause) => {}
                () = news => {}
                changed = activity.changed() => if changed.is_err() {
                    // The worker is stopping.
                    std::future::pending::<()>().await;
                },
            }
        });
    }

    fn follow_activity(&mut self, spout: &mut dyn Spout) -> Activity {
        // The sender is gone when the worker stops.
        if let Some(known) = self.known.filter(|_| !self.activity.has_changed().unwrap_or(false)) {
            return known;
        }
        let activity = *self.activity.borrow_and_update();
        if self.known != Some(activity) {
            self.sending.metrics.calls_end(&self.sending.clock);
            self.sending.call.begin();
            match (self.known, activity) {
                (_, Activity::Active) => spout.activate(),
                (Some(Activity::Active), Activity::Inactive) => spout.deactivate(),
                (None | Some(Activity::Inactive), Activity::Inactive) => {}
            }
            self.sending.call.end();
            self.known = Some(activity);
            self.pauses.start_over();
            self.sending.show(match activity {
                Activity::Active => TaskStatus::Running,
                Activity::Inactive => TaskStatus::Inactive,
            });
        }
        activity
    }

    /// Takes the news about the trees of this spout's tuples.
    fn take_news(&mut self, spout: &mut dyn Spout) {
        let Some(mailbox) = self.mailbox.as_ref().filter(|mailbox| mailbox.has_news()) else { return };
        self.sending.metrics.calls_end(&self.sending.clock);
        let (news, now) = (mailbox.take(), self.sending.clock.monotonic());
        self.sending.call.begin();
        for (root, news) in news {
            let outcome = match news {
                News::Ended(outcome) => outcome,
                News::TimeoutReset => {
                    self.pending.reset_timeout(root, now);
                    continue;
                }
            };
            // A tree that timed out before has no tuple any more.
            let Some(tuple) = self.pending.settle(root) else { continue };
            let (sending, id) = (&mut self.sending, id_of(&tuple.id));
            match outcome {
                Outcome::Acked => {
                    sending.counters.acked.add(1);
                    sending.metrics.tree_acked(tuple.stream, now.since(tuple.emitted));
                    spout.ack(id);
                }
                Outcome::Failed => {
                    sending.counters.failed.add(1);
                    sending.metrics.tree_failed(tuple.stream);
                    spout.fail(id);
                }
            }
        }
        self.sending.call.end();
    }

    /// Fails tuples whose time is over, and reports them, once in a period.
    fn expire(&mut self, spout: &mut dyn Spout, now: Monotonic) {
        if now.since(self.expired) < EXPIRE_PERIOD {
            return;
        }
        self.expired = now;
        let Self { sending, pending, n_timed_out, .. } = self;
        let Some(tracking) = sending.tracking.clone() else { return };
        sending.call.begin();
        while let Some((root, tuple)) = pending.expire(now) {
            tracking.tracker.forget(root);
            sending.counters.failed.add(1);
            sending.metrics.tree_failed(tuple.stream);
            *n_timed_out += 1;
            spout.fail(id_of(&tuple.id));
        }
        sending.call.end();
        if *n_timed_out > 0 {
            let n = std::mem::take(n_timed_out);
            let secs = tracking.timeout.unwrap_or_default().as_secs();
            sending.report_text(&format!(
                "{n} tuples of task {} of {} were not processed in {secs} s and failed",
                sending.task, sending.component
            ));
        }
    }

    fn settle(&mut self) {
        let Self { sending, pending, .. } = self;
        sending.counters.set_pending(pending.len() as u64);
        sending.metrics.pending(pending.len());
        sending.metrics.settle();
    }
}

/// Returns the id that the spout gave: `send` of its output made a value of it.
fn id_of(id: &Value) -> u64 {
    match id {
        Value::Int(id) => id.cast_unsigned(),
        Value::UInt(id) => *id,
        _ => 0,
    }
}
