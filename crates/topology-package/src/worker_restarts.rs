//! File in which a worker counts the restarts of its components, for its supervisor
//! ([`crate::status_file`]).

use serde::{Deserialize, Serialize};

use crate::status_file;
use stormkeeper_model::ComponentId;

/// Name of the file in the directory of the worker.
pub const RESTARTS_FILE: &str = "restarts.json";

/// Restarts of the components of a worker within the window, those with the most restarts first.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerRestarts {
    /// The components that were started again.
    #[serde(default)]
    pub components: Vec<ComponentRestarts>,
}

/// Restarts of one component.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ComponentRestarts {
    /// The component.
    pub component: ComponentId,
    /// Number of restarts of the task of the component that has the most.
    pub n: u32,
    /// Reason of the last restart, of one line.
    pub reason: String,
}

impl WorkerRestarts {
    /// Encodes the content of the file, always [`status_file::FILE_BYTES`] long. Components at the end
    /// are left out if there are too many.
    pub fn encode(&self) -> Vec<u8> {
        status_file::encode(self.clone(), |restarts| restarts.components.pop().is_some())
    }

    /// Decodes the content of the file; `None` if it is half written, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        status_file::decode(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status_file::FILE_BYTES;

    fn restarts(n: usize, reason: &str) -> WorkerRestarts {
        let component = |n: usize| ComponentRestarts {
            component: format!("c{n}").parse().expect("valid id"),
            n: 5,
            reason: reason.to_owned(),
        };
        WorkerRestarts { components: (0..n).map(component).collect() }
    }

    #[test]
    fn file_has_a_fixed_length_and_is_read_back() {
        let written = restarts(2, "exit status: 1");
        assert_eq!(written.encode().len(), FILE_BYTES);
        assert_eq!(WorkerRestarts::decode(&written.encode()), Some(written.clone()));
        let half = [&WorkerRestarts::default().encode()[..30], &written.encode()[30..]].concat();
        assert_eq!(WorkerRestarts::decode(&half), None);
        assert_eq!(WorkerRestarts::decode(b"{\"v\":9}"), None);
    }

    #[test]
    fn components_that_do_not_fit_are_left_out() {
        // Control characters take six bytes each in JSON.
        let many = restarts(100, &"\u{1}".repeat(200));
        let read = WorkerRestarts::decode(&many.encode()).expect("valid");
        assert_eq!(many.encode().len(), FILE_BYTES);
        assert!(!read.components.is_empty() && read.components.len() < 100);
        assert_eq!(read.components[0], many.components[0]);
    }
}
