//! Current value of a quantity: the last value that was set, or the result of a closure.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::Shared;

/// Bits of the NaN that means "never set"; `set` rejects every NaN.
const UNSET: u64 = u64::MAX;

/// A value that is set, or computed at each report.
#[derive(Clone)]
pub struct Gauge(Arc<Inner>);

struct Inner {
    on: AtomicBool,
    value: Value,
    shared: Shared,
}

enum Value {
    Set(AtomicU64),
    Computed(Box<dyn Fn() -> Option<f64> + Send + Sync>),
}

impl Gauge {
    /// A gauge without a value until the first `set`.
    pub fn new(shared: &Shared) -> Self {
        Self::switched(true, Value::Set(AtomicU64::new(UNSET)), shared)
    }

    /// A gauge that calls `read` at each report; `read` must not block.
    pub fn asking(read: impl Fn() -> Option<f64> + Send + Sync + 'static, shared: &Shared) -> Self {
        Self::switched(true, Value::Computed(Box::new(read)), shared)
    }

    fn switched(on: bool, value: Value, shared: &Shared) -> Self {
        Self(Arc::new(Inner { on: AtomicBool::new(on), value, shared: shared.clone() }))
    }

    /// Sets the value. A value that is not finite is rejected and counted, and the gauge keeps
    /// the value before.
    #[inline]
    pub fn set(&self, value: f64) {
        if !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        if !value.is_finite() {
            return self.0.shared.reject();
        }
        match &self.0.value {
            Value::Set(bits) => bits.store(value.to_bits(), Ordering::Relaxed),
            // The closure supplies the value.
            Value::Computed(_) => {}
        }
    }

    /// Returns the value, if it was ever set and the gauge is enabled.
    pub fn read(&self) -> Option<f64> {
        if !self.0.on.load(Ordering::Relaxed) {
            return None;
        }
        let value = match &self.0.value {
            Value::Set(bits) => match bits.load(Ordering::Relaxed) {
                UNSET => None,
                bits => Some(f64::from_bits(bits)),
            },
            Value::Computed(read) => read(),
        }?;
        if !value.is_finite() {
            self.0.shared.reject();
            return None;
        }
        Some(value)
    }

    pub(crate) fn switch(&self, on: bool) {
        self.0.on.store(on, Ordering::Relaxed);
    }
}

impl fmt::Debug for Gauge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Gauge").field("on", &self.0.on).finish_non_exhaustive()
    }
}
