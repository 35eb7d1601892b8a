//! Components of a worker program by their ids.

use std::{collections::BTreeMap, fmt, sync::Arc};

use tokio::sync::watch;

use super::{Bolt, Spout};
use crate::{queue::Inbox, task::Activity};
use stormkeeper_model::{ComponentId, topology::ComponentKind};

/// Makes an instance of a spout.
pub(crate) type MakeSpout = Arc<dyn Fn() -> Box<dyn Spout> + Send + Sync>;

/// Makes an instance of a bolt.
pub(crate) type MakeBolt = Arc<dyn Fn() -> Box<dyn Bolt> + Send + Sync>;

#[derive(Clone)]
enum Make {
    Spout(MakeSpout),
    Bolt(MakeBolt),
}

/// Maker of the instances of a task, and their input.
pub(crate) enum Source {
    Spout(MakeSpout, watch::Receiver<Activity>),
    Bolt(MakeBolt, Inbox),
}

/// Components of a worker program by their ids. Clones share them.
#[derive(Clone, Default)]
pub struct Components(BTreeMap<ComponentId, Make>);

impl fmt::Debug for Components {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl Components {
    /// Adds a spout: `make` is called once for each instance.
    pub fn add_spout<S: Spout + 'static>(
        &mut self,
        id: ComponentId,
        make: impl Fn() -> S + Send + Sync + 'static,
    ) {
        self.0.insert(id, Make::Spout(Arc::new(move || Box::new(make()))));
    }

    /// Adds a bolt: `make` is called once for each instance.
    pub fn add_bolt<B: Bolt + 'static>(
        &mut self,
        id: ComponentId,
        make: impl Fn() -> B + Send + Sync + 'static,
    ) {
        self.0.insert(id, Make::Bolt(Arc::new(move || Box::new(make()))));
    }

    /// Returns what a task of a component is made by; `None` if there is no such component of this kind.
    pub(crate) fn source(
        &self,
        id: &ComponentId,
        kind: ComponentKind,
        inbox: Inbox,
        activity: &watch::Sender<Activity>,
    ) -> Option<Source> {
        match (self.0.get(id)?, kind) {
            (Make::Spout(make), ComponentKind::Spout) => {
                Some(Source::Spout(Arc::clone(make), activity.subscribe()))
            }
            (Make::Bolt(make), ComponentKind::Bolt) => Some(Source::Bolt(Arc::clone(make), inbox)),
            (Make::Spout(_), ComponentKind::Bolt) | (Make::Bolt(_), ComponentKind::Spout) => None,
        }
    }
}
