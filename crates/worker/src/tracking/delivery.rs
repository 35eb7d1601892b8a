//! A tuple in the hands of a bolt: its trees, and the edges that its ack will report.

use super::{Settled, Settlement};
use stormkeeper_model::TaskId;
use stormkeeper_stream::{Anchor, AnchorList};

/// One tree of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct DeliveryTree {
    acker: TaskId,
    root: u64,
    // The edge of this delivery, and the edges of the tuples that were emitted with it as their anchor.
    edges: u64,
}

/// Trees of a delivery, each once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Delivery {
    /// The tuple is not tracked.
    #[default]
    Untracked,
    /// The tuple belongs to one tree.
    One(DeliveryTree),
    /// The tuple belongs to several trees.
    Many(Box<[DeliveryTree]>),
}

impl Delivery {
    /// The delivery to `task` of a tuple with these anchors.
    pub(crate) fn of(anchors: AnchorList<'_>, task: TaskId) -> Self {
        let tree = |anchor: Anchor| DeliveryTree {
            acker: anchor.acker,
            root: anchor.root,
            edges: anchor.edge_to(task),
        };
        match anchors.len() {
            0 => Self::Untracked,
            1 => anchors.iter().next().map_or(Self::Untracked, |only| Self::One(tree(only))),
            _ => Self::Many(anchors.iter().map(tree).collect()),
        }
    }

    /// Returns the number of trees.
    pub(crate) fn n_trees(&self) -> usize {
        self.trees().len()
    }

    /// Returns the roots of the trees.
    pub(crate) fn roots(&self) -> impl Iterator<Item = u64> + '_ {
        self.trees().iter().map(|tree| tree.root)
    }

    /// Anchors an emission to `receivers` in each tree that `is_new`: the edge of the emission is
    /// `draw`n, and reported with the ack of this delivery.
    pub(crate) fn anchor(
        &mut self,
        receivers: &[TaskId],
        mut is_new: impl FnMut(u64) -> bool,
        mut draw: impl FnMut() -> u64,
        anchors: &mut Vec<Anchor>,
    ) {
        let trees = match self {
            Self::Untracked => &mut [],
            Self::One(tree) => std::slice::from_mut(tree),
            Self::Many(trees) => trees,
        };
        for tree in trees.iter_mut().filter(|tree| is_new(tree.root)) {
            let anchor = Anchor { acker: tree.acker, root: tree.root, edge: draw() };
            tree.edges ^= anchor.edges_to(receivers);
            anchors.push(anchor);
        }
    }

    /// Returns what an ack of the delivery tells the ackers.
    pub(crate) fn acked(&self) -> impl Iterator<Item = Settled> + '_ {
        self.trees().iter().map(|tree| tree.settled(Settlement::Acked(tree.edges)))
    }

    /// Returns what another settlement of the delivery tells the ackers.
    pub(crate) fn settled(&self, settlement: Settlement) -> impl Iterator<Item = Settled> + '_ {
        self.trees().iter().map(move |tree| tree.settled(settlement))
    }

    fn trees(&self) -> &[DeliveryTree] {
        match self {
            Self::Untracked => &[],
            Self::One(tree) => std::slice::from_ref(tree),
            Self::Many(trees) => trees,
        }
    }
}

impl DeliveryTree {
    fn settled(&self, settlement: Settlement) -> Settled {
        Settled { acker: self.acker, root: self.root, settlement }
    }
}
