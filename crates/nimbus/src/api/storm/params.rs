//! Parameters of requests. Unknown ones are ignored, as in Storm: clients add some against caches.

use std::convert::Infallible;

use axum::{
    extract::{FromRequestParts, Path, Query},
    http::{HeaderMap, request::Parts},
};
use serde::de::DeserializeOwned;

use super::answer::StormError;
use crate::api::error::ApiError;
use stormkeeper_api_types::message::Code;
use stormkeeper_serving::origin::ON_PURPOSE;
use stormkeeper_storm_api::Window;

/// Begin of the names of headers that only clients of the own API send.
const OWN_HEADERS: &str = "x-stormkeeper-";

/// Returns whether a request comes from a command or a daemon of this project. Every command names its
/// user and every nimbus that forwards names itself, also those of earlier builds.
pub(crate) fn is_for_own_api(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| name.as_str().starts_with(OWN_HEADERS) && name != ON_PURPOSE)
}

/// Parameters of a request.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(Vec<(String, String)>);

impl Params {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(of, _)| of == name).map(|(_, value)| value.as_str())
    }

    pub(super) fn callback(&self) -> Option<&str> {
        self.get("callback")
    }

    /// Returns whether components and streams of the system are asked for.
    pub(super) fn sys(&self) -> bool {
        self.get("sys").is_some_and(|text| text == "1" || text.eq_ignore_ascii_case("true"))
    }

    /// Returns the asked window.
    pub(super) fn window(&self) -> Result<Window, ApiError> {
        let invalid = |error| ApiError::new(Code::InvalidRequest, format!("{error}"), None);
        Window::parse(self.get("window")).map_err(invalid)
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Params {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // A query of pairs of texts is never invalid.
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        Ok(Self(pairs.map(|Query(pairs)| pairs).unwrap_or_default()))
    }
}

/// Variable parts of a path.
pub(crate) struct PathOf<T>(pub(super) T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathOf<T> {
    type Rejection = StormError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, StormError> {
        match Path::from_request_parts(parts, state).await {
            Ok(Path(parts)) => Ok(Self(parts)),
            Err(rejection) => Err(ApiError::new(Code::InvalidRequest, rejection.body_text(), None).into()),
        }
    }
}

/// True for a request of a command or a daemon of this project.
pub(crate) struct IsOwn(pub(super) bool);

impl<S: Send + Sync> FromRequestParts<S> for IsOwn {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Self(is_for_own_api(&parts.headers)))
    }
}
