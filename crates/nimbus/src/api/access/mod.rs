//! Checks who sends a request, and whether the sender may do what it asks for.
//!
//! [`need`](need::need) says what a request needs, [`allowed`] whether its sender has it. Below this
//! layer every request has an [`Admitted`] in its extensions.

pub(super) mod cookie;
mod need;
mod signed_body;

use axum::{
    body::Body,
    extract::{ConnectInfo, MatchedPath, Request, State},
    http::{HeaderMap, Method, request::Parts},
    middleware::Next,
    response::Response,
};
use std::net::SocketAddr;

use super::{Api, error::ApiError, refuse};
use crate::{change::find, refusal::Refusal};
pub(super) use need::is_samples_file;
use need::{Need, need};
pub(super) use signed_body::{is_wrong_body, wrong_body};
use stormkeeper_access::{
    gate::{Admitted, Denied},
    locks::Mode,
    principal::{Person, Principal, Role},
    refusals::RefusalKind,
    signature::BodyDigest,
};
use stormkeeper_api_types::message::{Code, ErrorBody};
use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_flink_api::FlinkId;
use stormkeeper_model::TopologyId;
use stormkeeper_serving::{OverTls, proof};

/// Returns who may send a request, for people; `None` if anyone may.
pub(super) fn right_of(method: &Method, path: &str) -> Option<String> {
    need(method, path).text().map(str::to_owned)
}

/// Lets requests pass whose sender may do what they ask for. Methods that a path does not serve are not
/// passed through here ([`check_known`]).
pub(super) async fn check(State(api): State<Api>, mut request: Request, next: Next) -> Response {
    take_cookie(&mut request);
    let need = match request.extensions().get::<MatchedPath>() {
        Some(_route) => need(request.method(), request.uri().path()),
        // The response is that nothing is there, whatever the role.
        None => Need::Proof,
    };
    if need == Need::Nothing {
        return next.run(request).await;
    }
    match admit(&api, &need, &request).and_then(|admitted| switched_on(&api, &need).map(|()| admitted)) {
        Ok(admitted) => {
            let digest = admitted.digest;
            let (mut parts, body) = request.into_parts();
            parts.extensions.insert(admitted);
            let body = match digest {
                Some(BodyDigest::Sha256(digest)) => Body::new(signed_body::SignedBody::new(body, digest)),
                Some(BodyDigest::InPath) | None => body,
            };
            next.run(Request::from_parts(parts, body)).await
        }
        Err(refused) => refuse_request(&api, &request, refused),
    }
}

/// Puts the token of a signed-in browser into the place of a header.
pub(super) fn take_cookie(request: &mut Request) {
    let is_over_tls = request.extensions().get::<OverTls>().is_some();
    cookie::take_token(request.headers_mut(), is_over_tls);
}

/// Checks that the sender is known, whatever it may do: for responses that say the same to all roles.
///
/// # Errors
/// The response to a sender without a proof.
pub(super) fn check_known(api: &Api, request: &Request) -> Result<(), Box<Response>> {
    match admit(api, &Need::Proof, request) {
        Ok(_admitted) => Ok(()),
        Err(refused) => Err(Box::new(refuse_request(api, request, refused))),
    }
}

/// Returns who sends a request to a route that needs nothing, and counts a wrong proof.
pub(super) fn sender(api: &Api, request: &Request) -> Result<Principal, ApiError> {
    let gate = api.nimbus.gate();
    match gate.admit(proof::received(request)) {
        Ok(admitted) => Ok(admitted.principal),
        Err(Denied::Missing) => Ok(Principal::Anyone),
        Err(denied) => {
            note_refused(api, request, &RefusedRequest::Denied(denied.clone()));
            Err(proof::error_body(&denied).into())
        }
    }
}

/// Records a refused request. Returns its response.
fn refuse_request(api: &Api, request: &Request, refused: RefusedRequest) -> Response {
    note_refused(api, request, &refused);
    refused.into_response(request.headers(), request.uri().path())
}

fn note_refused(api: &Api, request: &Request, refused: &RefusedRequest) {
    let peer = request.extensions().get::<ConnectInfo<SocketAddr>>();
    let peer = peer.map(|ConnectInfo(address)| address.ip().to_string());
    let what = (request.method().as_str(), request.uri().path());
    api.nimbus.gate().note_refused((refused.kind(), refused.message()), peer.as_deref(), what);
    api.nimbus.count_refused_request();
}

/// Refused request.
#[derive(Debug)]
enum RefusedRequest {
    Denied(Denied),
    Other(ErrorBody),
    Lookup(ApiError),
}

impl RefusedRequest {
    fn kind(&self) -> RefusalKind {
        match self {
            Self::Denied(denied) => denied.into(),
            Self::Other(ErrorBody { code: Code::SwitchedOff, .. }) => RefusalKind::SwitchedOff,
            Self::Other(_) | Self::Lookup(_) => RefusalKind::Forbidden,
        }
    }

    fn message(&self) -> &str {
        match self {
            Self::Denied(Denied::Missing) => "it has no token",
            Self::Denied(Denied::Malformed) => "its proof has no known form",
            Self::Denied(Denied::UnknownToken) => "its token is unknown",
            Self::Denied(Denied::OtherAddress { .. }) => "it is signed for another address",
            Self::Denied(Denied::WrongSignature) => "it is not signed with the cluster secret",
            Self::Denied(Denied::Stale) => "it was signed at another time",
            Self::Denied(Denied::Replayed) => "it was received before",
            Self::Denied(Denied::NoDaemonCertificate) => "its sender has no certificate of a daemon",
            Self::Denied(Denied::OtherCertificate { .. }) => "its token and its certificate have two names",
            Self::Denied(Denied::TooMany { .. }) => "its sender has sent too many requests",
            Self::Other(body) => &body.message,
            Self::Lookup(_) => "its topology cannot be looked up",
        }
    }

    /// Returns the response in the form of the API that was asked.
    fn into_response(self, headers: &HeaderMap, path: &str) -> Response {
        match self {
            Self::Denied(denied) => {
                let body = refuse(headers, path, proof::error_body(&denied).into());
                proof::response(&denied, body)
            }
            Self::Other(body) => refuse(headers, path, body.into()),
            Self::Lookup(error) => refuse(headers, path, error),
        }
    }
}

/// Refuses changes by people where they are switched off, in every API.
fn switched_on(api: &Api, need: &Need) -> Result<(), RefusedRequest> {
    match api.nimbus.options().storm_api.actions || !need.is_change() {
        true => Ok(()),
        false => Err(RefusedRequest::Other(ErrorBody {
            code: Code::SwitchedOff,
            message: "changes are switched off: `ui.actions.enabled` is false on this nimbus".to_owned(),
            hint: Some(
                "remove it from the storm.yaml of each nimbus, and restart them one after the other"
                    .to_owned(),
            ),
        })),
    }
}

fn admit(api: &Api, need: &Need, request: &Request) -> Result<Admitted, RefusedRequest> {
    let gate = api.nimbus.gate();
    let admitted = gate.admit(proof::received(request)).map_err(RefusedRequest::Denied)?;
    // Only the body of a blob is checked against the path.
    if admitted.digest == Some(BodyDigest::InPath) && *need != Need::StoreBlob {
        return Err(RefusedRequest::Denied(Denied::WrongSignature));
    }
    // Sent by a nimbus that requires no proof.
    if admitted.principal == Principal::Anyone && gate.mode() == Mode::Required {
        return Err(RefusedRequest::Denied(Denied::Missing));
    }
    let view = || api.nimbus.observation().map(|observation| observation.view);
    match allowed(need, &admitted.principal, || Ok(view()?)) {
        Ok(()) => Ok(admitted),
        Err(Disallowed::Lookup(refusal)) => Err(RefusedRequest::Lookup((*refusal).into())),
        Err(Disallowed::Needs(what)) => Err(RefusedRequest::Other(ErrorBody {
            code: Code::Forbidden,
            message: format!("{} may not do this: it needs {what}", admitted.principal),
            hint: hint(need, &admitted.principal).map(str::to_owned),
        })),
    }
}

/// Returns advice for a sender that may not do what it asks for.
fn hint(need: &Need, principal: &Principal) -> Option<&'static str> {
    match (need, principal) {
        (Need::Daemon | Need::SendMetrics, Principal::Person(_) | Principal::Worker(_)) => Some(
            "only daemons of the cluster may: they sign with storm.cluster.secret.file, and where TLS demands it \
             have a certificate too; no role of a token suffices",
        ),
        (_, Principal::Person(_)) => Some("an admin can give the token another role or another owner"),
        (_, Principal::Daemon(_)) => Some("send it with the token of a person"),
        (_, Principal::Worker(_) | Principal::Anyone) => None,
    }
}

/// Reason why a sender may not do what it asks for.
#[derive(Debug)]
enum Disallowed {
    /// Role or kind of sender that may.
    Needs(String),
    /// The owner of the topology is unknown.
    Lookup(Box<Refusal>),
}

impl From<Refusal> for Disallowed {
    fn from(refusal: Refusal) -> Self {
        Self::Lookup(Box::new(refusal))
    }
}

/// Checks whether a principal has what a request needs. The caller has refused [`Principal::Anyone`]
/// where proofs are required.
fn allowed(
    need: &Need,
    principal: &Principal,
    view: impl FnOnce() -> Result<std::sync::Arc<ClusterView>, Disallowed>,
) -> Result<(), Disallowed> {
    let needs = |what: &str| Err(Disallowed::Needs(what.to_owned()));
    match principal {
        Principal::Anyone => Ok(()),
        Principal::Person(person) => allowed_person(need, person, view),
        Principal::Daemon(_) => match need {
            Need::ChangeTopology(_)
            | Need::ReadSamples(_)
            | Need::CancelJob(_)
            | Need::Submit
            | Need::Operate => needs("a token of the role operator"),
            Need::Recover => needs("a token of the role admin"),
            _ => Ok(()),
        },
        Principal::Worker(topology) => match need {
            Need::SendMetrics => Ok(()),
            Need::ReadBlob(key) => {
                let view = view()?;
                let record = view.topologies.get(topology);
                match record
                    .is_some_and(|record| record.value.packages().any(|(blob, _)| blob.as_str() == key))
                {
                    true => Ok(()),
                    false => needs("the cluster secret, or the key of the topology of the package"),
                }
            }
            Need::Nothing | Need::Proof => Ok(()),
            Need::Daemon => needs("the cluster secret"),
            _ => needs("a token"),
        },
    }
}

fn allowed_person(
    need: &Need,
    person: &Person,
    view: impl FnOnce() -> Result<std::sync::Arc<ClusterView>, Disallowed>,
) -> Result<(), Disallowed> {
    let role = match need {
        Need::Nothing | Need::Proof => return Ok(()),
        Need::Read => Role::Reader,
        Need::ChangeTopology(_)
        | Need::ReadSamples(_)
        | Need::CancelJob(_)
        | Need::Submit
        | Need::StoreBlob
        | Need::Operate => Role::Operator,
        Need::Recover | Need::ReadBlob(_) | Need::ReadTree => Role::Admin,
        Need::Daemon | Need::SendMetrics => {
            return Err(Disallowed::Needs("the cluster secret".to_owned()));
        }
    };
    if person.role < role {
        return Err(Disallowed::Needs(format!("a token of the role {role}")));
    }
    let Some(owner) = &person.owner else { return Ok(()) };
    match need {
        Need::ChangeTopology(topology) | Need::ReadSamples(topology) => {
            let view = view()?;
            let id = find(&view, topology)?;
            of_owner(&view, &id, owner)
        }
        Need::CancelJob(job) => {
            let view = view()?;
            let mut running = view.topologies.keys();
            match running.find(|id| FlinkId::of_job(id).to_string() == *job) {
                Some(id) => of_owner(&view, id, owner),
                // The route says that there is no such job, or that it has ended.
                None => Ok(()),
            }
        }
        Need::Operate => Err(Disallowed::Needs("a token of the role operator without an owner".to_owned())),
        // The tree has the topologies of everybody.
        Need::ReadTree => Err(Disallowed::Needs("a token of the role admin without an owner".to_owned())),
        _ => Ok(()),
    }
}

/// Checks that a topology is of an owner.
fn of_owner(view: &ClusterView, id: &TopologyId, owner: &str) -> Result<(), Disallowed> {
    match view.topologies.get(id).is_some_and(|record| record.value.owner == *owner) {
        true => Ok(()),
        false => Err(Disallowed::Needs(format!("a token for the owner of {id}"))),
    }
}

/// Returns the owner of a topology that the sender submits: the owner of its token, else the name of its
/// token. Only a sender without a proof, in a cluster that needs none, names the owner.
pub(super) fn owner_of(parts: &Parts, claimed: String) -> String {
    owner_of_token(parts).map_or(claimed, str::to_owned)
}

/// Returns the owner of what the sender submits, if it has proved who it is.
pub(super) fn owner_of_token(parts: &Parts) -> Option<&str> {
    match principal(parts) {
        Some(Principal::Person(Person { name, owner, .. })) => Some(owner.as_ref().unwrap_or(name)),
        _ => None,
    }
}

/// Returns the owner to whose topologies the sender is limited.
pub(super) fn only_owner(parts: &Parts) -> Option<&str> {
    match principal(parts) {
        Some(Principal::Person(Person { owner, .. })) => owner.as_deref(),
        _ => None,
    }
}

/// Returns the topology to whose metrics the sender is limited.
pub(super) fn only_topology(parts: &Parts) -> Option<TopologyId> {
    match principal(parts) {
        Some(Principal::Worker(topology)) => Some(topology.clone()),
        _ => None,
    }
}

/// Returns the sender of a request.
pub(super) fn principal(parts: &Parts) -> Option<&Principal> {
    parts.extensions.get::<Admitted>().map(|admitted| &admitted.principal)
}

/// Returns whether the headers of a forwarding nimbus are believed: where the sender has proved who it
/// is, only with a signature.
pub(super) fn is_forwarded(parts: &Parts) -> bool {
    match parts.extensions.get::<Admitted>() {
        Some(Admitted { forwarded_by: Some(_), .. }) | None => true,
        Some(admitted) => admitted.principal == Principal::Anyone,
    }
}
