//! The metric memory of a nimbus: what was measured, for how long it is kept, and what is still
//! to be sent to external stores. `docs/design/metrics.md` tells how it works.
