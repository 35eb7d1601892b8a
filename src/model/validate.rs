//! Whether a topology can run.
