//! Credentials of a process at ZooKeeper, and the access control lists of what it creates.
//!
//! Only the scheme `digest` is supported: a user proves a name and a password, and an access control
//! list names users by [`DigestId`]s, which do not contain the password. The server sees the
//! password of each session, and so does whoever listens on the way, unless the connection is [TLS].
//! SASL (DIGEST-MD5) opens sessions where the servers demand it, and has no part in the lists.
//!
//! [TLS]: crate::tree::tls

use std::{fmt, sync::Arc};

use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use sha1::{Digest as _, Sha1};

use crate::tree::TreePath;

/// Bytes of a SHA-1.
const DIGEST_BYTES: usize = 20;

/// Shortest password that is accepted; generated ones have 64 characters.
const PASSWORD_BYTES_MIN: usize = 16;

/// Longest user name or password that is accepted.
const PART_BYTES_MAX: usize = 256;

/// Name of a user in access control lists: `user:base64(sha1(user:password))`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DigestId(String);

impl DigestId {
    /// Returns the text in an access control list.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for DigestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Text that is neither a user with a password nor the id of a user.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUser {
    /// There is no colon.
    #[error("a user and its password, or its digest, are separated by a colon")]
    NoColon,
    /// The name or the password is empty, too long, or has other characters.
    #[error("a name of a user has 1 to 256 letters, digits and `-_.@+`")]
    Name,
    /// The password is too short, too long, or has other characters.
    #[error("a password has 16 to 256 visible characters of ASCII without blanks and colons")]
    Password,
    /// The password of SASL is empty, too long, or has other characters.
    #[error("a password of SASL has 1 to 256 visible characters of ASCII without blanks")]
    SaslPassword,
    /// The digest is not one.
    #[error("a digest is the SHA-1 of `user:password` in base64, 28 characters that end with `=`")]
    Digest,
}

impl std::str::FromStr for DigestId {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        let (user, digest) = text.split_once(':').ok_or(InvalidUser::NoColon)?;
        check_name(user)?;
        let bytes = BASE64.decode(digest).map_err(|_not_base64| InvalidUser::Digest)?;
        match bytes.len() {
            DIGEST_BYTES => Ok(Self(text.to_owned())),
            _ => Err(InvalidUser::Digest),
        }
    }
}

/// A user and its password.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    user: String,
    password: String,
}

impl Credential {
    /// Returns the credential of `user`.
    ///
    /// # Errors
    /// [`InvalidUser::Name`] and [`InvalidUser::Password`].
    pub fn new(user: &str, password: &str) -> Result<Self, InvalidUser> {
        check_name(user)?;
        let is_short = password.len() < PASSWORD_BYTES_MIN || password.len() > PART_BYTES_MAX;
        if is_short || !password.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':') {
            return Err(InvalidUser::Password);
        }
        Ok(Self { user: user.to_owned(), password: password.to_owned() })
    }

    /// Returns the id of the user in access control lists.
    pub fn id(&self) -> DigestId {
        let digest = Sha1::digest(self.payload());
        DigestId(format!("{}:{}", self.user, BASE64.encode(digest)))
    }

    /// Returns the bytes that prove the user to a server.
    pub(crate) fn payload(&self) -> Vec<u8> {
        format!("{}:{}", self.user, self.password).into_bytes()
    }

    /// Returns `user:password`, for files that nobody else may read.
    pub fn reveal(&self) -> String {
        format!("{}:{}", self.user, self.password)
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credential({}:…)", self.user)
    }
}

impl std::str::FromStr for Credential {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        let (user, password) = text.split_once(':').ok_or(InvalidUser::NoColon)?;
        Self::new(user, password)
    }
}

fn check_name(user: &str) -> Result<(), InvalidUser> {
    let is_of_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.@+".contains(&byte);
    match !user.is_empty() && user.len() <= PART_BYTES_MAX && user.bytes().all(is_of_name) {
        true => Ok(()),
        false => Err(InvalidUser::Name),
    }
}

/// User of SASL and its password, as the servers' JAAS file has them: other rules than for a [`Credential`].
#[derive(Clone, PartialEq, Eq)]
pub struct SaslUser {
    user: String,
    password: String,
}

impl SaslUser {
    /// Returns `user:password`, for files that nobody else may read.
    pub fn reveal(&self) -> String {
        format!("{}:{}", self.user, self.password)
    }

    pub(crate) fn into_parts(self) -> (String, String) {
        (self.user, self.password)
    }
}

impl fmt::Debug for SaslUser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SaslUser({}:…)", self.user)
    }
}

impl std::str::FromStr for SaslUser {
    type Err = InvalidUser;

    fn from_str(text: &str) -> Result<Self, InvalidUser> {
        let (user, password) = text.split_once(':').ok_or(InvalidUser::NoColon)?;
        check_name(user)?;
        let is_visible = |byte: u8| byte.is_ascii_graphic();
        match !password.is_empty() && password.len() <= PART_BYTES_MAX && password.bytes().all(is_visible) {
            true => Ok(Self { user: user.to_owned(), password: password.to_owned() }),
            false => Err(InvalidUser::SaslPassword),
        }
    }
}

/// Rights of a user to a znode. Creating and deleting concern its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rights {
    /// Read data and the names of children.
    Read,
    /// Read, and create and delete children.
    ReadAndChildren,
    /// Read and write, and create and delete children.
    ReadAndWrite,
    /// All of these, and change the access control list.
    All,
}

/// Owner of rights.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Who {
    /// Everybody who reaches the server.
    Anyone,
    /// A user.
    User(DigestId),
}

/// One entry of an access control list.
pub type Acl = (Who, Rights);

/// Decision about the access control list of each znode. Pure.
pub trait AccessRules: fmt::Debug + Send + Sync {
    /// Returns the access control list of the znode at `path`; never empty.
    fn acl_of(&self, path: &TreePath) -> Vec<Acl>;
}

/// Credential of a process, and the rules for what it creates.
#[derive(Debug, Clone)]
pub struct Access {
    /// Users whose rights the sessions of this process have; at least one.
    pub credentials: Vec<Credential>,
    /// Rules for the access control lists; `None` leaves what this process creates open, as while a
    /// cluster is migrated.
    pub rules: Option<Arc<dyn AccessRules>>,
    /// User by whom sessions are opened, where the servers demand SASL (DIGEST-MD5).
    pub sasl: Option<SaslUser>,
    /// Line and file that name this user, for people: where to correct it, or to add it.
    pub sasl_line: String,
}

impl PartialEq for Access {
    fn eq(&self, other: &Self) -> bool {
        let is_same_rules = match (&self.rules, &other.rules) {
            (Some(one), Some(other)) => Arc::ptr_eq(one, other),
            (one, other) => one.is_none() && other.is_none(),
        };
        let is_same_sasl = self.sasl == other.sasl && self.sasl_line == other.sasl_line;
        is_same_rules && is_same_sasl && self.credentials == other.credentials
    }
}

impl Eq for Access {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_is_that_of_zookeeper() {
        // The output of ZooKeeper's own `DigestAuthenticationProvider`.
        let credential: Credential = "super:adminpassword1234".parse().expect("valid");
        assert_eq!(credential.id().as_str(), "super:ytlf5BcSLgbyVIrEHJo4SJBay0c=");
        assert_eq!(credential.id().as_str().parse(), Ok(credential.id()));
    }

    #[test]
    fn invalid_users_are_rejected_with_the_reason() {
        let password = |text: &str| text.parse::<Credential>().expect_err("invalid");
        assert_eq!(password("nimbus"), InvalidUser::NoColon);
        assert_eq!(password("nim bus:0123456789abcdef"), InvalidUser::Name);
        assert_eq!(password(":0123456789abcdef"), InvalidUser::Name);
        assert_eq!(password("nimbus:short"), InvalidUser::Password);
        assert_eq!(password("nimbus:0123456789abcde f"), InvalidUser::Password);
        let digest = |text: &str| text.parse::<DigestId>().expect_err("invalid");
        assert_eq!(digest("nimbus:0123456789abcdef"), InvalidUser::Digest);
        assert_eq!(digest("nimbus"), InvalidUser::NoColon);
    }

    #[test]
    fn password_is_not_shown() {
        let credential: Credential = "nimbus:0123456789abcdef".parse().expect("valid");
        assert_eq!(format!("{credential:?}"), "Credential(nimbus:…)");
        assert_eq!(credential.reveal(), "nimbus:0123456789abcdef");
    }
}
