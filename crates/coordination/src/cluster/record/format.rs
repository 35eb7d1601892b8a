//! Format of records: a JSON object with a `v` field.

use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{defect::Defect, plain_errors};
use crate::tree::{TreePath, Version};

/// Format version that this program writes, and the newest that it reads.
pub const FORMAT: u32 = 1;

/// A record as read, with the version of its znode.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored<T> {
    /// The record.
    pub value: T,
    /// The data version of its znode.
    pub version: Version,
}

/// Error of a znode whose data is not the expected record.
#[derive(Debug, thiserror::Error)]
#[error("{path} does not hold a valid record: {defect}")]
pub struct Unreadable {
    /// The znode.
    pub path: TreePath,
    /// Defect of its data.
    pub defect: Defect,
}

#[derive(Serialize)]
struct Encoded<'a, T> {
    v: u32,
    #[serde(flatten)]
    record: &'a T,
}

#[derive(Deserialize)]
struct Decoded<T> {
    #[expect(dead_code, reason = "read by `FormatOnly`; here it keeps `v` out of the unknown fields")]
    v: u32,
    #[serde(flatten)]
    record: T,
}

#[derive(Deserialize)]
struct FormatOnly {
    v: u32,
}

/// Encodes a record as the bytes of a znode.
pub fn encode<T: Serialize>(record: &T) -> Vec<u8> {
    serde_json::to_vec(&Encoded { v: FORMAT, record }).expect("records are maps with text keys")
}

/// Decodes the bytes of the znode at `path`.
///
/// # Errors
/// [`Unreadable`] if they are not JSON or not this record, or if their format is newer than
/// [`FORMAT`].
pub fn decode<T: DeserializeOwned>(path: &TreePath, bytes: &[u8]) -> Result<T, Unreadable> {
    let unreadable = |defect| Unreadable { path: path.clone(), defect };
    let of_format = |error| unreadable(Defect::damage(plain_errors::of_format(bytes, &error)));
    if bytes.is_empty() {
        return Err(unreadable(Defect::damage("it is empty")));
    }
    // Read alone, because the rest of a newer format may have another shape.
    let FormatOnly { v } = serde_json::from_slice(bytes).map_err(of_format)?;
    if v > FORMAT {
        let reason =
            format!("it has format {v}, and this build reads up to format {FORMAT}: a newer build wrote it");
        return Err(unreadable(Defect::newer(reason)));
    }
    if v == 0 {
        return Err(unreadable(Defect::damage("it has format 0, which no build wrote")));
    }
    let of_record = |error| unreadable(Defect::damage(plain_errors::of_record::<T>(bytes, &error)));
    serde_json::from_slice::<Decoded<T>>(bytes).map(|read| read.record).map_err(of_record)
}
