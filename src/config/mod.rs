//! `storm.yaml`, command line and environment over defaults.

pub mod yaml;
