//! rpc
pub mod bundle;
