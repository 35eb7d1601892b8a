//! Rights of the senders of requests.
//!
//! | principal | proof | module |
//! | --- | --- | --- |
//! | person or program | token, of which `ui.tokens.file` has the digest | [`token`] |
//! | daemon | signature with a key of the cluster secret | [`secret`], [`signature`] |
//! | worker | signature with the key of its topology | [`secret`], [`signature`] |
//!
//! [`sealed`] encrypts the credentials of topologies with keys of the cluster secret, [`quota`] limits what
//! an owner has.
//!
//! [`credentials`] is the side of the sender, [`gate`] that of the nimbus. [`gate::Gate`] returns who
//! sent a request; what a request needs is decided by the routes of the nimbus. [`exposure`] decides
//! where a daemon may listen.

pub mod credentials;
pub mod exposure;
pub mod file;
pub mod gate;
pub mod hex;
pub mod locks;
mod nonces;
pub mod principal;
pub mod quota;
pub mod refusals;
pub mod sealed;
pub mod secret;
pub mod signature;
pub mod tls;
pub mod token;
