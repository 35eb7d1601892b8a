//! Ids: one type each, checked when parsed, printed as the user wrote them.

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Error of a text that is not a valid id of the expected kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{} is not a valid {kind}: {reason}", quoted(text))]
pub struct InvalidId {
    /// Expected kind, for example "topology name".
    pub kind: &'static str,
    /// The text as given.
    pub text: String,
    /// The rule that the text breaks.
    pub reason: &'static str,
}

/// Bytes of a rejected text that an error shows: more than any valid id has.
const SHOWN_BYTES: usize = 256;

/// Quotes a rejected text for an error. A long text is cut and followed by its length: it may be a
/// whole message of a faulty sender, and errors are logged and sent back.
pub fn quoted(text: &str) -> String {
    let end = (0..=SHOWN_BYTES.min(text.len())).rfind(|at| text.is_char_boundary(*at)).unwrap_or_default();
    match text.len() > end {
        true => format!("{:?}… ({} bytes)", &text[..end], text.len()),
        false => format!("{text:?}"),
    }
}

/// The longest id accepted anywhere: ids become znode names, file names and metric tags.
const MAX_ID_BYTES: usize = 200;

/// Checks the rules of every id that becomes a znode or file name.
fn check_name(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    if text.contains(':') {
        let reason = "it contains a colon, which separates names from ports";
        return Err(InvalidId { kind, text: text.to_owned(), reason });
    }
    check_host(kind, text)
}

/// Like [`check_name`], for an id that may be an IPv6 address.
fn check_host(kind: &'static str, text: &str) -> Result<(), InvalidId> {
    let fail = |reason| Err(InvalidId { kind, text: text.to_owned(), reason });
    if text.is_empty() {
        return fail("it is empty");
    }
    if text.len() > MAX_ID_BYTES {
        return fail("it is longer than 200 bytes");
    }
    if text == "." || text == ".." {
        return fail("it is a relative path");
    }
    if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
        return fail("it contains white space or a control character");
    }
    if text.contains(is_no_path_character) {
        return fail("it contains a character that ZooKeeper does not take in a path, such as an emoji");
    }
    if text.contains(['/', '\\', '@', '"', '\'']) {
        return fail("it contains one of / \\ @ or a quote");
    }
    Ok(())
}

/// Returns whether ZooKeeper rejects paths with the character (`PathUtils.validatePath`): the server
/// compares UTF-16 units, so everything beyond the basic plane is a pair of surrogates.
fn is_no_path_character(c: char) -> bool {
    matches!(c, '\u{e000}'..='\u{f8ff}' | '\u{fff0}'..)
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $kind:literal $(, $extra:expr)?) => {
        name_type!($(#[$doc])* $name, $kind; check_name $(, $extra)?);
    };
    ($(#[$doc:meta])* $name:ident, $kind:literal; $check:ident $(, $extra:expr)?) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Returns the id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;

            fn from_str(text: &str) -> Result<Self, InvalidId> {
                $check($kind, text)?;
                $(
                    let extra: fn(&str) -> Option<&'static str> = $extra;
                    if let Some(reason) = extra(text) {
                        return Err(InvalidId { kind: $kind, text: text.to_owned(), reason });
                    }
                )?
                Ok(Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = InvalidId;

            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({
                    "description": concat!("A ", $kind, "."),
                    "type": "string",
                    "minLength": 1,
                    "maxLength": MAX_ID_BYTES,
                })
            }
        }
    };
}

name_type!(
    /// The name that the author gave a topology; unique among the live ones.
    TopologyName,
    "topology name",
    |text| match text {
        _ if text.contains('.') => Some("it contains a dot, which Storm does not allow either"),
        _ if text.starts_with("__") => Some("names that begin with __ are reserved, as in Storm"),
        _ if text.starts_with('-') => Some("it begins with a dash, as an option of a command does"),
        _ => None,
    }
);
name_type!(
    /// One submission of a topology: `name-counter-epochseconds`. Never reused.
    TopologyId,
    "topology id"
);
name_type!(
    /// A supervisor. The id is generated once and kept in the supervisor's local directory.
    SupervisorId,
    "supervisor id"
);
name_type!(
    /// A nimbus replica. The id is generated once and kept in the replica's local directory.
    NimbusId,
    "nimbus id"
);
name_type!(
    /// A host as its supervisors report it: a name or an address.
    HostName,
    "host name"; check_host
);
name_type!(
    /// One launch of a worker process.
    WorkerId,
    "worker id"
);
name_type!(
    /// A spout or bolt of a topology. Names that begin with `__` belong to the system.
    ComponentId,
    "component id"
);
name_type!(
    /// A stream that a component emits to; `default` when the author names none.
    StreamId,
    "stream id"
);
name_type!(
    /// The sha256 of a blob, in 64 lower-case hexadecimal digits.
    BlobKey,
    "blob key",
    |text| {
        let hex = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        (!hex).then_some("it is not 64 lower-case hexadecimal digits")
    }
);

impl TopologyId {
    /// Maximum bytes of a name, so that every number and time of a submit fit into the id.
    pub const NAME_BYTES_MAX: usize = MAX_ID_BYTES - "-".len() * 2 - 20 - 11;

    /// Returns the id of the `counter`th submission, made at `at`.
    pub fn new(name: &TopologyName, counter: u64, at: crate::Timestamp) -> Self {
        Self(format!("{name}-{counter}-{}", at.as_millis() / 1000))
    }

    /// Returns the name part of a topology id, or the whole text if `id` is not of the form that
    /// [`TopologyId::new`] makes.
    pub fn name_in(id: &str) -> &str {
        let without_number = |text: &str| {
            let (rest, number) = text.rsplit_once('-')?;
            let is_number = !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit());
            is_number.then_some(rest.len())
        };
        let n_bytes = without_number(id).and_then(|n_bytes| without_number(&id[..n_bytes]));
        &id[..n_bytes.unwrap_or(id.len())]
    }
}

impl StreamId {
    /// Returns the id of the stream that is used if none is named.
    pub fn default_stream() -> Self {
        Self("default".to_owned())
    }
}

impl ComponentId {
    /// Returns the id of the component that emits tick tuples.
    pub fn system() -> Self {
        Self("__system".to_owned())
    }

    /// True if the id is reserved for the system.
    pub fn is_system(&self) -> bool {
        self.0.starts_with("__")
    }
}

impl BlobKey {
    /// Returns the key of a blob with these bytes.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::{Digest as _, Sha256};
        Self::from_digest(&Sha256::digest(bytes))
    }

    /// Returns the key of a finished sha256 digest.
    pub fn from_digest(digest: &[u8]) -> Self {
        use fmt::Write as _;
        let mut text = String::with_capacity(64);
        for byte in digest {
            write!(text, "{byte:02x}").expect("writing to a string does not fail");
        }
        Self(text)
    }
}

/// A numbered instance of a component, unique in its topology.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TaskId(pub u32);

impl fmt::Display for TaskId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for TaskId {
    type Err = InvalidId;

    fn from_str(text: &str) -> Result<Self, InvalidId> {
        text.parse().map(Self).map_err(|_| InvalidId {
            kind: "task id",
            text: text.to_owned(),
            reason: "it is not a whole number",
        })
    }
}

/// A TCP port of a host. It identifies a slot of a supervisor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Port(pub u16);

impl fmt::Display for Port {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A supervisor's place for at most one worker.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Slot {
    /// The supervisor that owns the slot.
    pub supervisor: SupervisorId,
    /// Port of the slot, on which the worker also listens for tuples.
    pub port: Port,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.supervisor, self.port)
    }
}

/// The number that orders leaderships: the data version of the znode `/term`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Term(pub i32);

impl fmt::Display for Term {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Id of a cluster's tree: 32 hexadecimal digits, drawn at random.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct TreeId(pub String);

impl fmt::Display for TreeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// Number of a transaction of ZooKeeper: later transactions have larger numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Zxid(pub i64);

impl fmt::Display for Zxid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_break_a_path_are_rejected() {
        for bad in
            ["", "a/b", "a b", "a\n", ".", "..", "a:b", "a@b", "a\u{1f600}", "\u{e000}", &"x".repeat(201)]
        {
            assert!(bad.parse::<TopologyId>().is_err(), "{bad:?} was accepted");
        }
        for bad in ["word.count", "__CLUSTER__", "-w"] {
            assert!(bad.parse::<TopologyName>().is_err(), "{bad:?} was accepted");
        }
        assert_eq!("größe-価格".parse::<TopologyId>().expect("valid").as_str(), "größe-価格");
        assert_eq!("word-count".parse::<TopologyName>().expect("valid").as_str(), "word-count");
    }

    #[test]
    fn host_name_may_be_an_address() {
        for host in ["node-3", "10.0.0.3", "::1", "fe80::1%eth0"] {
            assert_eq!(host.parse::<HostName>().expect(host).as_str(), host);
        }
        for bad in ["", "..", "a/b", "a b", "a@b"] {
            assert!(bad.parse::<HostName>().is_err(), "{bad:?} was accepted");
        }
    }

    #[test]
    fn error_does_not_repeat_a_long_text() {
        let error = "ü".repeat(100_000).parse::<TopologyId>().expect_err("too long").to_string();
        assert!(error.len() < 400, "{} bytes", error.len());
        assert!(
            error.ends_with("ü\"… (200000 bytes) is not a valid topology id: it is longer than 200 bytes")
        );
        assert_eq!(quoted("a\n"), r#""a\n""#);
    }

    #[test]
    fn blob_keys_are_sha256() {
        let key = BlobKey::of(b"abc");
        assert_eq!(key.as_str(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(key.as_str().parse::<BlobKey>(), Ok(key));
        assert!("BA78".parse::<BlobKey>().is_err());
    }
}
