//! What tests of those who call nimbus share.

pub(crate) mod leader;
