//! Responses to peers whose requests are not read: constants, with the headers that every response has.

/// Makes a response of its status, the code and the message of its error, advice, and the length of the body.
macro_rules! response {
    ($status:literal, $length:literal, $body:literal) => {
        concat!(
            "HTTP/1.1 ",
            $status,
            "\r\ncontent-type: application/json\r\ncontent-length: ",
            $length,
            "\r\nconnection: close\r\n",
            "content-security-policy: default-src 'none'; frame-ancestors 'none'\r\n",
            "x-content-type-options: nosniff\r\nreferrer-policy: no-referrer\r\ncache-control: no-store\r\n\r\n",
            $body,
        )
    };
}

/// Response to a peer beyond the limits.
pub(crate) const FULL: &str = response!(
    "503 Service Unavailable",
    95,
    r#"{"code":"not_ready","message":"this daemon has too many connections","hint":"try again later"}
"#
);

/// Response to a peer that speaks HTTP/2 without asking whether this server does.
pub(crate) const NO_HTTP_2: &str = response!(
    "505 HTTP Version Not Supported",
    110,
    r#"{"code":"invalid_request","message":"this server speaks HTTP/1.1 and no HTTP/2","hint":"send it by HTTP/1.1"}
"#
);

/// First line of a connection over HTTP/2 of a client that knows or assumes that the server speaks it.
pub(crate) const HTTP_2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n";

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_api_types::message::{Code, ErrorBody};

    #[test]
    fn responses_have_the_length_and_the_code_of_their_heads() {
        for (response, code) in [(FULL, Code::NotReady), (NO_HTTP_2, Code::InvalidRequest)] {
            let (head, body) = response.split_once("\r\n\r\n").expect("a head");
            assert!(head.contains(&format!("content-length: {}\r\n", body.len())), "{}", body.len());
            for (name, value) in crate::browser::HEADERS {
                assert!(head.contains(&format!("\r\n{name}: {value}")), "{name}");
            }
            let error: ErrorBody = serde_json::from_str(body).expect("an error");
            assert_eq!(error.code, code);
        }
    }
}
