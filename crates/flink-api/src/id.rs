//! Ids of jobs and vertices.

use std::{fmt, str::FromStr};

use sha2::{Digest as _, Sha256};

use crate::Error;
use stormkeeper_model::{ComponentId, TopologyId};

/// Id of a job or a vertex: 32 lower-case hex digits.
///
/// The first 128 bits of SHA-256 over the topology id, or over topology id and component. So the id
/// of a topology is the same on every nimbus and in every build, and no two topologies have one id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlinkId([u8; 16]);

impl FlinkId {
    /// Returns the id of a job.
    pub fn of_job(topology: &TopologyId) -> Self {
        Self::of(Sha256::new().chain_update(topology.as_str()))
    }

    /// Returns the id of a vertex.
    pub fn of_vertex(topology: &TopologyId, component: &ComponentId) -> Self {
        // No id contains a zero byte, so no two pairs have one text.
        let text = Sha256::new().chain_update(topology.as_str()).chain_update([0]);
        Self::of(text.chain_update(component.as_str()))
    }

    fn of(hash: Sha256) -> Self {
        let mut id = [0; 16];
        id.copy_from_slice(&hash.finalize()[..16]);
        Self(id)
    }

    /// Reads an id from the part `parameter` of a path.
    ///
    /// # Errors
    /// [`Error::Path`] if the text is not 32 lower-case hex digits.
    pub fn of_path(parameter: &'static str, text: &str) -> Result<Self, Error> {
        text.parse().map_err(|NotHex| Error::path(parameter, text))
    }
}

/// Error of a text that is no id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not 32 lower-case hex digits")]
pub struct NotHex;

impl FromStr for FlinkId {
    type Err = NotHex;

    fn from_str(text: &str) -> Result<Self, NotHex> {
        let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
        if text.len() != 32 || !text.bytes().all(is_digit) {
            return Err(NotHex);
        }
        u128::from_str_radix(text, 16).map(|id| Self(id.to_be_bytes())).map_err(|_| NotHex)
    }
}

impl fmt::Display for FlinkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", u128::from_be_bytes(self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topology(id: &str) -> TopologyId {
        id.parse().expect("valid")
    }

    #[test]
    fn ids_are_the_first_half_of_the_hash() {
        // `printf wc-1-1 | sha256sum`, and `printf 'wc-1-1\0count' | sha256sum`.
        let count = "count".parse().expect("valid");
        assert_eq!(FlinkId::of_job(&topology("wc-1-1")).to_string(), JOB);
        assert_eq!(FlinkId::of_vertex(&topology("wc-1-1"), &count).to_string(), VERTEX);
    }

    const JOB: &str = "327eda405375a29381ab493191d19b4a";
    const VERTEX: &str = "cec5d6ae5c03d15cc22eadf32a53cab9";

    #[test]
    fn id_that_is_written_is_read_again_and_anything_else_is_rejected() {
        let id = FlinkId::of_job(&topology("wc-1-1"));
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(
            "0000000000000000000000000000000f".parse(),
            Ok(FlinkId(1_u128.wrapping_mul(15).to_be_bytes()))
        );
        for wrong in
            ["", "zz", "+000000000000000000000000000000f", &"0".repeat(31), &"0".repeat(33), &"A".repeat(32)]
        {
            let error = FlinkId::of_path("jobid", wrong).expect_err("no id");
            let text = format!("Cannot resolve path parameter (jobid) from value \"{wrong}\"");
            assert_eq!((error.status(), error.to_string()), (400, text));
        }
    }
}
