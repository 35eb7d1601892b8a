//! Submit of a topology in parts: the topology file, and the files that go with it. The parts are
//! checked and packed as `stormkeeper submit` does it, and nothing is stored before all have passed.

use std::collections::BTreeSet;

use axum::{
    body::Body,
    extract::{
        FromRequest as _, Multipart, Request, State,
        multipart::{Field, MultipartError, MultipartRejection},
    },
    http::{HeaderValue, Method, header},
};

use super::{
    answer::Answer,
    writes::{operation, own_request},
};
use crate::api::{
    Api, access, blobs,
    error::{ApiError, PathPart, too_slow},
    serving::is_body_timeout,
    writes as own_writes,
};
use stormkeeper_api_types::message::{Code, InitialStatus, SubmitRequest};
use stormkeeper_model::{TopologyName, id::quoted};
use stormkeeper_runtime::{blocking, error_chain};
use stormkeeper_topology_package::{
    flux,
    package::{self, MAX_FILES, Mode, PackageFile, TopologyPackage},
};

/// Maximum bytes of a part that is a name or a word.
const WORD_BYTES_MAX: u64 = 1000;

const PARTS: &str = "the parts are `topology` (the topology file, once), `resource` (a file with its path below \
                     resources/ as its filename, any number), `name`, `owner` and `status` (active or inactive)";

/// Parts of a request, for its description.
#[derive(Debug, schemars::JsonSchema)]
#[schemars(rename = "StormSubmit")]
#[expect(dead_code, reason = "only described: parts are read one after the other, as they arrive")]
pub(super) struct PartsOfSubmit {
    /// The topology file.
    topology: String,
    /// Files with their paths below resources/ as their filenames; any number.
    resource: Option<String>,
    /// Name of the topology, instead of that in the file.
    name: Option<String>,
    /// User who submits the topology.
    owner: Option<String>,
    /// Status after the submit.
    status: Option<InitialStatus>,
}

/// Parts of a request.
#[derive(Debug, Default)]
struct Parts {
    topology: Option<String>,
    resources: Vec<PackageFile>,
    name: Option<TopologyName>,
    owner: Option<String>,
    status: InitialStatus,
}

pub(super) async fn submit(State(api): State<Api>, request: Request) -> Answer {
    let (head, body) = request.into_parts();
    let _place = api.submits.enter(access::owner_of_token(&head))?;
    let parts = Multipart::from_request(Request::from_parts(head.clone(), body), &()).await;
    let parts = read(parts.map_err(unfit)?, api.nimbus.blobs().bytes_max()).await?;
    let Parts { topology, resources, name, owner, status } = parts;
    let topology = topology.ok_or_else(|| bad("the part `topology` is missing"))?;
    let limit = api.nimbus.blobs().bytes_max();
    let (package, warnings) = blocking::run(move || pack(&topology, resources, limit)).await?;
    let TopologyPackage { key, bytes } = package;

    let (mut put, _) = own_request(&head, Method::PUT, &format!("/blobs/{key}"), &())?;
    put.headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    put.headers.insert(header::CONTENT_LENGTH, bytes.len().into());
    let put = Request::from_parts(put, Body::from(bytes));
    let stored = blobs::put_blob(State(api.clone()), PathPart(key.to_string()), put).await?;
    if !stored.status().is_success() {
        return operation(&api, stored, Vec::new()).await;
    }
    let owner = owner.unwrap_or_else(|| "anonymous".to_owned());
    let own = SubmitRequest { name, blob: key, owner, status };
    let (head, body) = own_request(&head, Method::POST, "/topology/submit", &own)?;
    let answer = own_writes::submit(State(api.clone()), Request::from_parts(head, Body::from(body))).await?;
    operation(&api, answer, warnings).await
}

fn bad(message: impl Into<String>) -> ApiError {
    ApiError::new(Code::InvalidRequest, message, Some(PARTS))
}

/// Checks that a path leads to a file below the resources. What a file system refuses besides is checked
/// with the whole package.
fn check_path(path: &str) -> Result<(), ApiError> {
    let is_plain = |part: &str| !["", ".", ".."].contains(&part) && !part.chars().any(char::is_control);
    match path.split('/').all(is_plain) {
        true => Ok(()),
        false => Err(bad(format!("the resource {} is no path below resources/", quoted(path)))),
    }
}

fn unfit(rejection: MultipartRejection) -> ApiError {
    bad(format!("the body has no parts: {}", rejection.body_text()))
}

fn broken(error: &MultipartError) -> ApiError {
    match is_body_timeout(error) {
        true => too_slow(),
        false => bad(format!("the parts cannot be read: {}", error_chain(error))),
    }
}

fn too_large(limit: u64) -> ApiError {
    let hint = "raise `nimbus.max.blob.bytes` in the storm.yaml of each nimbus, or leave files out";
    ApiError::new(Code::TooLarge, format!("the parts are larger than {limit} bytes"), Some(hint))
}

/// Reads all parts, of at most `limit` bytes together.
async fn read(mut multipart: Multipart, limit: u64) -> Result<Parts, ApiError> {
    let (mut parts, mut left, mut paths, mut names) =
        (Parts::default(), limit, BTreeSet::new(), BTreeSet::new());
    while let Some(field) = multipart.next_field().await.map_err(|error| broken(&error))? {
        let name = field.name().unwrap_or_default().to_owned();
        if name != "resource" && names.contains(&name) {
            return Err(bad(format!("the part {} is given twice", quoted(&name))));
        }
        match name.as_str() {
            "topology" => {
                parts.topology = Some(text(field, &mut left, limit).await?);
            }
            "resource" => {
                let path = field.file_name().map(str::to_owned);
                let path = path.ok_or_else(|| bad("a part `resource` has no filename"))?;
                check_path(&path)?;
                if parts.resources.len() >= MAX_FILES || !paths.insert(path.clone()) {
                    let message =
                        format!("the resource {} is given twice, or there are too many", quoted(&path));
                    return Err(bad(message));
                }
                let bytes = bytes(field, &mut left, limit).await?;
                // A part has no mode; what begins like a script or a program of Linux can be started.
                let is_program = bytes.starts_with(b"#!") || bytes.starts_with(b"\x7fELF");
                let mode = if is_program { Mode::Executable } else { Mode::Plain };
                parts.resources.push(PackageFile { path, mode, bytes });
            }
            "name" => {
                let text = word(field).await?;
                parts.name = Some(text.parse().map_err(|error| bad(format!("name: {error}")))?);
            }
            "owner" => parts.owner = Some(word(field).await?),
            "status" => {
                parts.status = match word(field).await?.to_ascii_lowercase().as_str() {
                    "active" => InitialStatus::Active,
                    "inactive" => InitialStatus::Inactive,
                    other => {
                        return Err(bad(format!("status: {} is neither active nor inactive", quoted(other))));
                    }
                }
            }
            other => return Err(bad(format!("the part {} is not known", quoted(other)))),
        }
        names.insert(name);
    }
    Ok(parts)
}

async fn bytes(mut field: Field<'_>, left: &mut u64, limit: u64) -> Result<Vec<u8>, ApiError> {
    let mut all = Vec::new();
    while let Some(chunk) = field.chunk().await.map_err(|error| broken(&error))? {
        *left = left.checked_sub(chunk.len() as u64).ok_or_else(|| too_large(limit))?;
        all.extend_from_slice(&chunk);
    }
    Ok(all)
}

async fn text(field: Field<'_>, left: &mut u64, limit: u64) -> Result<String, ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let bytes = bytes(field, left, limit).await?;
    String::from_utf8(bytes).map_err(|_| bad(format!("the part `{name}` is not UTF-8")))
}

/// Reads a short text that is not empty.
async fn word(field: Field<'_>) -> Result<String, ApiError> {
    let name = field.name().unwrap_or_default().to_owned();
    let text = text(field, &mut { WORD_BYTES_MAX }, WORD_BYTES_MAX).await?;
    match text.trim() {
        "" => Err(bad(format!("the part `{name}` is empty"))),
        word if word.chars().any(char::is_control) => {
            Err(bad(format!("the part `{name}` contains a control character")))
        }
        word => Ok(word.to_owned()),
    }
}

/// Checks a topology and packs it with its resources, as `stormkeeper submit` does. Returns the package
/// and warnings about the file. Blocks.
fn pack(
    text: &str,
    resources: Vec<PackageFile>,
    limit: u64,
) -> Result<(TopologyPackage, Vec<String>), ApiError> {
    let invalid = |message: String| ApiError::new(Code::InvalidTopology, message, None);
    let parsed =
        flux::parse(text).map_err(|faults| invalid(format!("the topology file is wrong: {faults}")))?;
    let unpacked = |error: package::Error| match error {
        package::Error::TooLarge { .. } => too_large(limit),
        error => invalid(error_chain(&error)),
    };
    let package = package::pack(&parsed.topology, None, resources, limit).map_err(unpacked)?;
    // The same checks of each path as when a supervisor unpacks it.
    package::read_topology(&package.bytes[..]).map_err(unpacked)?;
    Ok((package, parsed.warnings.iter().map(ToString::to_string).collect()))
}
