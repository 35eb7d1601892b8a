//! The record of a supervisor in the tree: registered once, and written again when what it reports
//! changes.

use std::time::Duration;

use tokio::sync::watch;
use tracing::{debug, info, warn};

use crate::Options;
use stormkeeper_coordination::{
    cluster::{
        failure::ReportedFailure,
        layout::Ephemeral,
        layout_version,
        presence::Presence,
        record::{self, SupervisorRecord},
        reported_problem::{PROBLEMS_MAX, ReportedProblem},
        store::Store,
    },
    tree,
};
use stormkeeper_model::{SupervisorId, backoff::Delays, clock::Clock, resources::Capacity};
use stormkeeper_runtime::{
    cgroup::memory::MemoryCgroup,
    outage::Outage,
    tasks::{OnExit, Tasks},
};

/// Bounds of the pause between two attempts to register while the tree cannot be reached.
const RETRY: Delays = Delays::between(Duration::from_millis(200), Duration::from_secs(10));

/// Most tries at the start that ZooKeeper may deny without a warning: they take some three seconds.
const DENIALS_EXPECTED: u32 = 5;

/// Limit of the cgroup that only shows whether limits are possible.
const PROBE_BYTES: u64 = 1 << 20;

/// Minimum time between two writes of the record: every nimbus reads each of them.
const WRITE_PAUSE: Duration = Duration::from_secs(3);

/// Report about this supervisor and its workers, in its record.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reported {
    /// Problems that keep slots and workers from their work now.
    pub(super) problems: Vec<ReportedProblem>,
    /// Recent failures and restarts.
    pub(super) failures: Vec<ReportedFailure>,
    /// Milliseconds by which the clock is ahead of the leader's, if that is a problem.
    pub(super) clock_ahead_ms: Option<i64>,
    /// Address of the agent, while it listens.
    pub(super) agent: Option<String>,
    /// Reason why the agent does not listen, if it should.
    pub(super) agent_problem: Option<String>,
    /// Reason why a file with tokens, the secret or certificates is not in force.
    pub(super) locks_problem: Option<String>,
    /// True while the certificate has expired.
    pub(super) certificate_expired: bool,
    /// Reason why the leader refuses the proofs of this supervisor.
    pub(super) proof_problem: Option<String>,
}

impl Reported {
    /// The report before anything runs.
    pub(super) fn at_start(problems: Vec<ReportedProblem>, failures: Vec<ReportedFailure>) -> Self {
        Self { problems, failures, ..Self::default() }
    }
}

/// Keeps `/supervisors/{id}` present. Clones share the registration.
#[derive(Debug, Clone)]
pub(super) struct Registration {
    reported: watch::Sender<Reported>,
}

impl Registration {
    /// Registers the supervisor from the moment that the tree can be reached, until `tasks` end.
    pub(super) fn start(
        options: &Options,
        store: Store,
        me: &SupervisorId,
        presence: &Presence,
        known: Reported,
        (clock, tasks): (&Clock, &Tasks),
    ) -> Self {
        let supervisor = SupervisorRecord {
            host: options.host.clone(),
            ports: options.ports.clone(),
            resources: displayed(options.capacity),
            capacity: options.capacity,
            memory_limits_unenforced: memory_limits_unenforced(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            start: clock.now(),
            announces_stop: true,
            tracks_tuples: true,
            platform: options.platform.clone(),
            problems: Vec::new(),
            clock_ahead_ms: None,
            agent: None,
            failures: Vec::new(),
            exposed: options.exposed.clone(),
            zookeeper_users: None,
            certificate_expired: false,
            unknown_fields: record::UnknownFields::new(),
        };
        let (me, presence, mut users) = (me.clone(), presence.clone(), options.held_users.clone());
        let ephemeral = Ephemeral::Supervisor(me.clone());
        let (sender, mut reported) = watch::channel(known);
        tasks.start("register", OnExit::Ignore, async move {
            prepare_layout(&store).await;
            let mut is_announced = true;
            loop {
                let mut record = with_reported(&supervisor, reported.borrow_and_update().clone());
                record.zookeeper_users = Some(users.borrow_and_update().clone());
                presence.keep(&ephemeral, record::encode(&record));
                if std::mem::take(&mut is_announced) {
                    // Never absent and without the announcement of the last stop in between.
                    presence.settled().await;
                    while !presence.owns(&ephemeral) {
                        tokio::time::sleep(WRITE_PAUSE).await;
                        presence.settled().await;
                    }
                    withdraw_stop(&store, &me).await;
                }
                tokio::time::sleep(WRITE_PAUSE).await;
                let changed = tokio::select! {
                    biased;
                    // Cancel-safe: both only wait. The first fails only when the agent is gone.
                    changed = reported.changed() => changed.is_ok(),
                    // Its sender ends at once if there are no users.
                    Ok(()) = users.changed() => true,
                };
                if !changed {
                    return;
                }
            }
        });
        Self { reported: sender }
    }

    /// Sets the problems that the record reports.
    pub(super) fn set_problems(&self, problems: Vec<ReportedProblem>) {
        self.set(|reported| std::mem::replace(&mut reported.problems, problems.clone()) != problems);
    }

    /// Sets the failures that the record reports.
    pub(super) fn set_failures(&self, failures: Vec<ReportedFailure>) {
        self.set(|reported| std::mem::replace(&mut reported.failures, failures.clone()) != failures);
    }

    /// Sets the difference of the clocks that the record reports.
    pub(super) fn set_clock_ahead(&self, ahead_ms: Option<i64>) {
        self.set(|reported| std::mem::replace(&mut reported.clock_ahead_ms, ahead_ms) != ahead_ms);
    }

    /// Sets the reason why a file of the locks is not in force.
    pub(super) fn set_locks_problem(&self, problem: Option<String>) {
        self.set(|reported| std::mem::replace(&mut reported.locks_problem, problem.clone()) != problem);
    }

    /// Sets whether the certificate of this supervisor has expired.
    pub(super) fn set_certificate_expired(&self, is_expired: bool) {
        self.set(|reported| std::mem::replace(&mut reported.certificate_expired, is_expired) != is_expired);
    }

    /// Sets the reason why the leader refuses the proofs of this supervisor.
    pub(super) fn set_proof_problem(&self, problem: Option<String>) {
        self.set(|reported| std::mem::replace(&mut reported.proof_problem, problem.clone()) != problem);
    }

    /// Sets the address of the agent that the record announces, or the reason why there is none.
    pub(super) fn set_agent(&self, agent: Result<String, String>) {
        let (agent, problem) = match agent {
            Ok(address) => (Some(address), None),
            Err(problem) => (None, Some(problem)),
        };
        self.set(|reported| {
            let before = (reported.agent.take(), reported.agent_problem.take());
            let has_changed = before != (agent.clone(), problem.clone());
            (reported.agent, reported.agent_problem) = (agent, problem);
            has_changed
        });
    }

    fn set(&self, change: impl FnOnce(&mut Reported) -> bool) {
        self.reported.send_if_modified(change);
    }
}

/// Resources that older nimbuses display: the built-in ones where none are declared.
fn displayed(capacity: Capacity) -> record::Resources {
    let narrow = |n: Option<u64>, unset: u32| n.map_or(unset, |n| u32::try_from(n).unwrap_or(u32::MAX));
    record::Resources {
        cpu_percent: narrow(capacity.cpu_percent, 400),
        memory_mb: narrow(capacity.memory_mb, 4096),
    }
}

/// Reason why components cannot have memory limits on this host, found by trying.
fn memory_limits_unenforced() -> Option<String> {
    let reason = MemoryCgroup::create(PROBE_BYTES).err()?;
    info!(
        reason,
        "this host does not enforce memory limits of components; their requests only guide placement"
    );
    Some(reason)
}

/// The record with what it reports, and without the slots that cannot be used.
fn with_reported(supervisor: &SupervisorRecord, reported: Reported) -> SupervisorRecord {
    let Reported { problems, failures, clock_ahead_ms, agent, certificate_expired, .. } = reported;
    let Reported { agent_problem, locks_problem, proof_problem, .. } = reported;
    let of_host = [proof_problem, agent_problem, locks_problem].into_iter().flatten();
    let of_host = of_host.map(|text| ReportedProblem::of_supervisor(&text));
    let problems = of_host.chain(problems).take(PROBLEMS_MAX).collect();
    let mut record = SupervisorRecord {
        problems,
        failures,
        clock_ahead_ms,
        agent,
        certificate_expired,
        ..supervisor.clone()
    };
    let problems = &record.problems;
    record.ports.retain(|port| !problems.iter().any(|it| it.unusable && it.port == Some(*port)));
    record
}

/// Withdraws the announcement of the last stop.
async fn withdraw_stop(store: &Store, me: &SupervisorId) {
    let mut backoff = RETRY.backoff();
    while let Err(error) = store.withdraw_stop(me).await {
        debug!(%error, "cannot withdraw the announcement of the last stop; trying again");
        tokio::time::sleep(backoff.next_delay()).await;
    }
}

/// True if ZooKeeper does not authorize a supervisor yet: in an empty protected tree the first nimbus makes
/// the parents of the records, and may be about to do so.
fn is_early_denial(error: &layout_version::Error, n_tries: u32) -> bool {
    matches!(error, layout_version::Error::Tree(error) if error.is_denial()) && n_tries <= DENIALS_EXPECTED
}

async fn prepare_layout(store: &Store) {
    let (mut backoff, mut outage, mut n_tries) = (RETRY.backoff(), Outage::default(), 0);
    while let Err(error) = store.ensure_layout().await {
        let retry_in = backoff.next_delay();
        n_tries += 1;
        match error {
            error if is_early_denial(&error, n_tries) => {
                debug!(%error, ?retry_in, "a nimbus has not made the tree yet; registering later");
            }
            // The connection logs why there is none; at a start there is none for a moment.
            layout_version::Error::Tree(tree::Error::Disconnected) => {
                debug!(?retry_in, "not connected to ZooKeeper yet; registering later");
            }
            error if outage.begins() => {
                warn!(%error, "cannot register this supervisor; running workers stay; retrying");
            }
            error => debug!(%error, ?retry_in, "cannot register this supervisor; running workers stay"),
        }
        tokio::time::sleep(retry_in).await;
    }
    if let Some(after) = outage.ends() {
        info!(?after, "this supervisor can be registered now");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::cluster::layout;

    #[test]
    fn record_says_whether_the_certificate_has_expired() {
        let json =
            br#"{"v":1,"host":"h","ports":[],"resources":{"cpu_percent":1,"memory_mb":2},"version":"0",
            "start_ms":5}"#;
        let path = layout::supervisors().child("s").expect("valid");
        let supervisor: SupervisorRecord = record::decode(&path, json).expect("a record");
        for certificate_expired in [true, false] {
            let reported = Reported { certificate_expired, ..Reported::default() };
            assert_eq!(with_reported(&supervisor, reported).certificate_expired, certificate_expired);
        }
    }

    #[test]
    fn denial_is_worth_a_warning_once_the_first_nimbus_had_time_to_make_the_tree() {
        let denied = tree::Error::NotAuthorized { path: Some(layout::supervisors()) };
        let denied = layout_version::Error::Tree(denied);
        assert!(is_early_denial(&denied, 1) && is_early_denial(&denied, DENIALS_EXPECTED));
        assert!(!is_early_denial(&denied, DENIALS_EXPECTED + 1));
        let other = layout_version::Error::Tree(tree::Error::SessionExpired);
        assert!(!is_early_denial(&other, 1), "only a denial is expected");
    }
}
