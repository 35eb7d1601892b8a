//! Environment of workers and of their components: the variables of the supervisor that they get.
//!
//! The environment of a daemon often has credentials, and a component is code of somebody else. So
//! only variables that programs commonly need are passed, and those that the operator allows.

use std::ffi::OsString;

use stormkeeper_metrics::name::matches_pattern;
use stormkeeper_model::secret_text::TOKEN_VARIABLE;

/// Variables that are always passed; `*` matches any characters.
pub const ALWAYS_PASSED: &[&str] = &[
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "SHELL",
    "LANG",
    "LANGUAGE",
    "LC_*",
    "TZ",
    "TMPDIR",
    "PYTHON*",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
    "SSL_*",
    "*_proxy",
    "*_PROXY",
    "RUST_BACKTRACE",
    "STORMKEEPER_*",
];

/// Environment of the workers of a supervisor.
#[derive(Debug, Clone, Default)]
pub struct WorkerEnvironment {
    passed: Vec<(OsString, OsString)>,
    withheld: Vec<String>,
}

impl WorkerEnvironment {
    /// Selects from `variables` those of [`ALWAYS_PASSED`] and those that a pattern of `allowed`
    /// matches.
    pub fn select(variables: impl IntoIterator<Item = (OsString, OsString)>, allowed: &[String]) -> Self {
        let mut environment = Self::default();
        for (name, value) in variables {
            let text = name.to_string_lossy();
            let mut patterns = ALWAYS_PASSED.iter().copied().chain(allowed.iter().map(String::as_str));
            if text != TOKEN_VARIABLE && patterns.any(|pattern| matches_pattern(pattern, &text)) {
                environment.passed.push((name, value));
            } else {
                environment.withheld.push(text.into_owned());
            }
        }
        environment.withheld.sort();
        environment
    }

    /// Returns the names of the variables that workers do not get.
    pub fn withheld(&self) -> &[String] {
        &self.withheld
    }

    pub(super) fn passed(&self) -> impl Iterator<Item = (&OsString, &OsString)> {
        self.passed.iter().map(|(name, value)| (name, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_withheld_unless_a_pattern_allows_them() {
        let variables = ["AWS_SECRET_ACCESS_KEY", "PATH", "LC_ALL", "https_proxy", "KAFKA_USER", "PATHS"];
        let select = |allowed: &[&str]| {
            let allowed: Vec<String> = allowed.iter().map(|pattern| (*pattern).to_owned()).collect();
            let variables = variables.map(|name| (OsString::from(name), OsString::from("value")));
            let environment = WorkerEnvironment::select(variables, &allowed);
            let passed: Vec<String> =
                environment.passed().map(|(name, _)| name.to_string_lossy().into_owned()).collect();
            (passed.join(" "), environment.withheld().join(" "))
        };
        let (passed, withheld) = select(&[]);
        assert_eq!(passed, "PATH LC_ALL https_proxy");
        assert_eq!(withheld, "AWS_SECRET_ACCESS_KEY KAFKA_USER PATHS");
        assert_eq!(select(&["KAFKA_*", "PATHS"]).1, "AWS_SECRET_ACCESS_KEY");
        assert_eq!(select(&["*"]).1, "");
    }

    #[test]
    fn token_of_a_person_is_withheld_whatever_is_allowed() {
        let variables = ["STORMKEEPER_TOKEN", "STORMKEEPER_LOG"];
        let variables = variables.map(|name| (OsString::from(name), OsString::from("value")));
        let environment =
            WorkerEnvironment::select(variables, &["*".to_owned(), "STORMKEEPER_TOKEN".to_owned()]);
        assert_eq!(environment.passed().map(|(name, _)| name).collect::<Vec<_>>(), ["STORMKEEPER_LOG"]);
    }
}
