//! Users and certificates that a process presents to ZooKeeper, in files that are read again when they
//! change.
//!
//! [`tls::TlsFiles`] has the certificates, [`users`] the names and passwords. Both keep the last good
//! content in force while a changed file cannot be used, and say why.

pub mod tls;
pub mod users;
