//! Signing in with a browser: who the sender is, and the cookie with the token of a person.

use axum::{
    Json,
    body::Body,
    extract::{Request, State},
    http::{
        HeaderMap, HeaderValue,
        header::{AUTHORIZATION, SET_COOKIE},
    },
    response::{IntoResponse as _, Response},
};

use super::{
    Api,
    access::{cookie, sender},
    error::{ApiError, parse},
    writes::read_body,
};
use stormkeeper_access::{
    locks::Mode,
    principal::{Principal, Role},
    token::Token,
};
use stormkeeper_api_types::message::{AccessMode, Code, RoleName, SignInRequest, WebSession};
use stormkeeper_serving::{OverTls, origin::ON_PURPOSE};

/// Path of the routes, below the prefix of the own API.
pub(super) const ROUTE: &str = "/session";

/// Says who the sender is. A cookie whose token does not count any more is removed: every other request
/// with it would be refused, also where none is needed.
pub(super) async fn status(State(api): State<Api>, request: Request) -> Response {
    match sender(&api, &request) {
        Ok(principal) => Json(session(&api, &principal)).into_response(),
        Err(_) => signed_out(&api),
    }
}

/// Checks a token, and sets it as a cookie.
pub(super) async fn sign_in(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    let (mut parts, body) = read_body(request).await?;
    let SignInRequest { token } = parse(&body)?;
    if api.nimbus.gate().mode() == Mode::Open {
        return Err(ApiError::new(
            Code::InvalidRequest,
            "this nimbus looks at no proof: there is nothing to sign in to",
            Some("docs/security.md says how to lock a cluster"),
        ));
    }
    check_on_purpose(&parts.headers)?;
    let unknown = || {
        ApiError::new(
            Code::Unauthenticated,
            "this is no token",
            Some("an admin makes one with `stormkeeper token new`"),
        )
    };
    let token = Token::new(token.trim()).map_err(|_| unknown())?;
    let value = HeaderValue::try_from(format!("Bearer {}", token.secret_text())).map_err(|_| unknown())?;
    parts.headers.insert(AUTHORIZATION, value);
    let is_over_tls = parts.extensions.get::<OverTls>().is_some();
    let principal = sender(&api, &Request::from_parts(parts, Body::empty()))?;
    let mut response = Json(session(&api, &principal)).into_response();
    response.headers_mut().insert(SET_COOKIE, cookie::set(&token, is_over_tls));
    Ok(response)
}

/// Removes the cookie.
pub(super) async fn sign_out(State(api): State<Api>, request: Request) -> Result<Response, ApiError> {
    check_on_purpose(request.headers())?;
    Ok(signed_out(&api))
}

/// Checks that a page of this nimbus signs in or out. A page of another port of the same host could put a
/// token of its own into the browser otherwise, so that a person acts under another name.
fn check_on_purpose(headers: &HeaderMap) -> Result<(), ApiError> {
    match headers.contains_key(ON_PURPOSE) {
        true => Ok(()),
        false => Err(ApiError::new(
            Code::ForeignRequest,
            "signing in and out needs the header x-stormkeeper-request",
            Some("a browser's page sends it; programs need no cookie and send `Authorization: Bearer TOKEN`"),
        )),
    }
}

fn signed_out(api: &Api) -> Response {
    let mut response = Json(session(api, &Principal::Anyone)).into_response();
    for value in cookie::removed() {
        response.headers_mut().append(SET_COOKIE, value);
    }
    response
}

fn session(api: &Api, principal: &Principal) -> WebSession {
    let access = match api.nimbus.gate().mode() {
        Mode::Open => AccessMode::Open,
        Mode::Optional => AccessMode::Optional,
        Mode::Required => AccessMode::Required,
    };
    let person = match principal {
        Principal::Person(person) => Some(person),
        Principal::Anyone | Principal::Daemon(_) | Principal::Worker(_) => None,
    };
    WebSession {
        access,
        actions: api.nimbus.options().storm_api.actions,
        name: person.map(|person| person.name.clone()),
        role: person.map(|person| match person.role {
            Role::Reader => RoleName::Reader,
            Role::Operator => RoleName::Operator,
            Role::Admin => RoleName::Admin,
        }),
        owner: person.and_then(|person| person.owner.clone()),
    }
}
