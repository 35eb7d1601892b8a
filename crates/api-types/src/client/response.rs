//! Bodies of responses.

use reqwest::StatusCode;
use serde::de::DeserializeOwned;

use super::Error;
use crate::message::ErrorBody;
use stormkeeper_runtime::error_chain;

/// Limit on the quoted bytes of a response that does not come from Stormkeeper.
const QUOTED_BYTES_MAX: usize = 200;

pub(super) async fn read<A: DeserializeOwned>(
    (nimbus, response): (String, reqwest::Response),
) -> Result<A, Error> {
    let status = response.status();
    let bytes = match response.bytes().await {
        Ok(bytes) => bytes,
        Err(error) => return Err(Error::Unanswered { nimbus, reason: error_chain(&error) }),
    };
    serde_json::from_slice(&bytes).map_err(|_| foreign(nimbus, status, &bytes))
}

pub(super) async fn refusal(nimbus: &str, response: reqwest::Response) -> Error {
    let status = response.status();
    // A truncated response still has a status, which the error contains.
    let bytes = response.bytes().await.unwrap_or_default();
    match serde_json::from_slice::<ErrorBody>(&bytes) {
        Ok(body) => Error::Refused { nimbus: nimbus.to_owned(), status: status.as_u16(), body },
        Err(_) => foreign(nimbus.to_owned(), status, &bytes),
    }
}

fn foreign(nimbus: String, status: StatusCode, bytes: &[u8]) -> Error {
    let quote = String::from_utf8_lossy(&bytes[..bytes.len().min(QUOTED_BYTES_MAX)]).into_owned();
    Error::Foreign { nimbus, status: status.as_u16(), quote }
}
