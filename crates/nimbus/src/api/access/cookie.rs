//! Cookie that holds the token of a person who has signed in with a browser.
//!
//! A browser sends it on its own, also when a page of another site has caused the request. So it
//! counts only together with a header that only a page of this nimbus can send: [`ON_PURPOSE`].

use axum::http::{
    HeaderMap, HeaderValue,
    header::{AUTHORIZATION, COOKIE},
};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use stormkeeper_access::token::Token;
use stormkeeper_api_types::client::decoded;
use stormkeeper_serving::origin::ON_PURPOSE;

const PLAIN: &str = "stormkeeper-token";

/// Name over TLS. A browser takes a cookie with such a name only with `Secure`, and for one host only.
const OVER_TLS: &str = "__Host-stormkeeper-token";

/// Properties of the cookie: no script reads it, and no other site has it sent.
const PROPERTIES: &str = "Path=/; HttpOnly; SameSite=Strict";

/// Puts the token of the cookie into the place of a header `Authorization`, which goes before it. The
/// rest of the nimbus knows no cookie.
pub(in crate::api) fn take_token(headers: &mut HeaderMap, is_over_tls: bool) {
    let Some(value) = authorization(headers, is_over_tls) else { return };
    headers.insert(AUTHORIZATION, value);
}

fn authorization(headers: &HeaderMap, is_over_tls: bool) -> Option<HeaderValue> {
    if headers.contains_key(AUTHORIZATION) || !headers.contains_key(ON_PURPOSE) {
        return None;
    }
    let cookies = headers.get_all(COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = cookies.flat_map(|text| text.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let pairs: Vec<(&str, &str)> = pairs.collect();
    let named = |wanted: &str| pairs.iter().find(|(name, _)| *name == wanted).map(|(_, value)| *value);
    // Over TLS, a page of another port or a plain one of this host could have set the plain name.
    let token = decoded(named(if is_over_tls { OVER_TLS } else { PLAIN })?);
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Returns the header that sets the cookie.
pub(in crate::api) fn set(token: &Token, is_over_tls: bool) -> HeaderValue {
    cookie(&utf8_percent_encode(token.secret_text(), NON_ALPHANUMERIC).to_string(), "", is_over_tls)
}

/// Returns the headers that remove the cookie, under both names: it may be from before there was TLS.
pub(in crate::api) fn removed() -> [HeaderValue; 2] {
    [false, true].map(|is_over_tls| cookie("", "; Max-Age=0", is_over_tls))
}

fn cookie(value: &str, age: &str, is_over_tls: bool) -> HeaderValue {
    let (name, secure) = if is_over_tls { (OVER_TLS, "; Secure") } else { (PLAIN, "") };
    let text = format!("{name}={value}; {PROPERTIES}{secure}{age}");
    let mut header = HeaderValue::try_from(text).expect("letters, digits and signs that a header may have");
    header.set_sensitive(true);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn taken(headers: &[(&'static str, &str)]) -> Option<String> {
        taken_over(headers, false)
    }

    fn taken_over(headers: &[(&'static str, &str)], is_over_tls: bool) -> Option<String> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, HeaderValue::from_str(value).expect("a value"));
        }
        take_token(&mut map, is_over_tls);
        map.get(AUTHORIZATION).map(|value| value.to_str().expect("text").to_owned())
    }

    const PURPOSE: (&str, &str) = (ON_PURPOSE, "1");

    #[test]
    fn cookie_counts_only_with_the_header_of_a_page_and_after_another_proof() {
        let cookie = ("cookie", "a=b; stormkeeper-token=skt%5Fabc; c=d");
        assert_eq!(taken(&[cookie, PURPOSE]).as_deref(), Some("Bearer skt_abc"));
        assert_eq!(taken(&[cookie]), None, "a form or an image of another page");
        assert_eq!(taken(&[PURPOSE]), None);
        let proof = ("authorization", "Bearer other");
        assert_eq!(taken(&[cookie, PURPOSE, proof]).as_deref(), Some("Bearer other"));
        let both = ("cookie", "stormkeeper-token=old; __Host-stormkeeper-token=new");
        assert_eq!(taken(&[both, PURPOSE]).as_deref(), Some("Bearer old"));
        assert_eq!(taken_over(&[both, PURPOSE], true).as_deref(), Some("Bearer new"));
        assert_eq!(taken_over(&[cookie, PURPOSE], true), None, "another page can set the plain name");
        for bad in ["stormkeeper-token", "xstormkeeper-token=1", "stormkeeper-token=%0A%0D"] {
            assert_eq!(taken(&[("cookie", bad), PURPOSE]), None, "{bad}");
        }
    }

    #[test]
    fn cookie_that_is_set_is_taken_again_and_is_kept_from_scripts_and_other_sites() {
        for text in ["skt_0123456789abcdef", "a;b,c\"d=e f%".replace(' ', "!").repeat(2).as_str()] {
            let token = Token::new(text).expect("valid");
            for is_over_tls in [false, true] {
                let header = set(&token, is_over_tls);
                let header = header.to_str().expect("text");
                assert!(header.ends_with("HttpOnly; SameSite=Strict") != is_over_tls, "{header}");
                assert_eq!(header.contains("; Secure"), is_over_tls, "{header}");
                assert_eq!(header.starts_with("__Host-"), is_over_tls, "{header}");
                let pair = header.split(';').next().expect("a pair");
                let taken = taken_over(&[("cookie", pair), PURPOSE], is_over_tls);
                assert_eq!(taken, Some(format!("Bearer {text}")));
            }
        }
    }
}
