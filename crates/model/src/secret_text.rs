//! Secrets in texts that are shown: names that say that a value is one, and URLs with one. Pure.

use serde_json::Value;

/// Text in place of a secret.
pub const MARK: &str = "(secret)";

/// Variable in which a person may keep the token for the nimbus. It is passed to no program.
pub const TOKEN_VARIABLE: &str = "STORMKEEPER_TOKEN";

/// Words by which a name says that its value is a secret.
const WORDS: [&str; 8] =
    ["password", "passwd", "secret", "token", "credential", "apikey", "api.key", "private.key"];

/// Ends of names whose values are where a secret is, and not the secret.
const PLACES: [&str; 4] = ["file", "path", "dir", "class"];

/// Returns whether a name says that its value is a secret.
pub fn is_secret(name: &str) -> bool {
    let name = name.to_ascii_lowercase().replace(['-', '_'], ".");
    let is_place = PLACES.iter().any(|place| name.rsplit('.').next() == Some(place));
    !is_place && WORDS.iter().any(|word| name.contains(word))
}

/// Returns a value as it may be shown: without secrets in the values of keys that are called so, also
/// inside of maps and lists, and without secrets in URLs.
pub fn masked(key: &str, value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        _ if is_secret(key) => MARK.into(),
        Value::Number(_) => value.clone(),
        Value::String(text) => without_secrets(text).into(),
        Value::Array(items) => items.iter().map(|item| masked("", item)).collect(),
        Value::Object(entries) => {
            entries.iter().map(|(key, value)| (key.clone(), masked(key, value))).collect()
        }
    }
}

/// Returns a URL with the mark in place of its password, and of the values in its query whose names say that
/// they are secrets. Another text stays as it is.
pub fn without_secrets(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    let (place, query) = path.split_once('?').map_or((path, None), |(place, query)| (place, Some(query)));
    let shown = |pair: &str| match pair.split_once('=') {
        Some((name, _)) if is_secret(name) => format!("{name}={MARK}"),
        _ => pair.to_owned(),
    };
    let query = query.map(|query| format!("?{}", query.split('&').map(shown).collect::<Vec<_>>().join("&")));
    let query = query.unwrap_or_default();
    let login = authority.rsplit_once('@').and_then(|(login, host)| Some((login.split_once(':')?.0, host)));
    match login {
        Some((user, host)) => format!("{scheme}://{user}:{MARK}@{host}{place}{query}"),
        None => format!("{scheme}://{authority}{place}{query}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn password_and_secrets_in_the_query_of_a_url_are_not_shown() {
        for (url, shown) in [
            ("http://ann:hunter2@db:4242/x?y=1", "http://ann:(secret)@db:4242/x?y=1"),
            ("https://ann:a:b@c@db", "https://ann:(secret)@db"),
            ("http://ann@db:80", "http://ann@db:80"),
            ("http://db:80/ann:x@y", "http://db:80/ann:x@y"),
            (
                "http://db/?access_token=a&b=c&Api-Key=d",
                "http://db/?access_token=(secret)&b=c&Api-Key=(secret)",
            ),
            ("http://db?token=a?b", "http://db?token=(secret)"),
            ("ann:hunter2@db", "ann:hunter2@db"),
        ] {
            assert_eq!(without_secrets(url), shown);
        }
    }
}
