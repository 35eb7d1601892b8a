//! Body whose digest is signed. It ends with an error if it is another body, and every route reads a
//! body to its end before it acts.

use std::{
    error::Error,
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    BoxError,
    body::{Body, Bytes, HttpBody},
};
use http_body::{Frame, SizeHint};
use sha2::{Digest as _, Sha256};

use crate::api::error::ApiError;
use stormkeeper_api_types::message::Code;

/// Error of a body that was not signed.
#[derive(Debug, thiserror::Error)]
#[error("the body is not the one that was signed")]
struct WrongBody;

/// Returns whether an error is or was caused by a body that was not signed.
pub(in crate::api) fn is_wrong_body(error: &(dyn Error + 'static)) -> bool {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if error.is::<WrongBody>() {
            return true;
        }
        cause = error.source();
    }
    false
}

/// Returns the error for a body that was not signed.
pub(in crate::api) fn wrong_body() -> ApiError {
    ApiError::new(Code::Unauthenticated, WrongBody.to_string(), None)
}

/// Body that must have a digest.
pub(super) struct SignedBody {
    body: Body,
    hasher: Sha256,
    digest: [u8; 32],
    is_checked: bool,
}

impl SignedBody {
    pub(super) fn new(body: Body, digest: [u8; 32]) -> Self {
        Self { body, hasher: Sha256::new(), digest, is_checked: false }
    }
}

impl HttpBody for SignedBody {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let this = &mut *self;
        let frame = std::task::ready!(Pin::new(&mut this.body).poll_frame(cx));
        Poll::Ready(match frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    this.hasher.update(data);
                }
                Some(Ok(frame))
            }
            Some(Err(error)) => Some(Err(error.into())),
            None if this.is_checked => None,
            None => {
                this.is_checked = true;
                let found: [u8; 32] = this.hasher.finalize_reset().into();
                (found != this.digest).then(|| Err(WrongBody.into()))
            }
        })
    }

    // A reader that stops at the last byte would not see the error after it.
    fn is_end_stream(&self) -> bool {
        self.is_checked && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn body_that_was_not_signed_is_an_error_at_its_end() {
        let read = |body: &'static str, signed: &'static str| {
            let digest = Sha256::digest(signed).into();
            axum::body::to_bytes(Body::new(SignedBody::new(Body::from(body), digest)), 100)
        };
        assert_eq!(read("{}", "{}").await.expect("signed"), "{}");
        assert_eq!(read("", "").await.expect("signed"), "");
        for (body, signed) in [("{\"waitSecs\":0}", "{}"), ("", "{}"), ("{}", "")] {
            let error = read(body, signed).await.expect_err(body);
            assert!(is_wrong_body(&error), "{error:?}");
        }
    }
}
