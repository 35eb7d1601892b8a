//! Caller of a request: for the logs and the list of events, not for authorization.

use std::net::SocketAddr;

use axum::{extract::ConnectInfo, http::request::Parts};

use super::{Api, access, error::ApiError};
use stormkeeper_access::principal::Principal;
use stormkeeper_api_types::forward::{FORWARDED_BY, FORWARDED_FOR, TERM, USER};
use stormkeeper_model::Term;

/// Maximum characters of a user name and of an address; the rest is cut off.
const NAME_CHARS_MAX: usize = 200;

/// Returns the caller as `user from address`, as far as both are known. The address of a forwarded
/// request is the one that the forwarding nimbus names. As any program can name one, the address of
/// the sender itself follows.
pub(super) fn of(parts: &Parts) -> Option<String> {
    let is_forwarded = parts.headers.contains_key(FORWARDED_BY) && access::is_forwarded(parts);
    let from = match (is_forwarded.then(|| text(parts, FORWARDED_FOR)).flatten(), address(parts)) {
        (Some(first), Some(sender)) => Some(format!("{first} by way of {sender}")),
        (None, Some(sender)) if is_forwarded => Some(format!("an unknown address by way of {sender}")),
        (first, sender) => first.or(sender),
    };
    let user = match access::principal(parts) {
        // A sender that has proved who it is, is not called by a name that it claims.
        Some(Principal::Person(person)) => Some(person.name.clone()),
        Some(principal @ (Principal::Daemon(_) | Principal::Worker(_))) => Some(principal.to_string()),
        Some(Principal::Anyone) | None => text(parts, USER),
    };
    match (user, from) {
        (Some(user), Some(from)) => Some(format!("{user} from {from}")),
        (Some(user), None) => Some(user),
        (None, Some(from)) => Some(format!("someone from {from}")),
        (None, None) => None,
    }
}

/// Returns the address of the sender of this request.
pub(super) fn address(parts: &Parts) -> Option<String> {
    let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
    peer.map(|ConnectInfo(address)| address.ip().to_string())
}

/// Rejects a write that was forwarded to the leader of a later term than the term of this nimbus:
/// this nimbus has been deposed. The header of a person counts for nothing: only daemons and workers know
/// terms.
pub(super) fn check_term(api: &Api, parts: &Parts) -> Result<(), ApiError> {
    let is_of_person = matches!(access::principal(parts), Some(Principal::Person(_)));
    if is_of_person && !access::is_forwarded(parts) {
        return Ok(());
    }
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

#[cfg(test)]
mod tests {
    use axum::http::Request;

    use super::*;

    #[test]
    fn sender_of_a_request_is_named_whatever_its_headers_claim() {
        let of = |headers: &[(&str, &str)]| {
            let mut request =
                Request::builder().extension(ConnectInfo(SocketAddr::from(([10, 0, 0, 9], 5000))));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            super::of(&request.body(()).expect("valid").into_parts().0)
        };
        let (user, forwarded) = ((USER, "ann"), (FORWARDED_BY, "n1"));
        let claimed = (FORWARDED_FOR, "10.0.0.1");
        assert_eq!(of(&[user]).as_deref(), Some("ann from 10.0.0.9"));
        assert_eq!(of(&[user, claimed]).as_deref(), Some("ann from 10.0.0.9"));
        assert_eq!(of(&[]).as_deref(), Some("someone from 10.0.0.9"));
        let by_way = of(&[user, forwarded, claimed]);
        assert_eq!(by_way.as_deref(), Some("ann from 10.0.0.1 by way of 10.0.0.9"));
        let unknown = of(&[user, forwarded]);
        assert_eq!(unknown.as_deref(), Some("ann from an unknown address by way of 10.0.0.9"));
    }
}
