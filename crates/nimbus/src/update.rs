//! Updates of running topologies: what fits, and the begin of an update. Its steps are decided in
//! `decide/update.rs`.

use crate::{refusal::Refusal, submit::PreparedTopology};
use stormkeeper_coordination::cluster::record::TopologyRecord;
use stormkeeper_model::{
    BlobKey, ComponentId, TopologyId,
    assignment::Assignment,
    resources,
    status::TopologyStatus,
    topology::{Ackers, Component, ComponentKind, TaskTable, Topology},
    update::{AT_ONCE_MAX, FormerPackage, PlacedWorker, Update},
};

/// Most differences that a refusal names.
const DIFFERENCES_MAX: usize = 20;

/// A package that fits a running topology.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewPackage {
    /// Its blob.
    pub(crate) blob: BlobKey,
    /// Bytes of the blob, if known.
    pub(crate) blob_bytes: Option<u64>,
    /// Message timeout of its topology.
    pub(crate) message_timeout_secs: u64,
    /// The package with which it was compared, which the topology must still have.
    pub(crate) former: BlobKey,
    /// Workers that may start at a time.
    pub(crate) at_once: u32,
}

impl NewPackage {
    /// Returns the package of `prepared`, which was compared with `former`.
    pub(crate) fn of(prepared: &PreparedTopology, former: BlobKey, at_once: u32) -> Self {
        Self {
            blob: prepared.blob.clone(),
            blob_bytes: prepared.blob_bytes,
            message_timeout_secs: prepared.message_timeout_secs,
            former,
            at_once,
        }
    }
}

/// Checks that workers of both packages can run side by side in one topology, with the tasks of `table`.
///
/// # Errors
/// [`Refusal::InvalidTopology`] with every difference, by name.
pub(crate) fn check_fit(old: &Topology, new: &Topology, table: &TaskTable) -> Result<(), Refusal> {
    let mut found = Vec::new();
    for (id, before) in &old.components {
        match new.components.get(id) {
            Some(after) => compare(id, before, after, table, &mut found),
            None => found.push(format!("{} is missing", named(id, before.kind))),
        }
    }
    let added = new.components.iter().filter(|(id, _)| !old.components.contains_key(*id));
    found.extend(added.map(|(id, component)| format!("{} is new", named(id, component.kind))));
    if old.settings.get(Ackers::SETTING) != new.settings.get(Ackers::SETTING) {
        found.push(format!("{} differs, so workers would disagree about what is tracked", Ackers::SETTING));
    }
    if resources::requests(old) != resources::requests(new) {
        found.push("components request other resources".to_owned());
    }
    if found.is_empty() {
        return Ok(());
    }
    let n_more = found.len().saturating_sub(DIFFERENCES_MAX);
    found.truncate(DIFFERENCES_MAX);
    if n_more > 0 {
        found.push(format!("and {n_more} more differences"));
    }
    found.push(
        "an update keeps components, streams and tasks: kill the topology and submit the new one".to_owned(),
    );
    Err(Refusal::InvalidTopology { problems: found })
}

fn named(id: &ComponentId, kind: ComponentKind) -> String {
    match kind {
        ComponentKind::Spout => format!("the spout {id}"),
        ComponentKind::Bolt => format!("the bolt {id}"),
    }
}

fn compare(id: &ComponentId, old: &Component, new: &Component, table: &TaskTable, found: &mut Vec<String>) {
    let name = named(id, old.kind);
    if old.kind != new.kind {
        return found.push(format!("{name} is {} in the new package", named(id, new.kind)));
    }
    let runs = table.0.get(id).map_or(0, |tasks| u32::try_from(tasks.len()).unwrap_or(u32::MAX));
    // A rebalance may have changed the number since the submit.
    if new.parallelism != old.parallelism && new.parallelism != runs {
        found.push(format!("{name} has {} tasks, {runs} run; see `stormkeeper rebalance`", new.parallelism));
    }
    let streams: std::collections::BTreeSet<_> = old.outputs.keys().chain(new.outputs.keys()).collect();
    let differing = streams.into_iter().filter(|stream| old.outputs.get(*stream) != new.outputs.get(*stream));
    found.extend(differing.map(|stream| format!("{name} declares the stream {stream} otherwise")));
    if old.inputs != new.inputs {
        found.push(format!("{name} receives other streams, or groups them otherwise"));
    }
}

/// Checks the number of workers that may start at a time.
///
/// # Errors
/// [`Refusal::BadOption`].
pub(crate) fn checked_at_once(asked: Option<u32>) -> Result<u32, Refusal> {
    match asked.unwrap_or(1) {
        n @ 1..=AT_ONCE_MAX => Ok(n),
        n => Err(Refusal::BadOption(format!("{n} workers at a time are not between 1 and {AT_ONCE_MAX}"))),
    }
}

/// Returns the record of a topology that begins an update.
///
/// # Errors
/// [`Refusal::BadOption`] if it cannot begin now.
pub(crate) fn begun(
    id: &TopologyId,
    record: &TopologyRecord,
    package: &NewPackage,
    assignment: &Assignment,
) -> Result<TopologyRecord, Refusal> {
    let bad = |text: String| Err(Refusal::BadOption(text));
    if record.update.is_some() {
        return bad(format!("an update of {id} is under way; `stormkeeper show` has its progress"));
    }
    match record.status {
        TopologyStatus::Active | TopologyStatus::Inactive => {}
        status @ (TopologyStatus::Rebalancing | TopologyStatus::Killed) => {
            return bad(format!("{id} is {status}, and cannot be updated"));
        }
    }
    if record.blob == package.blob {
        return bad(format!("{id} runs this package already"));
    }
    if record.blob != package.former {
        return bad(format!("{id} has got another package meanwhile; update it again"));
    }
    let left: Vec<PlacedWorker> = PlacedWorker::all_of(assignment).collect();
    if left.is_empty() {
        return bad(format!("{id} has no workers yet; wait until it is placed"));
    }
    let former = FormerPackage {
        blob: record.blob.clone(),
        blob_bytes: record.blob_bytes,
        message_timeout_secs: record.message_timeout_secs,
    };
    let (total, at_once) = (left.len(), package.at_once);
    Ok(TopologyRecord {
        blob: package.blob.clone(),
        blob_bytes: package.blob_bytes,
        message_timeout_secs: package.message_timeout_secs,
        update: Some(Update {
            former,
            left,
            total,
            at_once,
            draining: None,
            starting: Vec::new(),
            failure: None,
        }),
        ..record.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use stormkeeper_coordination::cluster::record::TopologyRecord;
    use stormkeeper_model::{
        Slot, StreamId, Timestamp,
        assignment::AssignedWorker,
        topology::{Grouping, Input, Run, StreamDeclaration},
    };

    fn topology() -> Topology {
        let component = |kind, parallelism| Component {
            kind,
            parallelism,
            run: Run::Command(vec!["old".to_owned()]),
            outputs: Default::default(),
            inputs: Vec::new(),
            settings: Default::default(),
        };
        let stream = StreamId::default_stream();
        let declared = StreamDeclaration { fields: vec!["line".to_owned()], direct: false };
        let mut spout = component(ComponentKind::Spout, 2);
        spout.outputs.insert(stream.clone(), declared);
        let [lines, count] = ["lines", "count"].map(|name| name.parse::<ComponentId>().expect("a valid id"));
        let mut bolt = component(ComponentKind::Bolt, 3);
        bolt.inputs.push(Input { from: lines.clone(), stream, grouping: Grouping::Shuffle });
        Topology {
            name: "wc".parse().expect("a valid name"),
            settings: Default::default(),
            components: [(lines, spout), (count, bolt)].into(),
            program: None,
            given_at_submission: Default::default(),
        }
    }

    fn table() -> TaskTable {
        let [lines, count] = ["lines", "count"].map(|name| name.parse().expect("a valid id"));
        TaskTable::number([(lines, 2), (count, 3)])
    }

    fn problems(change: impl FnOnce(&mut Topology)) -> Vec<String> {
        let mut new = topology();
        change(&mut new);
        match check_fit(&topology(), &new, &table()) {
            Ok(()) => Vec::new(),
            Err(Refusal::InvalidTopology { mut problems }) => {
                let advice = problems.pop().expect("an advice");
                assert!(advice.starts_with("an update keeps components"), "{advice}");
                problems
            }
            Err(other) => panic!("{other:?}"),
        }
    }

    fn of<'t>(topology: &'t mut Topology, name: &str) -> &'t mut Component {
        topology.components.get_mut(&name.parse::<ComponentId>().expect("valid")).expect("there")
    }

    #[test]
    fn code_and_settings_may_differ_and_everything_that_workers_share_may_not() {
        let none: [&str; 0] = [];
        let other_code = |new: &mut Topology| {
            of(new, "count").run = Run::Command(vec!["new".to_owned()]);
            of(new, "count").settings.insert("my.setting".to_owned(), 1.into());
            new.settings.insert("topology.message.timeout.secs".to_owned(), 5.into());
        };
        assert_eq!(problems(other_code), none);
        let stream = |new: &mut Topology| {
            of(new, "lines").outputs.values_mut().for_each(|declared| declared.fields.push("n".to_owned()));
        };
        assert_eq!(problems(stream), ["the spout lines declares the stream default otherwise"]);
        let grouping = |new: &mut Topology| of(new, "count").inputs[0].grouping = Grouping::All;
        assert_eq!(problems(grouping), ["the bolt count receives other streams, or groups them otherwise"]);
        let tasks = |new: &mut Topology| of(new, "count").parallelism = 4;
        assert_eq!(problems(tasks), ["the bolt count has 4 tasks, 3 run; see `stormkeeper rebalance`"]);
        let kind = |new: &mut Topology| of(new, "count").kind = ComponentKind::Spout;
        assert_eq!(problems(kind), ["the bolt count is the spout count in the new package"]);
        let renamed = |new: &mut Topology| {
            let component =
                new.components.remove(&"count".parse::<ComponentId>().expect("valid")).expect("there");
            new.components.insert("sum".parse().expect("valid"), component);
        };
        assert_eq!(problems(renamed), ["the bolt count is missing", "the bolt sum is new"]);
        let untracked = |new: &mut Topology| {
            new.settings.insert(Ackers::SETTING.to_owned(), 0.into());
        };
        assert_eq!(problems(untracked).len(), 1);
        let memory = |new: &mut Topology| {
            let setting = "topology.component.resources.onheap.memory.mb".to_owned();
            of(new, "count").settings.insert(setting, 64.into());
        };
        assert_eq!(problems(memory), ["components request other resources"]);
    }

    #[test]
    fn tasks_of_a_rebalance_fit_as_those_of_the_package_do() {
        let rebalanced =
            TaskTable::number([("lines".parse().expect("valid"), 2), ("count".parse().expect("valid"), 5)]);
        let mut new = topology();
        assert!(check_fit(&topology(), &new, &rebalanced).is_ok(), "the file as it was");
        of(&mut new, "count").parallelism = 5;
        assert!(check_fit(&topology(), &new, &rebalanced).is_ok(), "the tasks that run");
        of(&mut new, "count").parallelism = 4;
        assert!(check_fit(&topology(), &new, &rebalanced).is_err());
    }

    #[test]
    fn update_begins_only_in_a_running_topology_with_another_package_and_one_at_a_time() {
        let id: TopologyId = "wc-1-1".parse().expect("valid");
        let record = TopologyRecord::sample("wc");
        let package = NewPackage {
            blob: BlobKey::of(b"new"),
            blob_bytes: None,
            message_timeout_secs: 30,
            former: record.blob.clone(),
            at_once: 1,
        };
        let slot = Slot { supervisor: "s1".parse().expect("valid"), port: stormkeeper_model::Port(6700) };
        let worker = AssignedWorker {
            host: "h1".to_owned(),
            tasks: table().tasks(),
            start: Timestamp::from_millis(3),
        };
        let mut assignment = Assignment::default();
        let refused = |record: &TopologyRecord, package: &NewPackage, assignment: &Assignment| match begun(
            &id, record, package, assignment,
        ) {
            Err(Refusal::BadOption(text)) => text,
            other => panic!("{other:?}"),
        };
        assert!(refused(&record, &package, &assignment).contains("no workers yet"));
        assignment.workers.insert(slot, worker);
        let next = begun(&id, &record, &package, &assignment).expect("it begins");
        let update = next.update.clone().expect("under way");
        assert_eq!((update.total, update.left.len(), update.former.blob), (1, 1, record.blob.clone()));
        assert!(refused(&next, &package, &assignment).contains("is under way"));
        let same = NewPackage { blob: record.blob.clone(), ..package.clone() };
        assert!(refused(&record, &same, &assignment).contains("runs this package already"));
        let late = NewPackage { former: BlobKey::of(b"other"), ..package.clone() };
        assert!(refused(&record, &late, &assignment).contains("got another package meanwhile"));
        let killed = TopologyRecord { status: TopologyStatus::Killed, ..record };
        assert!(refused(&killed, &package, &assignment).contains("is killed"));
    }
}
