//! Secrets in values that are shown: they are replaced by a mark. Pure.

pub(super) use stormkeeper_model::secret_text::masked;

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use stormkeeper_model::secret_text::MARK;

    #[test]
    fn values_of_keys_that_are_called_secrets_are_not_shown() {
        for key in [
            "topology.db.password",
            "topology.API_TOKEN",
            "my.secret",
            "topology.s3.secret-key",
            "credentials",
            "x.api_key",
        ] {
            for value in [json!("hunter2"), json!(4711), json!(["hunter2"]), json!({"a": "hunter2"})] {
                assert_eq!(masked(key, &value), json!(MARK), "{key}");
            }
            assert_eq!(masked(key, &json!(null)), json!(null), "unset is no secret");
        }
        let nested = json!({"db": {"user": "ann", "password": "hunter2"}, "list": [{"token": "t"}], "n": 1});
        let shown = json!({"db": {"user": "ann", "password": MARK}, "list": [{"token": MARK}], "n": 1});
        assert_eq!(masked("topology.custom", &nested), shown);
    }

    #[test]
    fn places_of_secrets_and_other_values_are_shown() {
        for (key, value) in [
            ("ui.tokens.file", json!("/etc/stormkeeper/tokens")),
            ("storm.cluster.secret.file", json!("/etc/stormkeeper/cluster.secret")),
            ("nimbus.seeds", json!(["n1:8080"])),
            ("ui.port", json!(8080)),
            ("topology.message.timeout.secs", json!(30)),
            ("nimbus.metrics.plugin.opentsdb.url", json!("http://127.0.0.1:4242/a@b:c")),
        ] {
            assert_eq!(masked(key, &value), value, "{key}");
        }
    }

    #[test]
    fn password_of_a_url_is_not_shown() {
        for (url, shown) in [
            ("http://ann:hunter2@db:4242/x?y=1", "http://ann:(secret)@db:4242/x?y=1"),
            ("https://ann:a:b@c@db", "https://ann:(secret)@db"),
            ("http://ann@db:80", "http://ann@db:80"),
            ("http://db:80/ann:x@y", "http://db:80/ann:x@y"),
            ("ann:hunter2@db", "ann:hunter2@db"),
        ] {
            assert_eq!(masked("some.url", &json!(url)), json!(shown));
        }
    }
}
