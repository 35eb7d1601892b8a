//! Proofs of who sends a request, in HTTP.

use std::sync::Arc;

use axum::{
    Json,
    extract::Request,
    http::{
        HeaderMap, HeaderName, HeaderValue, StatusCode,
        header::{AUTHORIZATION, HOST, RETRY_AFTER, WWW_AUTHENTICATE},
    },
    response::{IntoResponse as _, Response},
};

use stormkeeper_access::{
    gate::{Denied, Received},
    tls::certificate::PeerCertificate,
};
use stormkeeper_api_types::{
    authorized::STALE,
    message::{Code, ErrorBody},
    proof_check::{DENIED, ProofFault},
};

/// Returns what a gate looks at.
pub fn received(request: &Request) -> Received<'_> {
    let (uri, headers) = (request.uri(), request.headers());
    Received {
        host: headers.get(HOST).and_then(|value| value.to_str().ok()),
        method: request.method().as_str(),
        path: uri.path_and_query().map_or(uri.path(), |path| path.as_str()),
        authorization: authorization(headers),
        certificate: request.extensions().get::<Arc<PeerCertificate>>().map(|shown| &**shown),
    }
}

/// The header; `Some(None)` if it is no text or is there twice.
fn authorization(headers: &HeaderMap) -> Option<Option<&str>> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let first = values.next()?;
    Some(first.to_str().ok().filter(|_| values.next().is_none()))
}

/// Returns the body of the response to a request whose proof is missing or wrong.
pub fn error_body(denied: &Denied) -> ErrorBody {
    let hint = match denied {
        Denied::Missing | Denied::Malformed => {
            "send `Authorization: Bearer TOKEN`: the command line reads the token from --token-file, \
             STORMKEEPER_TOKEN or ui.token.file; an admin makes one with `stormkeeper token new`"
        }
        Denied::UnknownToken => "ask an admin whether its line is in ui.tokens.file of this daemon",
        Denied::OtherAddress { .. } => "send it to the address that `stormkeeper nimbuses` shows",
        Denied::WrongSignature => {
            "storm.cluster.secret.file must have a common secret on all hosts; workers have the keys that \
             their supervisor gave them"
        }
        Denied::Stale => "sign it with the time in the header x-stormkeeper-time-ms",
        Denied::Replayed => "sign each request anew",
        Denied::TooMany { retry_after_secs } => {
            let hint = format!("try again in {retry_after_secs} s");
            let (code, message) = (Code::TooManyRequests, denied.to_string());
            return ErrorBody { code, message, hint: Some(hint) };
        }
        Denied::NoDaemonCertificate => {
            "set storm.tls.cert.file on the host of the sender, and name its certificate in storm.tls.daemons here"
        }
        Denied::OtherCertificate { .. } => "show the certificate or send the token, or make both of one name",
    };
    ErrorBody { code: Code::Unauthenticated, message: denied.to_string(), hint: Some(hint.to_owned()) }
}

/// Returns the status and the headers of that response.
pub fn response(denied: &Denied, body: Response) -> Response {
    let mut response = body;
    if let Denied::TooMany { retry_after_secs } = denied {
        *response.status_mut() = StatusCode::TOO_MANY_REQUESTS;
        response.headers_mut().insert(RETRY_AFTER, (*retry_after_secs).into());
        return response;
    }
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    let challenge = HeaderValue::from_static("Bearer realm=\"stormkeeper\"");
    response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
    if let Some(fault) = ProofFault::of(denied) {
        let word = HeaderValue::from_static(fault.word());
        response.headers_mut().insert(HeaderName::from_static(DENIED), word);
    }
    if *denied == Denied::Stale {
        response.headers_mut().insert(HeaderName::from_static(STALE), HeaderValue::from_static("1"));
    }
    response
}

/// Returns the response to a request whose proof is missing or wrong.
pub fn denied(denied: &Denied) -> Response {
    response(denied, Json(error_body(denied)).into_response())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sender_of_too_many_requests_is_told_when_to_try_again_and_not_to_prove_anything() {
        let response = denied(&Denied::TooMany { retry_after_secs: 42 });
        assert_eq!(response.status(), StatusCode::TOO_MANY_REQUESTS);
        assert_eq!(response.headers().get(RETRY_AFTER).map(HeaderValue::as_bytes), Some(&b"42"[..]));
        assert!(!response.headers().contains_key(WWW_AUTHENTICATE));
        let body = error_body(&Denied::TooMany { retry_after_secs: 42 });
        assert_eq!(body.code, Code::TooManyRequests);
        assert_eq!(body.hint.as_deref(), Some("try again in 42 s"));
        let response = denied(&Denied::Missing);
        assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
        assert!(response.headers().contains_key(WWW_AUTHENTICATE));
    }
}
