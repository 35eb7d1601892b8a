//! How something stands: the last value that was set, or what a closure says when it is read.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

use super::Shared;

/// Bits of a NaN that stands for "never set"; other NaNs are refused as well.
const UNSET: u64 = u64::MAX;

/// A value that is set, or asked for at each cut.
#[derive(Clone)]
pub struct Gauge(Arc<Inner>);

struct Inner {
    on: AtomicBool,
    value: Value,
    shared: Shared,
}

enum Value {
    Set(AtomicU64),
    Asked(Box<dyn Fn() -> Option<f64> + Send + Sync>),
}

impl Gauge {
    /// One that stands at nothing until it is set.
    pub fn new(shared: &Shared) -> Self {
        Self::switched(true, Value::Set(AtomicU64::new(UNSET)), shared)
    }

    /// One that asks `read` at each cut; it must answer at once.
    pub fn asking(read: impl Fn() -> Option<f64> + Send + Sync + 'static, shared: &Shared) -> Self {
        Self::switched(true, Value::Asked(Box::new(read)), shared)
    }

    fn switched(on: bool, value: Value, shared: &Shared) -> Self {
        Self(Arc::new(Inner { on: AtomicBool::new(on), value, shared: shared.clone() }))
    }

    /// It stands at `value` now. What is no finite number is refused and counted; it stays
    /// where it was.
    #[inline]
    pub fn set(&self, value: f64) {
        if !self.0.on.load(Ordering::Relaxed) {
            return;
        }
        if !value.is_finite() {
            return self.0.shared.refuse();
        }
        match &self.0.value {
            Value::Set(bits) => bits.store(value.to_bits(), Ordering::Relaxed),
            // It says itself how it stands.
            Value::Asked(_) => {}
        }
    }

    /// How it stands, when it was ever set and is on.
    pub fn read(&self) -> Option<f64> {
        if !self.0.on.load(Ordering::Relaxed) {
            return None;
        }
        let value = match &self.0.value {
            Value::Set(bits) => match bits.load(Ordering::Relaxed) {
                UNSET => None,
                bits => Some(f64::from_bits(bits)),
            },
            Value::Asked(read) => read(),
        }?;
        if !value.is_finite() {
            self.0.shared.refuse();
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
