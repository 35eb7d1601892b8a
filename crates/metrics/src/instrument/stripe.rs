//! Stripes of an instrument, as in Java's `LongAdder`: each thread adds to its own.
//!
//! Each of the first threads owns a stripe until the thread ends. No other thread writes there, so
//! adding is a load and a store on a cache line of its own: a quarter of the cost of an atomic
//! addition. Threads that find no free stripe share the last stripe, and add to it atomically.

use std::{
    cell::Cell,
    sync::{Mutex, PoisonError},
};

/// Number of stripes, the shared one included: as many as the runtime of a worker on a usual
/// machine has threads; at one cache line each at most 1 KiB per counter.
pub(super) const STRIPES: usize = 16;

/// The stripe of all threads that own none.
pub(super) const SHARED: usize = STRIPES - 1;

const UNKNOWN: usize = usize::MAX;

/// The stripes that no thread owns, as bits. Claiming and releasing under this lock also makes the
/// writes of the last owner visible to the next owner.
static FREE: Mutex<u32> = Mutex::new((1 << SHARED) - 1);

thread_local! {
    static MINE: Cell<usize> = const { Cell::new(UNKNOWN) };
    static OWNED: Owned = registration();
}

/// A stripe that its thread releases when the thread ends.
struct Owned(usize);

impl Drop for Owned {
    fn drop(&mut self) {
        // Additions after this point, in another destructor of the thread, use the shared stripe.
        MINE.set(SHARED);
        if self.0 != SHARED {
            *FREE.lock().unwrap_or_else(PoisonError::into_inner) |= 1 << self.0;
        }
    }
}

fn registration() -> Owned {
    let mut free = FREE.lock().unwrap_or_else(PoisonError::into_inner);
    if *free == 0 {
        return Owned(SHARED);
    }
    let stripe = free.trailing_zeros() as usize;
    *free &= !(1 << stripe);
    Owned(stripe)
}

/// Index of the calling thread's stripe, below [`STRIPES`].
#[inline]
pub(super) fn of_this_thread() -> usize {
    match MINE.get() {
        UNKNOWN => first_time(),
        stripe => stripe,
    }
}

#[cold]
fn first_time() -> usize {
    let stripe = OWNED.try_with(|owned| owned.0).unwrap_or(SHARED);
    MINE.set(stripe);
    stripe
}
