//! The acker's ledger: the trees that are not complete. Pure; `rotate` is its clock.
//!
//! A tree is complete when every edge was xored into it twice, once when its delivery began and once when it
//! was acked. The order does not matter: acks of a tree may arrive before its beginning, which comes from
//! the spout's worker on another connection.
//!
//! Trees are in generations. `rotate` is called twice in each message timeout, and drops what is in
//! the third generation: a tree is kept for one to one and a half timeouts, longer than its spout
//! waits for it, and nothing is told to anybody, as the spout measures the timeout itself.

use super::roots::RootMap;
use stormkeeper_model::TaskId;

/// Number of generations.
const GENERATIONS: usize = 3;

/// Limit of trees whose beginning has not arrived. Beyond it their acks are dropped, and these trees
/// end by their timeout. Trees that have begun are bounded by their spouts.
const UNBEGUN_MAX: usize = 1 << 20;

/// Outcome of a tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Every tuple of the tree was acked.
    Acked,
    /// A task failed a tuple of the tree.
    Failed,
}

/// A tree that has ended, to be told to its spout.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ended {
    pub(super) spout: TaskId,
    pub(super) root: u64,
    pub(super) outcome: Outcome,
}

/// A tree that is not complete. There may be millions: it has 16 bytes.
#[derive(Debug, Clone, Copy)]
struct Tree {
    edges: u64,
    // The emitting task, once the beginning of the tree has arrived.
    emitter: TaskId,
    has_begun: bool,
    has_failed: bool,
}

impl Default for Tree {
    fn default() -> Self {
        Self { edges: 0, emitter: TaskId(0), has_begun: false, has_failed: false }
    }
}

impl Tree {
    /// Returns the emitting task; `None` before the beginning of the tree has arrived.
    fn spout(&self) -> Option<TaskId> {
        self.has_begun.then_some(self.emitter)
    }
}

type Generation = RootMap<Tree>;

/// Trees by their root.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    // The newest first.
    generations: [Generation; GENERATIONS],
    n_unbegun: usize,
    n_late: u64,
}

impl Ledger {
    /// Records the beginning of a tree. Returns the tree if that ends it.
    pub(super) fn begin(&mut self, root: u64, spout: TaskId, edges: u64) -> Option<Ended> {
        let generation = match self.position(root) {
            Some(generation) => {
                self.n_unbegun -= usize::from(!self.generations[generation][&root].has_begun);
                generation
            }
            None => 0,
        };
        self.update(generation, root, |tree| {
            tree.edges ^= edges;
            (tree.emitter, tree.has_begun) = (spout, true);
        })
    }

    /// Records edges of acked deliveries, and of those that the acking task emitted. Returns the tree if
    /// that ends it.
    pub(super) fn ack(&mut self, root: u64, edges: u64) -> Option<Ended> {
        self.find_or_await(root, |tree| tree.edges ^= edges)
    }

    /// Records that a delivery failed. Returns the tree if it has begun.
    pub(super) fn fail(&mut self, root: u64) -> Option<Ended> {
        self.find_or_await(root, |tree| tree.has_failed = true)
    }

    /// Starts the timeout of a tree again. Returns its spout if the tree has begun.
    pub(super) fn reset_timeout(&mut self, root: u64) -> Option<TaskId> {
        let generation = self.position(root)?;
        let tree = self.generations[generation].remove(&root)?;
        self.generations[0].insert(root, tree);
        tree.spout()
    }

    /// Forgets a tree of which its spout wants to know nothing more.
    pub(super) fn forget(&mut self, root: u64) {
        if let Some(generation) = self.position(root)
            && self.generations[generation].get(&root).is_some_and(|tree| tree.has_begun)
        {
            self.generations[generation].remove(&root);
        }
    }

    /// Makes every generation older and drops the oldest. Returns the number of roots of which only acks
    /// or fails arrived: they came after the timeout of their tree.
    pub(super) fn rotate(&mut self) -> u64 {
        self.generations.rotate_right(1);
        let dropped = std::mem::take(&mut self.generations[0]);
        let n_unbegun = dropped.values().filter(|tree| !tree.has_begun).count();
        self.n_unbegun -= n_unbegun;
        std::mem::take(&mut self.n_late) + n_unbegun as u64
    }

    /// Returns the number of trees that have begun.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.generations.iter().map(Generation::len).sum::<usize>() - self.n_unbegun
    }

    fn position(&self, root: u64) -> Option<usize> {
        self.generations.iter().position(|generation| generation.contains_key(&root))
    }

    fn find_or_await(&mut self, root: u64, change: impl FnOnce(&mut Tree)) -> Option<Ended> {
        let generation = match self.position(root) {
            Some(generation) => generation,
            None if self.n_unbegun >= UNBEGUN_MAX => {
                self.n_late += 1;
                return None;
            }
            None => {
                self.n_unbegun += 1;
                0
            }
        };
        self.update(generation, root, change)
    }

    fn update(&mut self, generation: usize, root: u64, change: impl FnOnce(&mut Tree)) -> Option<Ended> {
        let tree = self.generations[generation].entry(root).or_default();
        change(tree);
        let outcome = match (tree.has_failed, tree.edges) {
            (true, _) => Outcome::Failed,
            (false, 0) => Outcome::Acked,
            (false, _) => return None,
        };
        let spout = tree.spout()?;
        self.generations[generation].remove(&root);
        Some(Ended { spout, root, outcome })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SPOUT: TaskId = TaskId(1);

    fn ended(root: u64, outcome: Outcome) -> Option<Ended> {
        Some(Ended { spout: SPOUT, root, outcome })
    }

    #[derive(Debug, Clone)]
    enum Event {
        Begin(u64),
        Ack(u64),
    }

    /// Events of one tree: each edge is begun once and acked once, children by the ack of their parent.
    fn events(edges: &[(u64, u64)]) -> Vec<Event> {
        let spouts: Vec<u64> = edges.iter().map(|(edge, _)| *edge).collect();
        let mut events = vec![Event::Begin(spouts.iter().fold(0, |all, edge| all ^ edge))];
        for (edge, child) in edges {
            events.extend([Event::Ack(edge ^ child), Event::Ack(*child)]);
        }
        events
    }

    proptest! {
        #[test]
        fn tree_is_acked_by_its_last_event_in_whatever_order(
            edges in prop::collection::vec((1u64.., 1u64..), 1..8),
            order in any::<prop::sample::Index>(),
            seed: u64,
        ) {
            let mut events = events(&edges);
            let mut random = fastrand::Rng::with_seed(seed ^ order.index(usize::MAX) as u64);
            random.shuffle(&mut events);
            let mut ledger = Ledger::default();
            let (last, before) = events.split_last().expect("a beginning");
            let mut apply = |event: &Event| match event {
                Event::Begin(edges) => ledger.begin(7, SPOUT, *edges),
                Event::Ack(edges) => ledger.ack(7, *edges),
            };
            for event in before {
                prop_assert_eq!(apply(event), None);
            }
            prop_assert_eq!(apply(last), ended(7, Outcome::Acked));
            prop_assert_eq!(ledger.len(), 0);
        }
    }

    #[test]
    fn entry_of_a_tree_is_small() {
        assert_eq!(size_of::<(u64, Tree)>(), 24);
    }

    #[test]
    fn failed_tree_ends_once_and_after_its_beginning() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.begin(1, SPOUT, 5), None);
        assert_eq!(ledger.fail(1), ended(1, Outcome::Failed));
        assert_eq!(ledger.fail(1), None);
        assert_eq!(ledger.fail(2), None);
        assert_eq!(ledger.begin(2, SPOUT, 5), ended(2, Outcome::Failed));
    }

    #[test]
    fn tree_is_kept_for_two_rotations_and_dropped_by_the_third() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.begin(1, SPOUT, 5), None);
        assert_eq!((ledger.rotate(), ledger.rotate()), (0, 0));
        assert_eq!(ledger.len(), 1);
        assert_eq!(ledger.rotate(), 0);
        assert_eq!(ledger.len(), 0);
        // Its ack is late.
        assert_eq!(ledger.ack(1, 5), None);
        assert_eq!((ledger.rotate(), ledger.rotate(), ledger.rotate(), ledger.rotate()), (0, 0, 1, 0));
    }

    #[test]
    fn reset_timeout_keeps_a_tree_for_two_more_rotations() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.reset_timeout(1), None);
        assert_eq!(ledger.begin(1, SPOUT, 5), None);
        for _ in 0..10 {
            ledger.rotate();
            ledger.rotate();
            assert_eq!(ledger.reset_timeout(1), Some(SPOUT));
        }
        assert_eq!(ledger.ack(1, 5), ended(1, Outcome::Acked));
    }

    #[test]
    fn acks_without_a_beginning_are_bounded() {
        let mut ledger = Ledger::default();
        for root in 0..UNBEGUN_MAX as u64 + 3 {
            assert_eq!(ledger.ack(root, 1), None);
        }
        assert_eq!(ledger.len(), 0);
        assert_eq!(ledger.rotate(), 3);
        // A tree that begins is tracked all the same.
        assert_eq!(ledger.begin(u64::MAX, SPOUT, 9), None);
        assert_eq!(ledger.ack(u64::MAX, 9), ended(u64::MAX, Outcome::Acked));
        // Of the others, those whose beginning arrives are counted off.
        assert_eq!(ledger.begin(0, SPOUT, 1), ended(0, Outcome::Acked));
        ledger.rotate();
        assert_eq!(ledger.rotate(), UNBEGUN_MAX as u64 - 1);
    }

    #[test]
    fn forgotten_tree_ends_without_an_outcome() {
        let mut ledger = Ledger::default();
        assert_eq!(ledger.begin(1, SPOUT, 5), None);
        ledger.forget(1);
        ledger.forget(2);
        assert_eq!((ledger.len(), ledger.ack(1, 5)), (0, None));
    }
}
