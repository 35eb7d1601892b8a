//! Exposure of a daemon, at its start.

use tracing::warn;

use crate::cli::error::{ErrorKind, Failure};
use stormkeeper_access::exposure::Refused;

/// Logs what must be said about the listeners of a daemon, and returns it.
///
/// # Errors
/// The refusal, with the ways to start the daemon.
pub(super) fn said(decided: Result<Option<String>, Refused>) -> Result<Option<String>, Failure> {
    let said = decided.map_err(|refused| {
        let ways = refused.ways();
        Failure::new(ErrorKind::Config, refused.into()).with_hint(ways)
    })?;
    if let Some(text) = &said {
        warn!("this daemon is not locked: {text}");
    }
    Ok(said)
}
