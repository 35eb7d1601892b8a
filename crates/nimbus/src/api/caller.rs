//! Caller of a request: for the logs and the list of events, not for authorization.

use std::net::SocketAddr;

use axum::{extract::ConnectInfo, http::request::Parts};

use super::{Api, error::ApiError};
use stormkeeper_api_types::forward::{FORWARDED_BY, FORWARDED_FOR, TERM, USER};
use stormkeeper_model::Term;

/// Maximum characters of a user name and of an address; the rest is cut off.
const NAME_CHARS_MAX: usize = 200;

/// Returns the caller as `user from address`, as far as both are known. The address of a forwarded
/// request is the one that the forwarding nimbus names; no other caller may name an address.
pub(super) fn of(parts: &Parts) -> Option<String> {
    match (text(parts, USER), address(parts)) {
        (Some(user), Some(address)) => Some(format!("{user} from {address}")),
        (Some(user), None) => Some(user),
        (None, Some(address)) => Some(format!("someone from {address}")),
        (None, None) => None,
    }
}

/// Returns the address from which the request was sent first.
pub(super) fn address(parts: &Parts) -> Option<String> {
    if parts.headers.contains_key(FORWARDED_BY) {
        return text(parts, FORWARDED_FOR);
    }
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(address)| address.ip().to_string())
}

/// Rejects a write that was forwarded to the leader of a later term than the term of this nimbus:
/// this nimbus has been deposed.
pub(super) fn check_term(api: &Api, parts: &Parts) -> Result<(), ApiError> {
    term(parts).map_or(Ok(()), |term| Ok(api.nimbus.check_term(term)?))
}

/// Returns the term in the header of a request.
pub(super) fn term(parts: &Parts) -> Option<Term> {
    text(parts, TERM)?.parse().ok().map(Term)
}

fn text(parts: &Parts, name: &str) -> Option<String> {
    let value = parts.headers.get(name)?.to_str().ok()?;
    let shown: String = value.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    (!shown.is_empty()).then_some(shown)
}
