//! Secrets of a topology, sealed: encrypted with a key of the cluster secret for the topology, so that
//! neither readers of the tree nor workers of another topology can read them.
//!
//! The cipher is AES-256-GCM with a random nonce. The id of the topology and the number of the change
//! are authenticated with it, so that sealed values cannot be moved to another topology.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};

use crate::{
    hex,
    secret::{Key, Secrets},
};
use stormkeeper_model::TopologyId;

/// Values that are encrypted.
#[derive(Clone, PartialEq, Eq)]
pub struct Sealed {
    /// Name of the key.
    pub key: String,
    /// Nonce, encrypted values and tag, as hexadecimal digits.
    pub data: String,
}

impl fmt::Debug for Sealed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealed({}, {} digits)", self.key, self.data.len())
    }
}

/// Reason why values cannot be sealed or opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealError {
    /// No key of the cluster secret has sealed them.
    #[error("they are encrypted with another cluster secret than those of storm.cluster.secret.file")]
    OtherSecret,
    /// They were changed, or belong to another topology.
    #[error("they were changed after they were encrypted, or belong to another topology")]
    Damaged,
    /// The system cannot encrypt, as without random bytes.
    #[error("the system cannot encrypt: it may have no random bytes")]
    Unavailable,
}

impl Secrets {
    /// Seals `values` of the change `number` of a topology with the first secret.
    ///
    /// # Errors
    /// [`SealError::Unavailable`].
    pub fn seal(&self, topology: &TopologyId, number: u64, values: &[u8]) -> Result<Sealed, SealError> {
        let keys = self.sealing_keys(topology);
        let key = keys.first().ok_or(SealError::Unavailable)?;
        let mut encrypted = values.to_vec();
        let nonce = cipher(key)?.seal_in_place_append_tag(about(topology, number), &mut encrypted);
        let nonce = nonce.map_err(|_| SealError::Unavailable)?;
        let data = hex::encode(nonce.as_ref()) + &hex::encode(&encrypted);
        Ok(Sealed { key: hex::encode(&key.name()), data })
    }

    /// Opens the values of the change `number` of a topology with any of the secrets.
    ///
    /// # Errors
    /// [`SealError`].
    pub fn open(&self, topology: &TopologyId, number: u64, sealed: &Sealed) -> Result<Vec<u8>, SealError> {
        let keys = self.sealing_keys(topology);
        let key = keys.iter().find(|key| hex::encode(&key.name()) == sealed.key);
        let key = key.ok_or(SealError::OtherSecret)?;
        let bytes = hex::decode(&sealed.data).ok_or(SealError::Damaged)?;
        let (nonce, encrypted) = bytes.split_at_checked(NONCE_LEN).ok_or(SealError::Damaged)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Damaged)?;
        let mut encrypted = encrypted.to_vec();
        let opened = cipher(key)?.open_in_place(nonce, about(topology, number), &mut encrypted);
        opened.map(|values| values.to_vec()).map_err(|_| SealError::Damaged)
    }

    /// Returns whether the first secret has sealed values of a topology; `None` if none of them has.
    pub fn is_sealed_by_first(&self, topology: &TopologyId, sealed: &Sealed) -> Option<bool> {
        let mut keys = self.sealing_keys(topology).into_iter();
        keys.position(|key| hex::encode(&key.name()) == sealed.key).map(|position| position == 0)
    }
}

fn cipher(key: &Key) -> Result<RandomizedNonceKey, SealError> {
    RandomizedNonceKey::new(&AES_256_GCM, key.bytes()).map_err(|_| SealError::Unavailable)
}

/// Data that is authenticated with the values.
fn about(topology: &TopologyId, number: u64) -> Aad<Vec<u8>> {
    // The number has a fixed length, so two different pairs are different.
    let mut about = b"stormkeeper credentials 1\0".to_vec();
    about.extend(number.to_be_bytes());
    about.extend(topology.as_str().as_bytes());
    Aad::from(about)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn secrets(lines: &[&str]) -> Secrets {
        let lines: Vec<String> = lines.iter().map(|line| line.repeat(32)).collect();
        Secrets::parse(Path::new("secret"), &lines.join("\n")).expect("valid")
    }

    fn topology(id: &str) -> TopologyId {
        id.parse().expect("valid")
    }

    #[test]
    fn values_are_opened_with_the_secret_that_sealed_them_and_no_other() {
        let (wc, values) = (topology("wc-1-1"), b"{\"db\":\"s3cr3t\"}");
        let (a, both, b) = (secrets(&["a"]), secrets(&["b", "a"]), secrets(&["b"]));
        let sealed = a.seal(&wc, 7, values).expect("sealed");
        assert_eq!(a.open(&wc, 7, &sealed).as_deref(), Ok(&values[..]));
        assert_eq!(both.open(&wc, 7, &sealed).as_deref(), Ok(&values[..]), "the secret before is accepted");
        assert_eq!(b.open(&wc, 7, &sealed), Err(SealError::OtherSecret));
        assert_eq!(
            [&a, &both, &b].map(|secrets| secrets.is_sealed_by_first(&wc, &sealed)),
            [Some(true), Some(false), None]
        );
        let again = a.seal(&wc, 7, values).expect("sealed");
        assert_ne!(sealed.data, again.data, "each time with another nonce");
        let hidden = hex::encode(b"s3cr3t");
        assert!(!sealed.data.contains(&hidden) && !format!("{sealed:?}").contains(&sealed.data));
    }

    #[test]
    fn values_of_another_topology_another_change_or_with_a_changed_byte_are_refused() {
        let (wc, secrets) = (topology("wc-1-1"), secrets(&["a"]));
        let sealed = secrets.seal(&wc, 7, b"values").expect("sealed");
        assert_eq!(secrets.open(&wc, 8, &sealed), Err(SealError::Damaged));
        assert_eq!(secrets.open(&topology("wc-2-1"), 7, &sealed), Err(SealError::OtherSecret));
        // The name of the key is no secret: somebody who writes the tree can copy the record under it.
        let other = secrets.seal(&topology("wc-2-1"), 7, b"values").expect("sealed");
        let forged = Sealed { key: sealed.key.clone(), data: other.data };
        assert_eq!(secrets.open(&wc, 7, &forged), Err(SealError::Damaged));
        for at in 0..sealed.data.len() {
            let mut data = sealed.data.clone().into_bytes();
            data[at] = if data[at] == b'0' { b'1' } else { b'0' };
            let data = String::from_utf8(data).expect("digits");
            assert_eq!(secrets.open(&wc, 7, &Sealed { data, ..sealed.clone() }), Err(SealError::Damaged));
        }
        for data in ["", "00", "zz", &sealed.data[..24]] {
            let cut = Sealed { data: data.to_owned(), ..sealed.clone() };
            assert_eq!(secrets.open(&wc, 7, &cut), Err(SealError::Damaged));
        }
    }

    #[test]
    fn key_of_a_worker_opens_nothing() {
        let (wc, secrets) = (topology("wc-1-1"), secrets(&["a"]));
        let (sealing, worker) = (secrets.sealing_keys(&wc), secrets.worker_keys(&wc));
        assert_ne!(sealing, worker, "not even of its own topology");
    }
}
