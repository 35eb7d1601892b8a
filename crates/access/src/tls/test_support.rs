//! Authorities and certificates of tests.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::Duration,
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    date_time_ymd,
};

use super::{TlsMode, TlsSettings};
use stormkeeper_model::clock::Clock;

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
    /// The first of its names.
    pub host: String,
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
        self.issue_with(|params| params.not_after = date_time_ymd(year, 1, 1), dir, (name, names))
    }

    /// Writes a certificate that is valid from the beginning of `year`.
    pub fn issue_from(&self, year: i32, dir: &Path, name: &str, names: &[&str]) -> CertificateFiles {
        self.issue_with(|params| params.not_before = date_time_ymd(year, 1, 1), dir, (name, names))
    }

    /// Writes a certificate that expires after `life`.
    pub fn issue_for(&self, life: Duration, dir: &Path, name: &str, names: &[&str]) -> CertificateFiles {
        let since_1970 = Duration::from_millis(Clock::new().now().as_millis());
        let until = date_time_ymd(1970, 1, 1) + since_1970 + life;
        self.issue_with(|params| params.not_after = until, dir, (name, names))
    }

    /// Writes a certificate that clients must not show.
    pub fn issue_for_servers(&self, dir: &Path, name: &str, names: &[&str]) -> CertificateFiles {
        let is_for_servers = |one: &ExtendedKeyUsagePurpose| *one == ExtendedKeyUsagePurpose::ServerAuth;
        self.issue_with(|params| params.extended_key_usages.retain(is_for_servers), dir, (name, names))
    }

    fn issue_with(
        &self,
        change: impl FnOnce(&mut CertificateParams),
        dir: &Path,
        (name, names): (&str, &[&str]),
    ) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let host = names[0].clone();
        let mut params = CertificateParams::new(names).expect("valid names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_before = date_time_ymd(1990, 1, 1);
        params.not_after = date_time_ymd(2099, 1, 1);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        change(&mut params);
        let key = KeyPair::generate().expect("random bytes");
        let certificate = params.signed_by(&key, &self.0).expect("signed");
        let files = CertificateFiles {
            certificate: dir.join(format!("{name}.crt")),
            key: dir.join(format!("{name}.key")),
            host: host.clone(),
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
            host: self.host.clone(),
            ..TlsSettings::default()
        }
    }
}
