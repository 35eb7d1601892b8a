//! Upload and download of blobs, as streams.

use axum::{
    body::Body,
    extract::{Request, State},
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use tokio_util::io::ReaderStream;

use super::{
    Api, access,
    caller::{self, check_term},
    error::{ApiError, PathPart, internal, parse},
    forward::forward,
    writes::read_body,
};
use crate::{blobs, quota::Arriving, refusal::Refusal};
use stormkeeper_api_types::{
    forward::TERM,
    message::{Code, CopyRequest},
};
use stormkeeper_model::BlobKey;

pub(super) async fn get_blob(State(api): State<Api>, PathPart(key): PathPart) -> Result<Response, ApiError> {
    let key = parse_key(&key)?;
    let missing = || ApiError::new(Code::BlobMissing, format!("blob {key} is not on this nimbus"), None);
    let (path, bytes) = api.nimbus.blobs().file(&key).ok_or_else(missing)?;
    let file = match tokio::fs::File::open(&path).await {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            api.nimbus.blobs().check_file(&key).await;
            return Err(missing());
        }
        Err(source) => return Err(internal(&blobs::Error::Disk { path, source })),
    };
    let headers = [
        (header::CONTENT_TYPE, "application/octet-stream".to_owned()),
        (header::CONTENT_LENGTH, bytes.to_string()),
    ];
    Ok((headers, Body::from_stream(ReaderStream::new(file))).into_response())
}

/// Stores a blob on the leader. A follower forwards the stream, so that the blob is on the leader
/// when the topology is submitted. A nimbus that is missing the package of a topology stores it
/// itself, also without a leader: a supervisor offers it.
pub(super) async fn put_blob(
    State(api): State<Api>,
    PathPart(key): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    let key = parse_key(&key)?;
    let (parts, body) = request.into_parts();
    let limit = api.nimbus.blobs().bytes_max();
    let length =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: u64| length > limit) {
        return Err(Refusal::Blob(blobs::Error::TooLarge { key, limit }).into());
    }
    check_term(&api, &parts)?;
    if !api.nimbus.takes_writes() && !api.nimbus.is_missing(&key) {
        return forward(&api, &parts, body).await;
    }
    // Held until it is stored, so that several uploads at once do not pass a quota together.
    let _arriving = check_quota(&api, &parts, &key, length)?;
    let blobs = api.nimbus.blobs();
    let room = blobs.check_room(length.unwrap_or_default()).await;
    room.map_err(|reason| blobs::Error::NoRoom { key: key.clone(), reason })?;
    blobs.put(&key, body.into_data_stream()).await?;
    if let Some(owner) = access::only_owner(&parts) {
        api.uploaders.add(owner, &key, |key| blobs.holds(key));
    }
    if let (Some(owner), Some((_, bytes))) = (access::owner_of_token(&parts), blobs.file(&key))
        && let Ok(observation) = api.nimbus.observation()
    {
        api.uploads.remember(&observation.view, owner, (&key, bytes), |key| blobs.holds(key));
    }
    Ok(StatusCode::CREATED.into_response())
}

/// Checks an upload of a person against the quota of the owner to whom a topology would belong.
fn check_quota(
    api: &Api,
    parts: &Parts,
    key: &BlobKey,
    length: Option<u64>,
) -> Result<Option<Arriving>, ApiError> {
    let (Some(owner), Some(quotas)) = (access::owner_of_token(parts), &api.nimbus.options().quotas) else {
        return Ok(None);
    };
    let quotas = quotas.get();
    if quotas.of(owner).blob_bytes.is_none() {
        return Ok(None);
    }
    let hint = Some("send the header Content-Length");
    let unknown =
        || ApiError::new(Code::InvalidRequest, "the size of the blob is not known beforehand", hint);
    let upload = (key, length.ok_or_else(unknown)?);
    let view = api.nimbus.observation()?.view;
    let blobs = api.nimbus.blobs();
    Ok(api.uploads.begin((&view, &quotas), owner, upload, |key| blobs.holds(key))?)
}

/// Fetches a copy of a blob from another nimbus, at the request of the leader.
pub(super) async fn copy_blob(
    State(api): State<Api>,
    PathPart(key): PathPart,
    request: Request,
) -> Result<Response, ApiError> {
    let key = parse_key(&key)?;
    let (parts, body) = read_body(request).await?;
    let Some(term) = caller::term(&parts) else {
        return Err(ApiError::new(Code::InvalidRequest, format!("the header {TERM} is missing"), None));
    };
    let CopyRequest { from } = parse(&body)?;
    api.nimbus.copy_blob(&key, from, term).await?;
    Ok(StatusCode::OK.into_response())
}

fn parse_key(text: &str) -> Result<BlobKey, ApiError> {
    let hint = Some("the key of a blob is the sha256 of its bytes");
    text.parse().map_err(|error| ApiError::new(Code::InvalidRequest, format!("{error}"), hint))
}
