//! Authorities and certificates of tests.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

use super::{TlsMode, TlsSettings};

/// Authority that signs certificates.
#[derive(Debug)]
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// Files of one certificate.
#[derive(Debug, Clone)]
pub struct CertificateFiles {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Authority {
    /// Makes an authority of this name.
    #[expect(clippy::new_without_default, reason = "each one differs")]
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        let key = KeyPair::generate().expect("random bytes");
        Self(CertifiedIssuer::self_signed(params, key).expect("signed"))
    }

    /// Writes the certificate of the authority to `path`.
    pub fn write(&self, path: &Path) {
        fs::write(path, self.0.pem()).expect("written");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).expect("set");
    }

    /// Writes a certificate for `names`, DNS names or addresses, that is valid until the end of 2098, and its
    /// key, as `{name}.crt` and `{name}.key` in `dir`. They replace those that are there.
    pub fn issue(&self, dir: &Path, name: &str, names: &[&str]) -> CertificateFiles {
        self.issue_until(2099, dir, name, names)
    }

    /// Writes a certificate that has been valid from 1990 until the end of the year before `year`.
    pub fn issue_until(&self, year: i32, dir: &Path, name: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(year, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let key = KeyPair::generate().expect("random bytes");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        let files = CertificateFiles {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
        };
        for (path, text, mode) in
            [(&files.key, key.serialize_pem(), 0o600), (&files.certificate, certificate.pem(), 0o644)]
        {
            fs::write(path, text).expect("written");
            fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("set");
        }
        files
    }
}

impl CertificateFiles {
    /// Returns the settings of a daemon with this certificate, which trusts the file `authorities`.
    pub fn settings(&self, mode: TlsMode, authorities: &Path) -> TlsSettings {
        TlsSettings {
            mode: Some(mode),
            certificate: Some(self.certificate.clone()),
            key: Some(self.key.clone()),
            authorities: Some(authorities.to_owned()),
            ..TlsSettings::default()
        }
    }
}
