//! Files in PEM, told apart by what they have before their modes and their contents are looked at.

use std::{io, path::Path};

use crate::file::{self, FileError, Protection};

/// Kinds of sections in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Sections {
    certificates: bool,
    keys: bool,
    requests: bool,
}

impl Sections {
    fn of(text: &str) -> Self {
        Self {
            certificates: text.contains("-----BEGIN CERTIFICATE-----"),
            // Also `EC PRIVATE KEY` and the like.
            keys: text.contains("PRIVATE KEY-----"),
            requests: text.contains("CERTIFICATE REQUEST-----"),
        }
    }

    /// Nobody else may read a key, whatever is beside it.
    fn protection(self) -> Protection {
        if self.keys { Protection::Secret } else { Protection::Unchanged }
    }
}

/// Reads a file of certificates, which nobody but its owner may change, nor read if it has a key too.
///
/// # Errors
/// [`FileError`]; of a file that has something else it says what.
pub fn read_certificates(path: &Path) -> Result<String, FileError> {
    let read = file::read_checked(path, |text| {
        let sections = Sections::of(text);
        match sections {
            Sections { certificates: false, keys: true, .. } => {
                Err("it has a private key and no certificate: it is the file of the key, or the wrong one"
                    .to_owned())
            }
            Sections { certificates: false, requests: true, .. } => {
                Err("it has the request for a certificate: an authority must sign it first".to_owned())
            }
            sections => Ok(sections.protection()),
        }
    });
    read.map_err(|error| explain_der(error, "a certificate in DER", "x509"))
}

/// Reads a certificate and its key, in this order.
///
/// # Errors
/// [`FileError`]; of two files that are swapped it says that.
pub fn read_pair(certificate: &Path, key: &Path) -> Result<(String, String), FileError> {
    if is_swapped(certificate, key) {
        let fault = format!(
            "it has the private key, and {} has the certificate: the two files are swapped",
            key.display()
        );
        return Err(FileError::Content { path: certificate.to_owned(), fault });
    }
    Ok((read_certificates(certificate)?, read_key(key)?))
}

fn read_key(path: &Path) -> Result<String, FileError> {
    let read = file::read_checked(path, |text| match Sections::of(text) {
        Sections { certificates: true, keys: false, .. } => {
            Err("it has a certificate and no private key: it is the wrong file".to_owned())
        }
        _ => Ok(Protection::Secret),
    });
    read.map_err(|error| explain_der(error, "a key in DER", "pkey"))
}

/// Says of a file that is no text what it may be.
fn explain_der(error: FileError, kind: &str, command: &str) -> FileError {
    match error {
        FileError::Read { path, source } if source.kind() == io::ErrorKind::InvalidData => {
            let fault = format!("it is no text, as {kind}: convert it with `openssl {command} -inform der`");
            FileError::Content { path, fault }
        }
        error => error,
    }
}

fn is_swapped(certificate: &Path, key: &Path) -> bool {
    // Whatever cannot be read is reported by the reading that follows.
    let sections =
        |path| file::read_checked(path, |_| Ok(Protection::None)).ok().map(|text| Sections::of(&text));
    let (Some(certificate), Some(key)) = (sections(certificate), sections(key)) else { return false };
    certificate.keys && !certificate.certificates && key.certificates && !key.keys
}
