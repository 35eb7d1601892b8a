//! HTTP client that proves who sends its requests.

use reqwest::{ClientBuilder, Method, Request, RequestBuilder, Response, StatusCode, header};

use crate::{leader_clock::TIME, scheme::Schemes};
use stormkeeper_access::{
    credentials::Credentials,
    principal::Principal,
    signature::{BodyDigest, Head},
    tls::client::ClientTls,
};
use stormkeeper_model::Timestamp;
use stormkeeper_runtime::blocking;

/// Header of the response to a request whose signature was made at another time than that of the nimbus,
/// which did not execute it. The response has the time of the nimbus too.
pub const STALE: &str = "x-stormkeeper-stale-signature";

/// Header of the response to a plain request, by a port that speaks TLS only. The request was not executed.
pub const TLS_ONLY: &str = "x-stormkeeper-tls-only";

/// Size from which the digest of a body is computed on another thread.
const LARGE_BYTES: usize = 256 << 10;

/// HTTP client with the credentials and the TLS of its process. Clones share them.
#[derive(Debug, Clone)]
pub struct AuthorizedClient {
    http: reqwest::Client,
    credentials: Credentials,
    schemes: Schemes,
}

impl AuthorizedClient {
    /// Creates a client without credentials.
    ///
    /// # Errors
    /// If the HTTP client cannot be created.
    pub fn new(builder: ClientBuilder, tls: &ClientTls) -> reqwest::Result<Self> {
        let http = builder.tls_backend_preconfigured(tls.config()).build()?;
        Ok(Self { http, credentials: Credentials::None, schemes: Schemes::new(tls.clone()) })
    }

    /// Replaces the credentials.
    pub fn with_credentials(self, credentials: Credentials) -> Self {
        Self { credentials, ..self }
    }

    /// The credentials.
    pub(crate) fn credentials(&self) -> Credentials {
        self.credentials.clone()
    }

    /// Begins a request, to be sent by [`send`](Self::send). The URL begins with `http:`, and is sent over
    /// TLS if the process and the peer use it.
    pub fn request(&self, method: Method, url: String) -> RequestBuilder {
        self.http.request(method, url)
    }

    /// Sends a request with a proof of its sender. It is sent again, once, if the nimbus has found its
    /// signature too old or too new, and the body can be sent again.
    ///
    /// # Errors
    /// As [`RequestBuilder::send`].
    pub async fn send(&self, request: RequestBuilder) -> reqwest::Result<Response> {
        self.send_for(request, None).await
    }

    /// As [`send`](Self::send), on behalf of the principal that this daemon has checked.
    ///
    /// # Errors
    /// As [`RequestBuilder::send`].
    pub async fn send_for(
        &self,
        request: RequestBuilder,
        on_behalf_of: Option<Principal>,
    ) -> reqwest::Result<Response> {
        let mut request = request.build()?;
        self.schemes.choose(&self.http, request.url_mut()).await;
        let again = match self.credentials {
            Credentials::Signer(_) => request.try_clone(),
            Credentials::None | Credentials::Token(_) => None,
        };
        let response = self.http.execute(self.authorized(request, on_behalf_of.clone()).await).await?;
        if response.headers().contains_key(TLS_ONLY) {
            self.schemes.forget(response.url());
        }
        let time = response.headers().get(TIME).and_then(|value| value.to_str().ok()?.parse().ok());
        let is_stale =
            response.status() == StatusCode::UNAUTHORIZED && response.headers().contains_key(STALE);
        let has_learned =
            is_stale && time.is_some_and(|time| self.credentials.note_time(Timestamp::from_millis(time)));
        match again.filter(|_| has_learned) {
            Some(again) => self.http.execute(self.authorized(again, on_behalf_of).await).await,
            None => Ok(response),
        }
    }

    async fn authorized(&self, mut request: Request, on_behalf_of: Option<Principal>) -> Request {
        if matches!(self.credentials, Credentials::None) {
            return request;
        }
        let digest = match request.body().map(|body| body.as_bytes().map(bytes::Bytes::copy_from_slice)) {
            _ if matches!(self.credentials, Credentials::Token(_)) => BodyDigest::InPath,
            None => BodyDigest::of(&[]),
            Some(Some(whole)) if whole.len() >= LARGE_BYTES => {
                blocking::run(move || BodyDigest::of(&whole)).await
            }
            Some(Some(whole)) => BodyDigest::of(&whole),
            // Only blobs are sent as streams, and their path names their digest.
            Some(None) => BodyDigest::InPath,
        };
        let url = request.url();
        // As in the Host header, which does not name the usual port.
        let host = url.host_str().unwrap_or_default();
        let to = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
        let path = match url.query() {
            Some(query) => format!("{}?{query}", url.path()),
            None => url.path().to_owned(),
        };
        let head = Head { to: &to, method: request.method().as_str(), path: &path };
        let proof = self.credentials.header(head, digest, on_behalf_of);
        if let Some(mut value) = proof.and_then(|text| header::HeaderValue::try_from(text).ok()) {
            value.set_sensitive(true);
            request.headers_mut().insert(header::AUTHORIZATION, value);
        }
        request
    }
}

#[cfg(test)]
mod tests;
