//! Signature of a request: the header `Authorization` of daemons and workers.
//!
//! ```text
//! Authorization: Stormkeeper v=1,as=daemon,id=…,time=…,nonce=…,digest=…,for=…,mac=…
//! ```
//!
//! The MAC is over the address of the nimbus, the method, the path with its query, and all fields before
//! it; `digest` is the SHA-256 of the body. Ids and names are in hexadecimal digits, so that they have no
//! separator. A nimbus of a build before signatures ignores the header.

use sha2::{Digest as _, Sha256};

use crate::{
    hex,
    nonces::Nonce,
    principal::{Person, Principal},
    secret::Key,
};
use stormkeeper_model::{Timestamp, TopologyId};

/// Scheme of the header.
pub const SCHEME: &str = "Stormkeeper ";

/// Maximum bytes of a header with a signature.
const HEADER_BYTES_MAX: usize = 4096;

/// Version of the format.
const VERSION: &str = "1";

/// Head of a request, as far as it is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Head<'a> {
    /// Address of the nimbus, `host:port`.
    pub to: &'a str,
    /// HTTP method.
    pub method: &'a str,
    /// Path with its query.
    pub path: &'a str,
}

/// Sender of a signed request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sender {
    /// Daemon, by its own statement of this name.
    Daemon(String),
    /// Worker of a topology.
    Worker(TopologyId),
}

impl Sender {
    fn fields(&self) -> (&'static str, &str) {
        match self {
            Self::Daemon(name) => ("daemon", name),
            Self::Worker(topology) => ("worker", topology.as_str()),
        }
    }
}

/// Digest of the body of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyDigest {
    /// SHA-256 of the body.
    Sha256([u8; 32]),
    /// The path names the SHA-256 of the body, which is sent while it is read.
    InPath,
}

impl BodyDigest {
    /// Digest of a whole body.
    pub fn of(body: &[u8]) -> Self {
        Self::Sha256(Sha256::digest(body).into())
    }

    fn text(self) -> String {
        match self {
            Self::Sha256(digest) => hex::encode(&digest),
            Self::InPath => "path".to_owned(),
        }
    }

    fn parse(text: &str) -> Option<Self> {
        match text {
            "path" => Some(Self::InPath),
            digits => hex::decode_array(digits).map(Self::Sha256),
        }
    }
}

/// Fields of a signature, besides the MAC.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claims {
    /// Sender.
    pub sender: Sender,
    /// Time of the sender.
    pub time: Timestamp,
    /// Random number of the request.
    pub nonce: Nonce,
    /// Digest of the body.
    pub digest: BodyDigest,
    /// Principal on whose behalf a daemon forwards the request.
    pub on_behalf_of: Option<Principal>,
}

impl Claims {
    /// Returns the value of the header.
    pub fn sign(&self, head: Head<'_>, key: &Key) -> String {
        let fields = self.fields();
        let mac = key.sign(&signed_parts(head, &fields));
        format!("{SCHEME}{fields},mac={}", hex::encode(&mac))
    }

    fn fields(&self) -> String {
        let (kind, id) = self.sender.fields();
        let behalf = self.on_behalf_of.as_ref().map(behalf_text).unwrap_or_else(|| "-".to_owned());
        format!(
            "v={VERSION},as={kind},id={},time={},nonce={},digest={},for={behalf}",
            hex::encode(id.as_bytes()),
            self.time.as_millis(),
            hex::encode(&self.nonce),
            self.digest.text(),
        )
    }
}

fn signed_parts<'a>(head: Head<'a>, fields: &'a str) -> [&'a [u8]; 5] {
    let Head { to, method, path } = head;
    [b"stormkeeper request 1", to.as_bytes(), method.as_bytes(), path.as_bytes(), fields.as_bytes()]
}

fn behalf_text(principal: &Principal) -> String {
    match principal {
        // A daemon forwards for people only.
        Principal::Anyone | Principal::Daemon(_) | Principal::Worker(_) => "anyone".to_owned(),
        Principal::Person(Person { name, role, owner }) => {
            let owner = owner.as_ref().map_or("-".to_owned(), |owner| hex::encode(owner.as_bytes()));
            format!("{role}:{}:{owner}", hex::encode(name.as_bytes()))
        }
    }
}

fn parse_behalf(text: &str) -> Option<Option<Principal>> {
    let utf8 = |digits: &str| String::from_utf8(hex::decode(digits)?).ok();
    match text {
        "-" => Some(None),
        "anyone" => Some(Some(Principal::Anyone)),
        person => {
            let mut parts = person.splitn(3, ':');
            let (role, name, owner) = (parts.next()?.parse().ok()?, utf8(parts.next()?)?, parts.next()?);
            let owner = match owner {
                "-" => None,
                digits => Some(utf8(digits)?),
            };
            Some(Some(Principal::Person(Person { name, role, owner })))
        }
    }
}

/// Signature of a request as received, not verified yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    fields: String,
    mac: Vec<u8>,
    claims: Claims,
}

impl Signature {
    /// Parses the header without its scheme; `None` for any text that no build of this version sends.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() > HEADER_BYTES_MAX {
            return None;
        }
        let (fields, mac) = text.rsplit_once(",mac=")?;
        let mut parts = fields.split(',');
        let mut next = |name: &str| parts.next()?.strip_prefix(name)?.strip_prefix('=');
        if next("v")? != VERSION {
            return None;
        }
        let kind = next("as")?;
        let id = String::from_utf8(hex::decode(next("id")?)?).ok()?;
        let sender = match kind {
            "daemon" => Sender::Daemon(id),
            "worker" => Sender::Worker(id.parse().ok()?),
            _ => return None,
        };
        let time = Timestamp::from_millis(next("time")?.parse().ok()?);
        let nonce = hex::decode_array(next("nonce")?)?;
        let digest = BodyDigest::parse(next("digest")?)?;
        let on_behalf_of = parse_behalf(next("for")?)?;
        if parts.next().is_some() {
            return None;
        }
        let claims = Claims { sender, time, nonce, digest, on_behalf_of };
        Some(Self { fields: fields.to_owned(), mac: hex::decode(mac)?, claims })
    }

    /// Its fields, which nobody has verified.
    pub fn unverified(&self) -> &Claims {
        &self.claims
    }

    /// Returns the fields if the signature of `head` is that of one of `keys`.
    pub fn verified(&self, head: Head<'_>, keys: &[Key]) -> Option<&Claims> {
        let parts = signed_parts(head, &self.fields);
        keys.iter().any(|key| key.verify(&parts, &self.mac)).then_some(&self.claims)
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;
    use crate::{principal::Role, secret::Secrets};

    const HEAD: Head<'_> = Head { to: "n1:8080", method: "POST", path: "/api/v1/metrics/ingest?x=1" };

    fn claims(sender: Sender, on_behalf_of: Option<Principal>) -> Claims {
        let digest = BodyDigest::of(b"body");
        Claims {
            sender,
            time: Timestamp::from_millis(1_700_000_000_000),
            nonce: [7; 16],
            digest,
            on_behalf_of,
        }
    }

    fn keys() -> Vec<Key> {
        Secrets::parse(Path::new("x"), &"k".repeat(32)).expect("valid").daemon_keys()
    }

    fn received(header: &str) -> Signature {
        Signature::parse(header.strip_prefix(SCHEME).expect("the scheme")).expect("valid")
    }

    #[test]
    fn signed_fields_arrive_whatever_the_names_contain() {
        let ann = |owner: Option<&str>| {
            let owner = owner.map(str::to_owned);
            Some(Principal::Person(Person { name: "ann,mac=0".to_owned(), role: Role::Operator, owner }))
        };
        let topology = Sender::Worker("größe-1-1".parse().expect("valid"));
        for claims in [
            claims(Sender::Daemon("größe,mac=1".to_owned()), None),
            claims(Sender::Daemon("n1".to_owned()), ann(Some("a:b,-"))),
            claims(Sender::Daemon("n1".to_owned()), ann(None)),
            claims(Sender::Daemon("n1".to_owned()), Some(Principal::Anyone)),
            claims(topology, None),
        ] {
            let header = claims.sign(HEAD, &keys()[0]);
            assert!(header.is_ascii());
            assert_eq!(received(&header).verified(HEAD, &keys()), Some(&claims), "{header}");
        }
    }

    #[test]
    fn signature_of_another_request_or_key_is_none() {
        let header = claims(Sender::Daemon("n1".to_owned()), None).sign(HEAD, &keys()[0]);
        let signature = received(&header);
        for other in [
            Head { to: "n2:8080", ..HEAD },
            Head { method: "PUT", ..HEAD },
            Head { path: "/api/v1/metrics/ingest?x=2", ..HEAD },
            Head { to: "n1:8080P", method: "OST", ..HEAD },
        ] {
            assert_eq!(signature.verified(other, &keys()), None, "{other:?}");
        }
        let other = Secrets::parse(Path::new("x"), &"z".repeat(32)).expect("valid").daemon_keys();
        assert_eq!(signature.verified(HEAD, &other), None);
        assert_eq!(signature.verified(HEAD, &[]), None);
        let both = [other, keys()].concat();
        assert!(signature.verified(HEAD, &both).is_some(), "each of the secrets is accepted");
        for (from, to) in [("as=daemon", "as=worker"), ("time=17", "time=18"), ("for=-", "for=anyone")] {
            let changed = header.replace(from, to);
            assert_ne!(changed, header);
            assert_eq!(received(&changed).verified(HEAD, &keys()), None, "{changed}");
        }
    }

    #[test]
    fn text_of_another_shape_is_no_signature() {
        let header = claims(Sender::Daemon("n1".to_owned()), None).sign(HEAD, &keys()[0]);
        let good = header.strip_prefix(SCHEME).expect("the scheme");
        assert!(Signature::parse(good).is_some());
        let long = format!("{good}{}", "0".repeat(5000));
        for bad in [
            "",
            "mac=00",
            &good.replace("v=1", "v=2"),
            &good.replace("as=daemon", "as=admin"),
            &good.replace("time=", "time=-"),
            &good.replace(",for=-", ""),
            &good.replace(",for=-", ",for=root:6e:-"),
            &good.replace(",mac", ",x=1,mac"),
            &good.replace("digest=", "digest=x"),
            &long,
        ] {
            assert_eq!(Signature::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn any_text_is_parsed_without_a_panic(text in "(v=1,as=(daemon|worker),id=)?[a-z0-9=,ü-]{0,80}") {
            let _parsed = Signature::parse(&text);
        }
    }
}
