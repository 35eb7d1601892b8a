//! Parts of files: a request may ask for one range of bytes (RFC 9110, section 14).

use axum::{
    Json,
    body::Body,
    http::{HeaderMap, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};

use stormkeeper_api_types::message::{Code, ErrorBody};

/// Part of a file that a request asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// All of the file.
    Whole {
        /// Size of the file in bytes.
        size: u64,
    },
    /// Some bytes of the file, at least one.
    Range {
        /// Position of the first byte.
        first: u64,
        /// Position of the last byte.
        last: u64,
        /// Size of the file in bytes.
        size: u64,
    },
    /// Bytes that the file does not have.
    Beyond {
        /// Size of the file in bytes.
        size: u64,
    },
}

impl Part {
    /// Returns the part of a file of `size` bytes that a request asks for. As the standard allows, a range
    /// is ignored that is malformed, has several parts or another unit, or depends on a version of the file.
    pub fn asked(method: &Method, headers: &HeaderMap, size: u64) -> Self {
        let whole = Self::Whole { size };
        if *method != Method::GET || headers.contains_key(header::IF_RANGE) {
            return whole;
        }
        let mut ranges = headers.get_all(header::RANGE).iter();
        let (Some(range), None) = (ranges.next(), ranges.next()) else { return whole };
        range.to_str().ok().and_then(|text| Self::parse(text, size)).unwrap_or(whole)
    }

    /// Returns the part that the value of a header names; `None` if it is to be ignored.
    fn parse(text: &str, size: u64) -> Option<Self> {
        let (unit, range) = text.split_once('=')?;
        let (first, last) = range.trim().split_once('-')?;
        let is_known = unit.trim().eq_ignore_ascii_case("bytes");
        if !is_known || ![first, last].into_iter().all(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
        {
            return None;
        }
        // A number that is too large is beyond every file.
        let number = |text: &str| text.parse().unwrap_or(u64::MAX);
        let (first, last) = match (first, last) {
            ("", "") => return None,
            ("", length) => match number(length) {
                0 => (u64::MAX, u64::MAX),
                length => (size.saturating_sub(length), u64::MAX),
            },
            (first, "") => (number(first), u64::MAX),
            (first, last) => (number(first), number(last)),
        };
        match () {
            () if last < first => None,
            () if first >= size => Some(Self::Beyond { size }),
            () => Some(Self::Range { first, last: last.min(size - 1), size }),
        }
    }

    /// Returns the position of the first byte.
    pub fn first(self) -> u64 {
        match self {
            Self::Range { first, .. } => first,
            Self::Whole { .. } | Self::Beyond { .. } => 0,
        }
    }

    /// Returns the number of bytes.
    pub fn length(self) -> u64 {
        match self {
            Self::Whole { size } => size,
            Self::Range { first, last, .. } => last - first + 1,
            Self::Beyond { .. } => 0,
        }
    }

    /// Returns the response with the bytes of the part, or the error if there are none.
    pub fn response(self, bytes: impl FnOnce() -> Body) -> Response {
        let accepts = (header::ACCEPT_RANGES, "bytes");
        match self {
            Self::Whole { size } => {
                ([accepts], [(header::CONTENT_LENGTH, size.to_string())], bytes()).into_response()
            }
            Self::Range { first, last, size } => {
                let headers = [
                    (header::CONTENT_LENGTH, self.length().to_string()),
                    (header::CONTENT_RANGE, format!("bytes {first}-{last}/{size}")),
                ];
                (StatusCode::PARTIAL_CONTENT, [accepts], headers, bytes()).into_response()
            }
            Self::Beyond { size } => {
                let error = ErrorBody {
                    code: Code::InvalidRequest,
                    message: format!("the range begins behind the end of the file, which has {size} bytes"),
                    hint: None,
                };
                let range = [(header::CONTENT_RANGE, format!("bytes */{size}"))];
                (StatusCode::RANGE_NOT_SATISFIABLE, [accepts], range, Json(error)).into_response()
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn asked(method: Method, headers: &[(header::HeaderName, &'static str)], size: u64) -> Part {
        let headers = headers.iter().map(|(name, value)| (name.clone(), HeaderValue::from_static(value)));
        let mut map = HeaderMap::new();
        headers.for_each(|(name, value)| {
            map.append(name, value);
        });
        Part::asked(&method, &map, size)
    }

    #[test]
    fn one_range_of_bytes_is_a_part_and_everything_else_is_the_whole_file() {
        let range = |first, last| Part::Range { first, last, size: 10 };
        let (whole, beyond) = (Part::Whole { size: 10 }, Part::Beyond { size: 10 });
        for (text, expected) in [
            ("bytes=0-0", range(0, 0)),
            ("bytes=2-5", range(2, 5)),
            ("Bytes = 2-5", range(2, 5)),
            ("bytes=2-", range(2, 9)),
            ("bytes=9-99999999999999999999999", range(9, 9)),
            ("bytes=-3", range(7, 9)),
            ("bytes=-99", range(0, 9)),
            ("bytes=10-", beyond),
            ("bytes=10-11", beyond),
            ("bytes=99999999999999999999999-", beyond),
            ("bytes=-0", beyond),
            ("bytes=5-2", whole),
            ("bytes=-", whole),
            ("bytes=", whole),
            ("bytes=a-b", whole),
            ("bytes=+1-2", whole),
            ("bytes=0-1,4-5", whole),
            ("lines=1-2", whole),
            ("2-5", whole),
        ] {
            assert_eq!(asked(Method::GET, &[(header::RANGE, text)], 10), expected, "{text}");
        }
        assert_eq!(asked(Method::GET, &[], 10), whole);
        let two = [(header::RANGE, "bytes=0-1"), (header::RANGE, "bytes=2-3")];
        assert_eq!(asked(Method::GET, &two, 10), whole);
        let versioned = [(header::RANGE, "bytes=0-1"), (header::IF_RANGE, "\"x\"")];
        assert_eq!(asked(Method::GET, &versioned, 10), whole, "files have no versions here");
        assert_eq!(asked(Method::HEAD, &[(header::RANGE, "bytes=0-1")], 10), whole);
        assert_eq!(asked(Method::GET, &[(header::RANGE, "bytes=0-")], 0), Part::Beyond { size: 0 });
        assert_eq!((range(2, 5).first(), range(2, 5).length(), whole.length()), (2, 4, 10));
    }
}
