//! Folds one znode, as read, into a view. Pure.
//!
//! Every record is a znode two levels deep, and is fully described by its data and the names of its
//! children: the heartbeats of a topology and the replicas of a blob are names of children.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde::de::DeserializeOwned;

use crate::{
    cluster::{
        event::{Event, EventNumber},
        layout,
        record::{
            self, CredentialsRecord, Defect, Drain, MetaFingerprint, NimbusRecord, StoppedSupervisor, Stored,
            SupervisorAssignments, SupervisorRecord, TasksRecord, TopologyRecord, Unreadable,
        },
        view::ClusterView,
    },
    tree::{NodeWithChildren, TreePath},
};
use stormkeeper_model::{
    BlobKey, HostName, NimbusId, SupervisorId, TaskId, TopologyId, Zxid, assignment::Assignment,
    event::EventKind,
};

/// Result of folding one znode.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Folded {
    /// True if the view has changed.
    pub(super) changed: bool,
    /// Paths to read next, unless they were read since the last publication.
    pub(super) read_next: Vec<TreePath>,
    /// Paths to read next in any case: they may have been read before the change that they contain.
    pub(super) read_again: Vec<TreePath>,
    /// Decoding error of the znode, if it is new.
    pub(super) newly_unreadable: Option<String>,
}

/// Returns the top-level znodes.
pub(super) fn top_level() -> Vec<TreePath> {
    let mut top_level = layout::top_level();
    top_level.push(layout::leader());
    top_level
}

/// Returns the path of the record that a change at `path` belongs to.
pub(super) fn record_path(path: &TreePath) -> TreePath {
    path.ancestors_and_self().into_iter().take(2).last().unwrap_or_else(TreePath::root)
}

/// Returns the path of every record in the view.
pub(super) fn records(view: &ClusterView) -> Vec<TreePath> {
    let mut paths: Vec<TreePath> =
        layout::top_level().iter().flat_map(|root| children_of(view, root)).collect();
    paths.extend(view.unreadable.keys().cloned());
    paths
}

/// Folds the znode at `path`, or its absence, into `view`.
pub(super) fn fold(view: &mut ClusterView, path: &TreePath, znode: Option<&NodeWithChildren>) -> Folded {
    if *path == layout::leader() {
        return fold_record(view, path, znode, |view, leader| replace(&mut view.leader, leader));
    }
    match path.parts().count() {
        1 => fold_root(view, path, znode),
        2 => fold_child(view, path, znode),
        _ => Folded::default(),
    }
}

/// Marks a record that this process is not authorized to read. Returns `None` for a path without
/// which the rest of the view has no meaning: a list of records, the leader, or heartbeats, which
/// must not seem to be absent.
pub(super) fn deny(view: &mut ClusterView, path: &TreePath) -> Option<Folded> {
    let mut parts = path.parts();
    let root = parts.next()?;
    if parts.count() != 1 || ["taskbeats", "taskerrors", "blobs"].contains(&root) {
        return None;
    }
    // Like a record of a newer build: it must not be overwritten.
    let defect = Defect::denied();
    if view.unreadable.get(path) == Some(&defect) {
        return Some(Folded::default());
    }
    fold(view, path, None);
    Some(note_unreadable(view, path, Some(defect)))
}

/// Compares the names of a root's children with those in the view.
fn fold_root(view: &ClusterView, root: &TreePath, znode: Option<&NodeWithChildren>) -> Folded {
    let known = children_of(view, root);
    let listed: BTreeSet<TreePath> = znode
        .into_iter()
        .flat_map(|znode| &znode.children)
        .filter_map(|name| root.child(name).ok())
        .collect();
    Folded { read_next: known.symmetric_difference(&listed).cloned().collect(), ..Folded::default() }
}

fn children_of(view: &ClusterView, root: &TreePath) -> BTreeSet<TreePath> {
    let mut known: BTreeSet<TreePath> = match root.name() {
        "storms" => view.topologies.keys().map(layout::storm).collect(),
        "tasks" => view.tasks.keys().map(layout::tasks).collect(),
        "assignments" => view.assignments.keys().map(layout::assignment).collect(),
        "credentials" => view.credentials.keys().map(layout::credentials).collect(),
        "supervisors" => view.supervisors.keys().map(layout::supervisor).collect(),
        "stopped-supervisors" => view.stopped_supervisors.keys().map(layout::stopped_supervisor).collect(),
        "taskbeats" => view.heartbeats.keys().map(layout::taskbeats).collect(),
        "taskerrors" => view.errors.iter().map(layout::taskerrors).collect(),
        "nimbuses" => view.nimbuses.keys().map(layout::nimbus).collect(),
        "supervisor-assignments" => {
            view.supervisor_assignments.keys().map(layout::supervisor_assignments).collect()
        }
        "drains" => view.drains.keys().map(layout::drain).collect(),
        "events" => view.events.keys().map(|number| layout::event(*number)).collect(),
        "blobs" => view.blobs.keys().map(layout::blob).collect(),
        "metrics" => view.metric_fingerprints.keys().map(layout::metrics).collect(),
        _ => BTreeSet::new(),
    };
    known.extend(view.unreadable.keys().filter(|path| path.parent().as_ref() == Some(root)).cloned());
    known
}

fn fold_child(view: &mut ClusterView, path: &TreePath, znode: Option<&NodeWithChildren>) -> Folded {
    let root = path.parts().next().unwrap_or_default().to_owned();
    match root.as_str() {
        "storms" => fold_stored::<TopologyRecord, TopologyId>(view, path, znode, |view| &mut view.topologies),
        "supervisor-assignments" => {
            fold_stored::<SupervisorAssignments, SupervisorId>(view, path, znode, |view| {
                &mut view.supervisor_assignments
            })
        }
        "credentials" => {
            fold_stored::<CredentialsRecord, TopologyId>(view, path, znode, |view| &mut view.credentials)
        }
        "drains" => fold_stored::<Drain, HostName>(view, path, znode, |view| &mut view.drains),
        "events" => fold_event(view, path, znode),
        "metrics" => fold_metrics(view, path, znode),
        "tasks" => fold_stored::<TasksRecord, TopologyId>(view, path, znode, |view| &mut view.tasks),
        "assignments" => fold_with(view, path, znode, decode_assignment, |view| &mut view.assignments),
        "supervisors" => {
            fold_with(view, path, znode, decode::<SupervisorRecord>, |view| &mut view.supervisors)
        }
        "stopped-supervisors" => {
            fold_with(view, path, znode, decode::<StoppedSupervisor>, |view| &mut view.stopped_supervisors)
        }
        "nimbuses" => fold_with(view, path, znode, decode::<NimbusRecord>, |view| &mut view.nimbuses),
        "taskbeats" => fold_with(
            view,
            path,
            znode,
            |_, znode| Ok(names_as::<TaskId>(znode).collect()),
            |view: &mut ClusterView| &mut view.heartbeats,
        ),
        "blobs" => fold_with(
            view,
            path,
            znode,
            |_, znode| Ok(names_as::<NimbusId>(znode).collect::<BTreeSet<_>>()),
            |view: &mut ClusterView| -> &mut BTreeMap<BlobKey, _> { &mut view.blobs },
        ),
        "taskerrors" => match path.name().parse::<TopologyId>() {
            Ok(id) if znode.is_some() => Folded { changed: view.errors.insert(id), ..Folded::default() },
            Ok(id) => Folded { changed: view.errors.remove(&id), ..Folded::default() },
            Err(_) => Folded::default(),
        },
        _ => Folded::default(),
    }
}

/// Folds an event. What the transaction of a new event changed is read again, after the event: so no
/// published view contains an event without its effect.
fn fold_event(view: &mut ClusterView, path: &TreePath, znode: Option<&NodeWithChildren>) -> Folded {
    let number = path.name().parse::<EventNumber>().ok();
    let is_known = number.is_some_and(|number| view.events.contains_key(&number));
    let mut folded = fold_with(
        view,
        path,
        znode,
        |path, znode| decode::<Event>(path, znode).map(Arc::new),
        |view: &mut ClusterView| -> &mut BTreeMap<EventNumber, _> { &mut view.events },
    );
    if let (Some(znode), Some(event)) = (znode, number.and_then(|number| view.events.get(&number))) {
        if !is_known {
            folded.read_again = changed_with(event, view);
        }
        view.zxid = view.zxid.max(Zxid(znode.node.stat.created));
    }
    folded
}

/// Returns the records that the transaction of `event` may have written.
fn changed_with(event: &Event, view: &ClusterView) -> Vec<TreePath> {
    let topology = event.topology.iter().flat_map(layout::records_of);
    // The event names the host in its text only. A cluster has few drains.
    let drains = [layout::drains()].into_iter().chain(view.drains.keys().map(layout::drain));
    let drains = drains.filter(|_| matches!(event.event, EventKind::Drained | EventKind::Undrained));
    topology.chain(drains).collect()
}

fn decode<T: DeserializeOwned>(path: &TreePath, znode: &NodeWithChildren) -> Result<T, Unreadable> {
    record::decode(path, &znode.node.data)
}

fn decode_assignment(path: &TreePath, znode: &NodeWithChildren) -> Result<Stored<Assignment>, Unreadable> {
    let value = record::decode_assignment(path, &znode.node.data)?;
    Ok(Stored { value, version: znode.node.stat.version })
}

/// Folds the fingerprint of a topology's metric metas. The leader writes it when there are metas;
/// until then the znode of a topology is empty.
fn fold_metrics(view: &mut ClusterView, path: &TreePath, znode: Option<&NodeWithChildren>) -> Folded {
    let decode = |path: &TreePath, znode: &NodeWithChildren| {
        let value = match znode.node.data.is_empty() {
            true => MetaFingerprint::default(),
            false => record::decode(path, &znode.node.data)?,
        };
        Ok(Stored { value, version: znode.node.stat.version })
    };
    fold_with(view, path, znode, decode, |view: &mut ClusterView| -> &mut BTreeMap<TopologyId, _> {
        &mut view.metric_fingerprints
    })
}

fn fold_stored<T, K>(
    view: &mut ClusterView,
    path: &TreePath,
    znode: Option<&NodeWithChildren>,
    part: impl Fn(&mut ClusterView) -> &mut BTreeMap<K, Stored<T>>,
) -> Folded
where
    T: DeserializeOwned + PartialEq,
    K: std::str::FromStr<Err = stormkeeper_model::InvalidId> + Ord,
{
    let decode = |path: &TreePath, znode: &NodeWithChildren| {
        let value = record::decode(path, &znode.node.data)?;
        Ok(Stored { value, version: znode.node.stat.version })
    };
    fold_with(view, path, znode, decode, part)
}

/// Folds a record that is an entry of one of the view's maps.
fn fold_with<T, K>(
    view: &mut ClusterView,
    path: &TreePath,
    znode: Option<&NodeWithChildren>,
    decode: impl Fn(&TreePath, &NodeWithChildren) -> Result<T, Unreadable>,
    part: impl Fn(&mut ClusterView) -> &mut BTreeMap<K, T>,
) -> Folded
where
    T: PartialEq,
    K: std::str::FromStr<Err = stormkeeper_model::InvalidId> + Ord,
{
    let key: K = match path.name().parse() {
        Ok(key) => key,
        Err(error) => return note_unreadable(view, path, znode.map(|_| Defect::damage(error.to_string()))),
    };
    match znode.map(|znode| decode(path, znode)) {
        Some(Ok(record)) => {
            let was_unreadable = view.unreadable.remove(path).is_some();
            let map = part(view);
            let changed = map.get(&key) != Some(&record);
            if changed {
                map.insert(key, record);
            }
            Folded { changed: changed || was_unreadable, ..Folded::default() }
        }
        Some(Err(error)) => {
            let had = part(view).remove(&key).is_some();
            let mut folded = note_unreadable(view, path, Some(error.defect));
            folded.changed |= had;
            folded
        }
        None => {
            let had = part(view).remove(&key).is_some();
            let was_unreadable = view.unreadable.remove(path).is_some();
            Folded { changed: had || was_unreadable, ..Folded::default() }
        }
    }
}

/// Folds a record that is the only one at its path.
fn fold_record<T: DeserializeOwned>(
    view: &mut ClusterView,
    path: &TreePath,
    znode: Option<&NodeWithChildren>,
    put: impl Fn(&mut ClusterView, Option<T>) -> bool,
) -> Folded {
    match znode.map(|znode| decode::<T>(path, znode)) {
        Some(Ok(record)) => {
            let was_unreadable = view.unreadable.remove(path).is_some();
            Folded { changed: put(view, Some(record)) || was_unreadable, ..Folded::default() }
        }
        Some(Err(error)) => {
            let had = put(view, None);
            let mut folded = note_unreadable(view, path, Some(error.defect));
            folded.changed |= had;
            folded
        }
        None => {
            let was_unreadable = view.unreadable.remove(path).is_some();
            Folded { changed: put(view, None) || was_unreadable, ..Folded::default() }
        }
    }
}

fn note_unreadable(view: &mut ClusterView, path: &TreePath, defect: Option<Defect>) -> Folded {
    let before = match &defect {
        Some(defect) => view.unreadable.insert(path.clone(), defect.clone()),
        None => view.unreadable.remove(path),
    };
    let changed = before != defect;
    let reason = defect.map(|defect| format!("{}; {}", defect.reason, defect.remedy(path)));
    Folded { changed, newly_unreadable: reason.filter(|_| changed), ..Folded::default() }
}

fn replace<T: PartialEq>(place: &mut T, value: T) -> bool {
    let changed = *place != value;
    *place = value;
    changed
}

fn names_as<T: std::str::FromStr>(znode: &NodeWithChildren) -> impl Iterator<Item = T> {
    znode.children.iter().filter_map(|name| name.parse().ok())
}
