//! Troubles of a sender that operators see while they last.

use std::time::Duration;

use tokio::time::Instant;

use super::peer::Address;
use crate::report::Problems;
use stormkeeper_model::ComponentId;

/// Time for which a trouble lasts before it is reported: longer than the restart of a worker takes, and
/// short enough that operators see it within ten seconds.
pub(super) const REPORTED_AFTER: Duration = Duration::from_secs(4);

/// A trouble with a peer, reported as a problem once it has lasted for [`REPORTED_AFTER`].
pub(super) struct Trouble {
    problems: Problems,
    subject: String,
    describe: fn(&str, &str) -> String,
    since: Option<Instant>,
}

impl Trouble {
    /// The trouble that a peer cannot be reached.
    pub(super) fn unreachable(problems: &Problems, address: &Address, component: &ComponentId) -> Self {
        let subject = format!("the worker at {address}, for tuples to {component}");
        Self::new(problems, subject, |subject, error| {
            format!(
                "cannot reach {subject}, which wait: {error}; check that the worker runs, that its host name \
                 resolves here, and that no firewall closes its port"
            )
        })
    }

    /// The trouble that a peer closes each connection soon after it was opened.
    pub(super) fn rejecting(problems: &Problems, address: &Address, component: &ComponentId) -> Self {
        let subject = format!("the connection to the worker at {address}, for tuples to {component}");
        Self::new(problems, subject, |subject, error| {
            format!(
                "{subject}, breaks again and again, and tuples are lost: {error}; see the log of that worker, and \
                 check that no other program sends to its port and that all supervisors run the same build"
            )
        })
    }

    fn new(problems: &Problems, subject: String, describe: fn(&str, &str) -> String) -> Self {
        Self { problems: problems.clone(), subject, describe, since: None }
    }

    /// Records a failure of an attempt that began at `began`.
    pub(super) fn failed(&mut self, began: Instant, error: &str) {
        let since = *self.since.get_or_insert(began);
        if since.elapsed() >= REPORTED_AFTER {
            self.problems.raise(&self.subject, (self.describe)(&self.subject, error));
        }
    }

    /// Ends the trouble.
    pub(super) fn end(&mut self) {
        if self.since.take().is_some() {
            self.problems.clear(&self.subject);
        }
    }
}

impl Drop for Trouble {
    fn drop(&mut self) {
        self.end();
    }
}
