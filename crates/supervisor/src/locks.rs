//! Files with tokens, the secret and certificates, read again when they change; what is wrong with them is
//! reported in the supervisor's record.

use crate::agent::Agent;
use stormkeeper_access::locks::{Locks, Problems};
use stormkeeper_coordination::cluster::reported_problem::PROBLEM_BYTES_MAX;
use stormkeeper_model::text::shortened_from_log;
use stormkeeper_runtime::tasks::OnExit;

impl Agent {
    /// Keeps the files fresh for as long as the agent runs.
    pub(super) fn keep_locks_fresh(&self, locks: &Locks) {
        let problems = locks.keep_fresh(&self.clock, &self.tasks);
        let mut problems = problems.with_zookeeper(self.options.zookeeper_problems.clone());
        let (registration, host) = (self.registration.clone(), self.options.host.clone());
        self.tasks.start("locks", OnExit::Ignore, async move {
            loop {
                registration.set_locks_problem(text(&problems, &host));
                problems.changed().await;
            }
        });
    }
}

fn text(problems: &Problems, host: &str) -> Option<String> {
    let text = problems.text().map(|reason| format!("supervisor at {host}: {reason}"))?;
    Some(shortened_from_log(&text, PROBLEM_BYTES_MAX).into_owned())
}
