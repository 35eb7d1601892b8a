//! Tokens of people and programs.
//!
//! The file has one line for each token, with the digest and not the token itself:
//!
//! ```text
//! # name   role     owner       SHA-256 of the token
//! ann      admin                sha256:4b1a…
//! ci       operator owner=team  sha256:90cc…
//! grafana  reader               cert:grafana.example.com
//! ```
//!
//! A line with `cert:` is for whoever shows a client certificate with that name, in place of a token.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
};

use sha2::{Digest as _, Sha256};
use subtle::{Choice, ConditionallySelectable as _, ConstantTimeEq as _};

use crate::tls::certificate::PeerCertificate;
use crate::{
    file::{self, FileError, Protection},
    hex,
    principal::{Person, Role},
};
use stormkeeper_model::id::quoted;

/// Maximum number of tokens in a file; all of them are compared with the token of each request.
pub const TOKENS_MAX: usize = 10_000;

/// Maximum characters of a name or an owner.
const NAME_CHARS_MAX: usize = 64;

/// Shape of a name or an owner.
const NAME_SHAPE: &str = "it has 1 to 64 letters, digits or one of . _ @ -";

/// Maximum bytes of a token.
const TOKEN_BYTES_MAX: usize = 512;

/// Minimum bytes of a token: a shorter one could be guessed.
const TOKEN_BYTES_MIN: usize = 20;

/// Prefix of generated tokens, by which scanners for secrets find one that was published.
const PREFIX: &str = "skt_";

/// Random bytes of a generated token.
const RANDOM_BYTES: usize = 32;

/// Prefix of a digest in the file.
const DIGEST: &str = "sha256:";

/// A token. Its `Debug` form does not contain it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Error of a text that cannot be a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token has {TOKEN_BYTES_MIN} to {TOKEN_BYTES_MAX} printable ASCII characters without spaces")]
pub struct InvalidToken;

impl Token {
    /// Makes a new token from 32 random bytes.
    ///
    /// # Errors
    /// If the system has no random bytes.
    pub fn generate() -> io::Result<Self> {
        let mut bytes = [0; RANDOM_BYTES];
        getrandom::fill(&mut bytes).map_err(io::Error::other)?;
        Ok(Self(format!("{PREFIX}{}", hex::encode(&bytes))))
    }

    /// Takes the token of a header or of a file.
    ///
    /// # Errors
    /// [`InvalidToken`].
    pub fn new(text: &str) -> Result<Self, InvalidToken> {
        let is_valid = (TOKEN_BYTES_MIN..=TOKEN_BYTES_MAX).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_graphic());
        is_valid.then(|| Self(text.to_owned())).ok_or(InvalidToken)
    }

    /// Reads the token from a file that only its owner may read, or from a pipe of the calling shell. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        let text = file::read_given(path)?;
        let fault =
            |error: InvalidToken| FileError::Content { path: path.to_owned(), fault: error.to_string() };
        Self::new(text.trim()).map_err(fault)
    }

    /// Returns the text, for the header of a request.
    pub fn secret_text(&self) -> &str {
        &self.0
    }

    fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0.as_bytes()).into()
    }

    /// Returns the line of the token in the file.
    pub fn line(&self, person: &Person) -> String {
        let owner = person.owner.as_ref().map(|owner| format!(" owner={owner}")).unwrap_or_default();
        format!("{} {}{owner} {DIGEST}{}", person.name, person.role, hex::encode(&self.digest()))
    }
}

/// Prefix of the name of a client certificate in the file.
const CERTIFICATE: &str = "cert:";

/// Maximum characters of the name of a certificate.
const CERTIFICATE_CHARS_MAX: usize = 253;

/// Proof of a line.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Proof {
    Digest([u8; 32]),
    Certificate(String),
}

/// The tokens of a file, and the certificates that stand for one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tokens {
    digests: Vec<([u8; 32], Person)>,
    certificates: BTreeMap<String, Person>,
    /// Line of the first certificate.
    first_certificate: Option<usize>,
}

impl Tokens {
    /// Reads a file that nobody but its owner may change. Blocks.
    ///
    /// # Errors
    /// [`FileError`].
    pub fn read(path: &Path) -> Result<Self, FileError> {
        Self::parse(path, &file::read(path, Protection::Unchanged)?)
    }

    /// Parses the text of the file at `path`.
    ///
    /// # Errors
    /// [`FileError::Line`] for the first invalid line, [`FileError::Content`] without any token.
    pub fn parse(path: &Path, text: &str) -> Result<Self, FileError> {
        let (mut tokens, mut names, mut proofs) = (Self::default(), BTreeMap::new(), BTreeMap::new());
        for (line, content) in file::lines(text) {
            let fail = |fault| FileError::Line { path: PathBuf::from(path), line, fault };
            let (proof, person) = parse_line(content).map_err(fail)?;
            if let Some(first) = names.insert(person.name.clone(), line) {
                return Err(fail(format!("the name {} is in line {first} already", person.name)));
            }
            if let Some(first) = proofs.insert(proof.clone(), line) {
                let what = match proof {
                    Proof::Digest(_) => "token",
                    Proof::Certificate(_) => "certificate",
                };
                return Err(fail(format!("the {what} is that of line {first}; make one for each name")));
            }
            if proofs.len() > TOKENS_MAX {
                return Err(fail(format!("there are more than {TOKENS_MAX} tokens")));
            }
            match proof {
                Proof::Digest(digest) => tokens.digests.push((digest, person)),
                Proof::Certificate(name) => {
                    tokens.first_certificate.get_or_insert(line);
                    tokens.certificates.insert(name, person);
                }
            }
        }
        if proofs.is_empty() {
            let fault = "it has no token; `stormkeeper token new NAME --role admin` prints the first line";
            return Err(FileError::Content { path: path.to_owned(), fault: fault.to_owned() });
        }
        Ok(tokens)
    }

    /// Returns the number of lines with a certificate, and the number of the first one.
    pub(crate) fn certificate_lines(&self) -> Option<(usize, usize)> {
        Some((self.certificates.len(), self.first_certificate?))
    }

    /// Returns the person of a certificate: the line with the first of its names that is in the file.
    pub fn of_certificate(&self, certificate: &PeerCertificate) -> Option<&Person> {
        certificate.names.iter().find_map(|name| self.certificates.get(&name.to_ascii_lowercase()))
    }

    /// Returns the person of a token. Takes the same time for every token.
    pub fn find(&self, token: &Token) -> Option<&Person> {
        let digest = token.digest();
        // The index after the last one stands for "none".
        let mut found = u64::MAX;
        for (index, (known, _)) in self.digests.iter().enumerate() {
            let is_equal: Choice = known.ct_eq(&digest);
            found.conditional_assign(&(index as u64), is_equal);
        }
        usize::try_from(found).ok().and_then(|index| self.digests.get(index)).map(|(_, person)| person)
    }
}

/// Shape of a line.
const SHAPE: &str = "expected `NAME ROLE [owner=OWNER] sha256:DIGEST`, or `cert:NAME` in place of the digest";

fn parse_line(line: &str) -> Result<(Proof, Person), String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let (name, role, rest) = match &words[..] {
        [name, role, rest @ ..] if !rest.is_empty() => (*name, *role, rest),
        _ => return Err(SHAPE.to_owned()),
    };
    check_word("name", name)?;
    let role: Role = role.parse().map_err(|error| format!("{} is no role: {error}", unless_token(role)))?;
    let (mut owner, mut proof) = (None, None);
    for word in rest {
        if let Some(text) = word.strip_prefix("owner=") {
            check_word("owner", text)?;
            if owner.replace(text.to_owned()).is_some() {
                return Err("it has two owners".to_owned());
            }
        } else if let Some(text) = word.strip_prefix(DIGEST) {
            let bytes = hex::decode_array::<32>(&text.to_ascii_lowercase());
            let bytes =
                bytes.ok_or_else(|| format!("the digest after {DIGEST} has not 64 hexadecimal digits"))?;
            if proof.replace(Proof::Digest(bytes)).is_some() {
                return Err("it has two digests".to_owned());
            }
        } else if let Some(name) = word.strip_prefix(CERTIFICATE) {
            let is_name = (1..=CERTIFICATE_CHARS_MAX).contains(&name.len())
                && name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'*');
            if !is_name {
                return Err(format!("{} is no name of one certificate", unless_token(name)));
            }
            if proof.replace(Proof::Certificate(name.to_ascii_lowercase())).is_some() {
                return Err("it has two digests".to_owned());
            }
        } else {
            return Err(format!("{} is neither `owner=…` nor `{DIGEST}…`: {SHAPE}", unless_token(word)));
        }
    }
    if owner.is_some() && role != Role::Operator {
        return Err(format!("a token of the role {role} has no owner: only an operator is limited to one"));
    }
    let proof = proof.ok_or_else(|| format!("the digest is missing: {SHAPE}"))?;
    Ok((proof, Person { name: name.to_owned(), role, owner }))
}

/// Quotes a word of a line, unless it may be the token itself, which must not get into a log.
fn unless_token(word: &str) -> String {
    match Token::new(word) {
        Ok(_) => "a word that may be the token itself".to_owned(),
        Err(InvalidToken) => quoted(word),
    }
}

/// Checks the name or the owner of a line.
fn check_word(what: &str, text: &str) -> Result<(), String> {
    let fault = check_name(what, text);
    // Generated tokens are too long for a name, and others may not be.
    if fault.is_ok() && text.starts_with(PREFIX) {
        return Err(format!("the {what} begins with {PREFIX}, as a token: {SHAPE}"));
    }
    fault.map_err(|_| format!("{} is no {what}: {NAME_SHAPE}", unless_token(text)))
}

/// Checks the name or the owner of a token.
///
/// # Errors
/// A text that says what is wrong.
pub fn check_name(what: &str, text: &str) -> Result<(), String> {
    let is_valid = (1..=NAME_CHARS_MAX).contains(&text.len())
        && text.bytes().all(|c| c.is_ascii_alphanumeric() || b"._@-".contains(&c));
    match is_valid {
        true => Ok(()),
        false => Err(format!("{} is no {what}: {NAME_SHAPE}", quoted(text))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn person(name: &str, role: Role, owner: Option<&str>) -> Person {
        Person { name: name.to_owned(), role, owner: owner.map(str::to_owned) }
    }

    fn parse(text: &str) -> Result<Tokens, FileError> {
        Tokens::parse(Path::new("tokens"), text)
    }

    #[test]
    fn generated_tokens_are_found_by_their_lines_and_no_others() {
        let people = [
            person("ann", Role::Admin, None),
            person("ci", Role::Operator, Some("team")),
            person("grafana", Role::Reader, None),
        ];
        let tokens: Vec<Token> = people.iter().map(|_| Token::generate().expect("random bytes")).collect();
        let lines: Vec<String> =
            tokens.iter().zip(&people).map(|(token, person)| token.line(person)).collect();
        let file = parse(&format!("# people\n\n  {}  \n", lines.join("\n"))).expect("valid");
        for (token, person) in tokens.iter().zip(&people) {
            assert_eq!(file.find(token), Some(person));
            assert!(!lines.concat().contains(token.secret_text()), "the file does not have the token");
            assert!(!format!("{token:?}").contains(token.secret_text()));
        }
        assert_eq!(file.find(&Token::generate().expect("random bytes")), None);
        assert_eq!(Tokens::default().find(&tokens[0]), None);
    }

    #[test]
    fn mistakes_are_named_with_their_line_and_what_is_expected() {
        let digest = "a".repeat(64);
        let good = format!("ann admin sha256:{digest}");
        let cases = [
            (format!("{good}\nann reader sha256:{}", "b".repeat(64)), "tokens:2: the name ann is in line 1"),
            (format!("{good}\nbob reader sha256:{digest}"), "tokens:2: the token is that of line 1"),
            (format!("# x\nann adm sha256:{digest}"), "tokens:2: \"adm\" is no role: expected `reader`"),
            (format!("ann sha256:{digest}"), "expected `NAME ROLE"),
            ("ann admin".to_owned(), "expected `NAME ROLE"),
            ("ann admin sha256:abc".to_owned(), "64 hexadecimal digits"),
            (format!("ann operator owner=t owner=u sha256:{digest}"), "two owners"),
            (format!("ann operator owner= sha256:{digest}"), "\"\" is no owner"),
            (format!("ann reader owner=t sha256:{digest}"), "only an operator"),
            (format!("ann admin sha256:{digest} sha256:{digest}"), "two digests"),
            (format!("an/n admin sha256:{digest}"), "\"an/n\" is no name"),
            ("ann admin cert:".to_owned(), "\"\" is no name of one certificate"),
            ("ann admin cert:*.example.com".to_owned(), "no name of one certificate"),
            (format!("ann admin cert:n1 sha256:{digest}"), "two digests"),
            (
                "ann admin cert:n1\nbob admin cert:N1".to_owned(),
                "tokens:2: the certificate is that of line 1",
            ),
            (format!("ann admin md5:1 sha256:{digest}"), "\"md5:1\" is neither"),
            ("# only a comment\n".to_owned(), "stormkeeper token new"),
        ];
        for (text, expected) in cases {
            let error = parse(&text).expect_err(&text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
        let token = Token::generate().expect("random bytes");
        let secret = token.secret_text();
        for line in [
            format!("ann admin {secret}"),
            format!("{secret} admin {good}"),
            format!("skt_123 admin {good}"),
            format!("ann {secret} sha256:{digest}"),
            format!("ann operator owner={secret} sha256:{digest}"),
            format!("ann admin cert:{secret}* sha256:{digest}"),
        ] {
            let error = parse(&line).expect_err("a token in the wrong place").to_string();
            assert!(!error.contains("skt_1") && !error.contains(secret), "it is not shown: {error}");
        }
        let many: String = (0..=TOKENS_MAX).map(|n| format!("n{n} reader sha256:{n:064x}\n")).collect();
        let error = parse(&many).expect_err("too many").to_string();
        assert!(error.contains("more than 10000 tokens"), "{error}");
    }

    #[test]
    fn what_cannot_be_a_token_is_refused() {
        for bad in ["", "short", "with a space in the middle", &"x".repeat(513), "ümlaut-in-a-token-text"] {
            assert_eq!(Token::new(bad), Err(InvalidToken), "{bad}");
        }
        assert!(Token::new(&"x".repeat(20)).is_ok());
    }
}
