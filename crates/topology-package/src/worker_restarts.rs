//! File in which a worker counts the restarts of its components, for its supervisor.
//!
//! The worker keeps the file open and rewrites it in place at a fixed length, so that a write needs
//! neither a descriptor nor a new block of a full disk. A reader may find a file that is half written,
//! which does not decode; it then keeps what it read before.

use serde::{Deserialize, Serialize};

use stormkeeper_model::ComponentId;

/// Name of the file in the directory of the worker.
pub const RESTARTS_FILE: &str = "restarts.json";

/// Length of the file: one block of a disk.
pub const RESTARTS_BYTES: usize = 4096;

const FORMAT: u32 = 1;

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

#[derive(Serialize, Deserialize)]
struct Stored<T> {
    v: u32,
    #[serde(flatten)]
    restarts: T,
}

impl WorkerRestarts {
    /// Encodes the content of the file, always [`RESTARTS_BYTES`] long. Components at the end are left
    /// out if there are too many.
    pub fn encode(&self) -> Vec<u8> {
        let mut restarts = self.clone();
        loop {
            let bytes = serde_json::to_vec(&Stored { v: FORMAT, restarts: &restarts }).unwrap_or_default();
            if bytes.len() < RESTARTS_BYTES || restarts.components.pop().is_none() {
                let mut bytes = bytes;
                bytes.resize(RESTARTS_BYTES - 1, b' ');
                bytes.push(b'\n');
                return bytes;
            }
        }
    }

    /// Decodes the content of the file; `None` if it is half written, or of a newer format.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let stored: Stored<Self> = serde_json::from_slice(bytes).ok()?;
        (stored.v == FORMAT).then_some(stored.restarts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
        assert_eq!(written.encode().len(), RESTARTS_BYTES);
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
        assert_eq!(many.encode().len(), RESTARTS_BYTES);
        assert!(!read.components.is_empty() && read.components.len() < 100);
        assert_eq!(read.components[0], many.components[0]);
    }
}
