//! Shared fixtures for tests of clients of nimbus.

pub(crate) mod leader;
