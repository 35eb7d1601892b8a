//! Files with tokens, the secret and certificates, read again when they change; what is wrong with them is
//! reported in the supervisor's record.

use crate::agent::Agent;
use stormkeeper_access::locks::Locks;
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
                let is_expired = *problems.certificate_expired.borrow();
                registration.set_locks_problem(text(problems.text(), is_expired, &host));
                registration.set_certificate_expired(is_expired);
                problems.changed().await;
            }
        });
    }
}

fn text(reason: Option<String>, is_expired: bool, host: &str) -> Option<String> {
    let effect = match is_expired {
        true => "; nothing is placed here while another supervisor has a valid certificate",
        false => "",
    };
    let text = format!("supervisor at {host}: {}{effect}", reason?);
    Some(shortened_from_log(&text, PROBLEM_BYTES_MAX).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expired_certificate_is_reported_with_its_file_and_its_effect() {
        let reason = || Some("the certificate in /etc/crt has expired; replace the file".to_owned());
        let said = text(reason(), true, "h").expect("a problem");
        assert!(said.contains("/etc/crt") && said.contains("nothing is placed here"), "{said}");
        assert!(!text(reason(), false, "h").expect("another problem").contains("placed"));
        assert_eq!(text(None, false, "h"), None);
    }
}
