//! The cluster secret, and the keys that are derived from it.
//!
//! The file has one or two secrets, a line each. The first signs; each of them is accepted, so that a
//! secret is replaced in a running cluster: the next one is added as the second line on every host, then
//! moved to the first, then the other is removed.
//!
//! A key is the HMAC-SHA256 of its purpose with the secret. So a worker, which has the key of its
//! topology, learns neither the secret nor another key.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use hmac::{Hmac, Mac as _};
use sha2::Sha256;

use crate::{
    file::{self, FileError, Protection},
    hex,
};
use stormkeeper_model::TopologyId;

/// Minimum characters of a secret: 16 random bytes as hexadecimal digits.
pub const CHARS_MIN: usize = 32;

/// Maximum characters of a secret.
const CHARS_MAX: usize = 1024;

/// Maximum number of secrets in the file: the present one, and the one before or after.
pub const SECRETS_MAX: usize = 2;

/// Random bytes of a generated secret.
const RANDOM_BYTES: usize = 32;

type HmacSha256 = Hmac<Sha256>;

/// Key for signatures. Its `Debug` form does not contain it.
#[derive(Clone, PartialEq, Eq)]
pub struct Key([u8; 32]);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

impl Key {
    fn derive(secret: &str, purpose: &str, of: &str) -> Self {
        let mut mac = HmacSha256::new_from_slice(secret.as_bytes()).expect("HMAC takes keys of any length");
        for part in [purpose, of] {
            // The lengths keep two different lists of parts different.
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part.as_bytes());
        }
        Self(mac.finalize().into_bytes().into())
    }

    fn mac(&self, parts: &[&[u8]]) -> HmacSha256 {
        let mut mac = HmacSha256::new_from_slice(&self.0).expect("HMAC takes keys of any length");
        for part in parts {
            mac.update(&(part.len() as u64).to_be_bytes());
            mac.update(part);
        }
        mac
    }

    /// Returns the HMAC-SHA256 of `parts`, each with its length.
    pub fn sign(&self, parts: &[&[u8]]) -> [u8; 32] {
        self.mac(parts).finalize().into_bytes().into()
    }

    /// Returns whether `signature` is that of `parts`. Takes the same time for every signature.
    pub fn verify(&self, parts: &[&[u8]], signature: &[u8]) -> bool {
        self.mac(parts).verify_slice(signature).is_ok()
    }

    pub(crate) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Name of the key, from which the key cannot be computed.
    pub fn name(&self) -> [u8; 8] {
        let digest = self.sign(&[b"stormkeeper name of a key 1"]);
        let (name, _) = digest.split_first_chunk().expect("a digest has 32 bytes");
        *name
    }
}

/// The secrets of a cluster.
#[derive(Clone, PartialEq, Eq)]
pub struct Secrets(Vec<String>);

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Secrets({})", self.0.len())
    }
}

impl Secrets {
    /// Makes the text of a new secret from 32 random bytes.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn generate() -> io::Result<String> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(hex::encode(&bytes))
    }

    /// Reads a file that nobody but its owner may read. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &file::read(path, Protection::Secret)?)
    }

    /// Parses the text of the file at `path`. No error contains a secret.
    ///
    /// # Errors
    /// [`FileError::Line`] for the first invalid line, [`FileError::Content`] without any secret.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let mut secrets: Vec<String> = Vec::new();
        for (line, secret) in file::lines(text) {
            let fail = |fault: String| Err(FileError::Line { path: PathBuf::from(path), line, fault });
            if !secret.bytes().all(|byte| byte.is_ascii_graphic()) {
                return fail("a secret has printable ASCII characters without spaces".to_owned());
            }
            if !(CHARS_MIN..=CHARS_MAX).contains(&secret.len()) {
                let n_chars = secret.len();
                return fail(format!(
                    "the secret has {n_chars} characters, and must have {CHARS_MIN} to {CHARS_MAX}; `stormkeeper \
                     secret new` makes one"
                ));
            }
            if secrets.len() == SECRETS_MAX {
                return fail(format!("there are more than {SECRETS_MAX} secrets; remove the oldest"));
            }
            if secrets.iter().any(|before| before == secret) {
                return fail("the secret is that of an earlier line".to_owned());
            }
            secrets.push(secret.to_owned());
        }
        if secrets.is_empty() {
            let fault = "it has no secret; `stormkeeper secret new` makes one".to_owned();
            return Err(FileError::Content { path: path.to_owned(), fault });
        }
        Ok(Self(secrets))
    }

    /// Keys of daemons, the one that signs first.
    pub fn daemon_keys(&self) -> Vec<Key> {
        self.keys("stormkeeper daemon 1", "")
    }

    /// Keys of the workers of a topology, the one that signs first. The id of a topology is used once,
    /// so a key opens nothing after its topology.
    pub fn worker_keys(&self, topology: &TopologyId) -> Vec<Key> {
        self.keys("stormkeeper worker 1", topology.as_str())
    }

    /// Keys that seal the credentials of a topology, that of the first secret first.
    pub(crate) fn sealing_keys(&self, topology: &TopologyId) -> Vec<Key> {
        self.keys("stormkeeper credentials 1", topology.as_str())
    }

    fn keys(&self, purpose: &str, of: &str) -> Vec<Key> {
        self.0.iter().map(|secret| Key::derive(secret, purpose, of)).collect()
    }
}

/// Keys of a worker, as its supervisor writes them into its directory: a line that says whether other
/// workers must prove that they have one of them too, then one key in a line, the one that signs first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkerKeys {
    /// The keys.
    pub keys: Vec<Key>,
    /// True if a worker without a key is refused.
    pub is_required: bool,
}

impl WorkerKeys {
    /// Name of the file in the directory of a worker.
    pub const FILE: &str = "access.keys";

    const REQUIRED: &str = "required";
    const OPTIONAL: &str = "optional";

    /// Reads the file; `None` if it is not there. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Option<Self>, FileError> {
        let text = match file::read(path, Protection::Secret) {
            Ok(text) => text,
            Err(FileError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        let fail =
            |line, fault: &str| FileError::Line { path: path.to_owned(), line, fault: fault.to_owned() };
        let mut lines = file::lines(&text);
        let is_required = match lines.next() {
            Some((_, Self::REQUIRED)) => true,
            Some((_, Self::OPTIONAL)) => false,
            Some((line, _)) => return Err(fail(line, "expected `required` or `optional`")),
            None => return Err(fail(1, "the file is empty")),
        };
        let key = |(line, digits)| {
            hex::decode_array(digits).map(Key).ok_or_else(|| fail(line, "expected 64 hexadecimal digits"))
        };
        let keys = lines.take(SECRETS_MAX).map(key).collect::<Result<Vec<_>, _>>()?;
        match keys.is_empty() {
            true => Err(fail(1, "there is no key")),
            false => Ok(Some(Self { keys, is_required })),
        }
    }

    /// Returns the text of the file.
    pub fn text(&self) -> String {
        let word = if self.is_required { Self::REQUIRED } else { Self::OPTIONAL };
        let keys: String = self.keys.iter().map(|Key(bytes)| hex::encode(bytes) + "\n").collect();
        format!("{word}\n{keys}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Secrets, FileError> {
        Secrets::parse(Path::new("secret"), text)
    }

    fn topology(id: &str) -> TopologyId {
        id.parse().expect("valid")
    }

    #[test]
    fn keys_differ_by_secret_purpose_and_topology_and_are_stable() {
        let secrets = parse(&format!("{}\n# the one before\n{}\n", "a".repeat(32), "b".repeat(32)));
        let secrets = secrets.expect("valid");
        let (wc, other) = (topology("wc-1-1"), topology("wc-1-10"));
        let mut keys =
            [secrets.daemon_keys(), secrets.worker_keys(&wc), secrets.worker_keys(&other)].concat();
        assert_eq!(keys.len(), 6);
        keys.sort_by_key(|key| key.0);
        keys.dedup();
        assert_eq!(keys.len(), 6, "all of them differ");
        // Builds of one cluster must derive the same keys; this one was computed with Python's hmac.
        let expected = "a646322b7f5ce25c401eefc2e4d6fbd4";
        let first = hex::encode(&secrets.worker_keys(&wc)[0].0);
        assert!(first.starts_with(expected), "{first}");
    }

    #[test]
    fn signature_is_that_of_its_key_and_its_parts_alone() {
        let keys = parse(&"a".repeat(32)).expect("valid").daemon_keys();
        let other = parse(&"b".repeat(32)).expect("valid").daemon_keys();
        let signature = keys[0].sign(&[b"ab", b"c"]);
        assert!(keys[0].verify(&[b"ab", b"c"], &signature));
        assert!(!other[0].verify(&[b"ab", b"c"], &signature));
        assert!(!keys[0].verify(&[b"a", b"bc"], &signature), "the parts are apart");
        assert!(!keys[0].verify(&[b"ab", b"c"], &signature[..31]));
        assert!(!keys[0].verify(&[b"ab", b"c"], &[]));
        assert_ne!(keys[0].name(), other[0].name());
    }

    #[test]
    fn bad_secrets_are_named_by_line_and_never_shown() {
        let (secret, long) = ("s3cr3t-".repeat(8), "x".repeat(1025));
        let cases = [
            ("short-s3cr3t\n".to_owned(), "secret:1: the secret has 12 characters"),
            (format!("{secret}\n{secret} b"), "secret:2: a secret has printable"),
            (format!("{secret}\n\n{secret}"), "secret:3: the secret is that of"),
            (format!("{secret}\n{secret}b\n{secret}c"), "secret:3: there are more than 2"),
            (long, "1025 characters"),
            ("# none".to_owned(), "stormkeeper secret new"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err(&text).to_string();
            assert!(error.contains(expected) && !error.contains("s3cr3t"), "{error}");
        }
        assert_eq!(format!("{:?}", parse(&secret).expect("valid")), "Secrets(1)");
        let generated = Secrets::generate().expect("random bytes");
        parse(&generated).expect("a generated secret is valid");
        assert_ne!(generated, Secrets::generate().expect("random bytes"));
    }

    #[test]
    fn keys_of_a_worker_survive_their_file() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(WorkerKeys::FILE);
        let keys = parse(&format!("{}\n{}", "a".repeat(32), "b".repeat(32))).expect("valid");
        let keys = WorkerKeys { keys: keys.worker_keys(&topology("wc-1-1")), is_required: true };
        assert_eq!(WorkerKeys::read(&path).expect("not there"), None);
        file::create_secret(&path, &keys.text()).expect("written");
        assert_eq!(WorkerKeys::read(&path).expect("read"), Some(keys.clone()));
        let optional = WorkerKeys { is_required: false, ..keys };
        std::fs::write(&path, optional.text()).expect("written");
        assert_eq!(WorkerKeys::read(&path).expect("read"), Some(optional));
        for (bad, expected) in [
            ("", "empty"),
            ("zz", "`required` or `optional`"),
            ("required\n", "no key"),
            ("optional\n0a", "access.keys:2: expected 64 hexadecimal digits"),
        ] {
            std::fs::write(&path, bad).expect("written");
            let error = WorkerKeys::read(&path).expect_err(bad).to_string();
            assert!(error.contains(expected), "{bad:?}: {error}");
        }
    }
}
