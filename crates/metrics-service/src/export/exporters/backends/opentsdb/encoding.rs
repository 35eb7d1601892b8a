//! Encoding of request bodies: gzip, or plain JSON for a server that does not accept gzip.

use std::io::Write as _;

use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use reqwest::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};

use super::point::DataPoint;
use crate::export::exporters::ExportError;

/// Maximum length of a plain body with several points. OpenTSDB treats a longer body as chunked, and
/// rejects chunked bodies by default.
pub(super) const PLAIN_BYTES_MAX: usize = 8000;

/// Encoding of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Encoding {
    /// JSON, compressed.
    Gzip,
    /// JSON as it is.
    Plain,
}

impl Encoding {
    /// Returns the headers of a request.
    pub(super) fn headers(self) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if self == Self::Gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        headers
    }

    /// Returns the body with these points; `None` if it must be smaller. A batch takes about a
    /// millisecond.
    pub(super) fn body(self, points: &[DataPoint]) -> Result<Option<Bytes>, ExportError> {
        let unwritable = |source| ExportError::Unwritable { what: "a batch", form: "JSON", source };
        match self {
            Self::Gzip => {
                let mut gzip = GzEncoder::new(Vec::new(), Compression::fast());
                serde_json::to_writer(&mut gzip, points).map_err(unwritable)?;
                let body = gzip.flush().and_then(|()| gzip.finish());
                body.map(|body| Some(body.into())).map_err(|error| unwritable(serde_json::Error::io(error)))
            }
            Self::Plain => {
                let body = serde_json::to_vec(points).map_err(unwritable)?;
                Ok((points.len() <= 1 || body.len() <= PLAIN_BYTES_MAX).then(|| body.into()))
            }
        }
    }
}
