//! Sums over the cluster view, computed once for each view however many ask.

use std::sync::{Arc, Mutex, PoisonError};

use stormkeeper_coordination::cluster::view::ClusterView;
use stormkeeper_storm_api::Totals;

/// The sums of the view for which they were last asked. It keeps this one view alive.
#[derive(Debug, Default)]
pub(crate) struct TotalsOfView(Mutex<Option<(Arc<ClusterView>, Arc<Totals>)>>);

impl TotalsOfView {
    /// Returns the sums of `view`. Others that ask at the same time wait for them.
    pub(crate) fn of(&self, view: &Arc<ClusterView>) -> Arc<Totals> {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, totals)) = &*last
            && Arc::ptr_eq(of, view)
        {
            return Arc::clone(totals);
        }
        let totals = Arc::new(Totals::of(view));
        *last = Some((Arc::clone(view), Arc::clone(&totals)));
        totals
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_are_computed_once_for_a_view_and_again_for_the_next() {
        let (cache, first) = (TotalsOfView::default(), Arc::new(ClusterView::default()));
        let next = Arc::new(ClusterView::default());
        let totals = cache.of(&first);
        assert!(Arc::ptr_eq(&totals, &cache.of(&first)));
        assert!(!Arc::ptr_eq(&totals, &cache.of(&next)));
    }
}
