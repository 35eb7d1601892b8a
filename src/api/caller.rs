//! Who asks: for the logs and the list of events, not for permission.

use std::net::SocketAddr;

use axum::{extract::ConnectInfo, http::request::Parts};

use super::{Api, error::ApiError};
use crate::{
    model::Term,
    rpc::forward::{FORWARDED_BY, FORWARDED_FOR, TERM, USER},
};

/// The longest name of a user, and of an address; the rest is cut off.
const NAME_CHARS_MAX: usize = 200;

/// Who asks, as `user from address` with what is known of it. A nimbus that forwards a
/// request says where it came from; nobody else is believed about that.
pub(super) fn of(parts: &Parts) -> Option<String> {
    match (text(parts, USER), address(parts)) {
        (Some(user), Some(address)) => Some(format!("{user} from {address}")),
        (Some(user), None) => Some(user),
        (None, Some(address)) => Some(format!("someone from {address}")),
        (None, None) => None,
    }
}

/// Where the request came from first.
pub(super) fn address(parts: &Parts) -> Option<String> {
    if parts.headers.contains_key(FORWARDED_BY) {
        return text(parts, FORWARDED_FOR);
    }
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(address)| address.ip().to_string())
}

/// Refuses a write that was forwarded to the leader of a later term than this nimbus leads
/// in: it is a leader of the past.
pub(super) fn check_term(api: &Api, parts: &Parts) -> Result<(), ApiError> {
    term(parts).map_or(Ok(()), |term| Ok(api.nimbus.check_term(term)?))
}

/// The term that a request names.
pub(super) fn term(parts: &Parts) -> Option<Term> {
    text(parts, TERM)?.parse().ok().map(Term)
}

fn text(parts: &Parts, name: &str) -> Option<String> {
    let value = parts.headers.get(name)?.to_str().ok()?;
    let shown: String = value.chars().filter(|c| !c.is_control()).take(NAME_CHARS_MAX).collect();
    (!shown.is_empty()).then_some(shown)
}
