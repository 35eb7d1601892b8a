//! Parts of a program whose log has a level of its own, which can be changed while it runs.
//!
//! What is logged between [`LogScope::enter`] and the drop of its guard, on that thread, follows the level of
//! the scope if it has one, and the filter of the process otherwise. While no scope of the process has a
//! level, the filter alone decides, and a line that it rejects costs what it did before.

use std::{
    cell::RefCell,
    marker::PhantomData,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicUsize, Ordering},
    },
};

use tracing::{Level, Metadata, Subscriber, level_filters::LevelFilter, span, subscriber::Interest};
use tracing_subscriber::{
    EnvFilter,
    layer::{Context, Filter},
};

/// Number of scopes of this process that have a level.
static N_WITH_LEVEL: AtomicUsize = AtomicUsize::new(0);

thread_local! {
    static CURRENT: RefCell<Option<LogScope>> = const { RefCell::new(None) };
}

/// A part of the program. Clones are the same part.
#[derive(Debug, Clone, Default)]
pub struct LogScope(Arc<Shared>);

// The level as a number from 1, error, to 5, trace; 0 without one.
#[derive(Debug, Default)]
struct Shared(AtomicU8);

impl Drop for Shared {
    fn drop(&mut self) {
        if *self.0.get_mut() != 0 {
            N_WITH_LEVEL.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn number_of(level: Level) -> u8 {
    match level {
        Level::ERROR => 1,
        Level::WARN => 2,
        Level::INFO => 3,
        Level::DEBUG => 4,
        Level::TRACE => 5,
    }
}

impl LogScope {
    /// Sets the level; without one, the filter of the process holds.
    pub fn set(&self, level: Option<Level>) {
        let next = level.map_or(0, number_of);
        let before = self.0.0.swap(next, Ordering::Relaxed);
        match (before, next) {
            (0, 1..) => drop(N_WITH_LEVEL.fetch_add(1, Ordering::Relaxed)),
            (1.., 0) => drop(N_WITH_LEVEL.fetch_sub(1, Ordering::Relaxed)),
            (_, _) => return,
        }
        // Lines that no filter let through may be wanted now.
        tracing::callsite::rebuild_interest_cache();
    }

    /// Lets what this thread logs belong to the scope, until the guard is dropped.
    pub fn enter(&self) -> Entered {
        let before = CURRENT.with(|current| current.replace(Some(self.clone())));
        Entered { before, not_send: PhantomData }
    }
}

/// Guard of [`LogScope::enter`].
#[derive(Debug)]
pub struct Entered {
    before: Option<LogScope>,
    // The scope is of this thread.
    not_send: PhantomData<*const ()>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        CURRENT.with(|current| *current.borrow_mut() = self.before.take());
    }
}

/// Returns the number of the level of this thread's scope, if it has one.
fn current() -> Option<u8> {
    if N_WITH_LEVEL.load(Ordering::Relaxed) == 0 {
        return None;
    }
    // A line that is logged while the scope changes, or the thread ends, has none.
    let level = CURRENT.try_with(|current| {
        let current = current.try_borrow().ok()?;
        Some(current.as_ref()?.0.0.load(Ordering::Relaxed))
    });
    level.ok().flatten().filter(|level| *level != 0)
}

/// Filter of a log: the filter of the process, and the levels of scopes.
pub(crate) struct ScopedFilter(pub(crate) EnvFilter);

impl<S: Subscriber> Filter<S> for ScopedFilter {
    fn enabled(&self, metadata: &Metadata<'_>, context: &Context<'_, S>) -> bool {
        match current() {
            Some(level) => number_of(*metadata.level()) <= level,
            None => Filter::enabled(&self.0, metadata, context),
        }
    }

    fn callsite_enabled(&self, metadata: &'static Metadata<'static>) -> Interest {
        match N_WITH_LEVEL.load(Ordering::Relaxed) {
            0 => Filter::<S>::callsite_enabled(&self.0, metadata),
            _ => {
                // The filter of the process gets to know its spans all the same.
                let _interest = Filter::<S>::callsite_enabled(&self.0, metadata);
                Interest::sometimes()
            }
        }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        match N_WITH_LEVEL.load(Ordering::Relaxed) {
            0 => Filter::<S>::max_level_hint(&self.0),
            _ => Some(LevelFilter::TRACE),
        }
    }

    fn on_new_span(&self, attrs: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        Filter::on_new_span(&self.0, attrs, id, context);
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        Filter::on_record(&self.0, id, values, context);
    }

    fn on_enter(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_enter(&self.0, id, context);
    }

    fn on_exit(&self, id: &span::Id, context: Context<'_, S>) {
        Filter::on_exit(&self.0, id, context);
    }

    fn on_close(&self, id: span::Id, context: Context<'_, S>) {
        Filter::on_close(&self.0, id, context);
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io,
        sync::{Mutex, PoisonError},
    };

    use tracing::{debug, error, info, trace};
    use tracing_subscriber::{Layer as _, layer::SubscriberExt as _};

    use super::*;

    #[derive(Clone, Default)]
    struct Log(Arc<Mutex<Vec<u8>>>);

    impl Log {
        fn take(&self) -> String {
            let bytes = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
            String::from_utf8(bytes).expect("UTF-8")
        }
    }

    impl io::Write for Log {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_all(who: &str) {
        error!("{who} error");
        info!("{who} info");
        debug!("{who} debug");
        trace!("{who} trace");
    }

    #[test]
    fn level_of_a_scope_replaces_the_filter_within_it_and_nowhere_else_until_it_is_taken_back() {
        let log = Log::default();
        let written = log.clone();
        let layer = tracing_subscriber::fmt::layer()
            .with_writer(move || written.clone())
            .with_ansi(false)
            .without_time()
            .with_target(false)
            .with_level(false)
            .with_filter(ScopedFilter(EnvFilter::new("info")));
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            let (split, count) = (LogScope::default(), LogScope::default());
            let round = || {
                log_all("worker");
                {
                    let _entered = split.enter();
                    log_all("split");
                    let _inner = count.enter();
                    log_all("count");
                }
                log_all("worker");
                log.take().split('\n').map(str::to_owned).filter(|line| !line.is_empty()).collect::<Vec<_>>()
            };
            let usual = ["worker error", "worker info"];
            let both = |between: &[&'static str]| [&usual, between, &usual].concat();
            let without = both(&["split error", "split info", "count error", "count info"]);
            assert_eq!(round(), without);
            split.set(Some(Level::DEBUG));
            count.set(Some(Level::ERROR));
            assert_eq!(round(), both(&["split error", "split info", "split debug", "count error"]));
            split.set(Some(Level::TRACE));
            count.set(None);
            let traced = ["split error", "split info", "split debug", "split trace"];
            assert_eq!(round(), both(&[&traced[..], &["count error", "count info"]].concat()));
            split.set(None);
            assert_eq!(round(), without);
        });
    }
}
