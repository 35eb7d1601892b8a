//! Submission: from a stored blob to a topology, fully checked and written in one transaction.

use crate::{
    change::read_back,
    options::TrackingDefaults,
    plan::{ClusterProblem, check_size},
    refusal::Refusal,
    tracking::AckersAsked,
    worker_program,
};
use stormkeeper_coordination::{
    cluster::{
        event::{EventDraft, Submitted},
        layout,
        record::{self, TasksRecord, TopologyRecord, UnknownFields},
        store::Store,
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    tree::{self, CreateMode, MAX_NODE_BYTES, Op},
};
use stormkeeper_model::{
    BlobKey, TaskId, Timestamp, TopologyId, TopologyName,
    event::EventKind,
    id::quoted,
    platform::Program,
    resources::{self, TaskRequests},
    settings::sample_rate_of,
    spelling,
    status::TopologyStatus,
    topology::{Ackers, TaskTable, Topology},
    validate::validate,
};
#[cfg(feature = "injected-bugs")]
use stormkeeper_runtime::injected_bugs::{self, InjectedBug};

/// A validated topology, ready to be written.
#[derive(Debug, Clone)]
pub(super) struct PreparedTopology {
    pub(super) name: TopologyName,
    pub(super) blob: BlobKey,
    /// Bytes of the blob, if they are known.
    pub(super) blob_bytes: Option<u64>,
    pub(super) owner: String,
    pub(super) status: TopologyStatus,
    pub(super) workers: u32,
    pub(super) message_timeout_secs: u64,
    pub(super) ackers: AckersAsked,
    pub(super) grow_back_secs: Option<u64>,
    /// The author's program, which is the worker.
    pub(super) program: Option<Program>,
    pub(super) tasks: TaskTable,
    /// Resources that the tasks request.
    pub(super) requests: TaskRequests,
    /// Share of values that histograms sample, if the topology sets one.
    pub(super) sample_rate: Option<f64>,
}

/// Longest owner; it is only displayed.
const OWNER_BYTES_MAX: usize = 200;

impl PreparedTopology {
    /// Checks a topology that was read from `blob`.
    ///
    /// # Errors
    /// [`Refusal::InvalidTopology`] with its problems, and
    /// [`Refusal::BadOption`].
    pub(super) fn new(
        topology: &Topology,
        name: Option<TopologyName>,
        (blob, blob_bytes): (BlobKey, Option<u64>),
        owner: String,
        status: TopologyStatus,
        defaults: TrackingDefaults,
    ) -> Result<Self, Refusal> {
        check_owner(&owner)?;
        let name = name.unwrap_or_else(|| topology.name.clone());
        check_length(&name)?;
        // The name of the file may be another one.
        if let Some(reason) = spelling::misleading(name.as_str()) {
            return Err(Refusal::BadOption(format!(
                "the name {} could be taken for another one: {reason}; use letters of one script",
                quoted(name.as_str())
            )));
        }
        let problems = problems(topology);
        if !problems.is_empty() {
            return Err(Refusal::InvalidTopology { problems });
        }
        let components =
            topology.components.iter().map(|(id, component)| (id.clone(), component.parallelism));
        let message_timeout_secs = topology
            .whole_number("topology.message.timeout.secs")
            .unwrap_or(defaults.message_timeout.as_secs());
        Ok(Self {
            name,
            blob,
            blob_bytes,
            owner,
            status,
            workers: topology.wanted_workers(),
            message_timeout_secs,
            ackers: AckersAsked::of(topology, defaults.ackers),
            grow_back_secs: grow_back_secs(topology, defaults),
            program: topology.program.clone(),
            tasks: TaskTable::number(components),
            requests: resources::requests(topology),
            sample_rate: sample_rate_of(topology),
        })
    }

    fn event_draft(&self, id: &TopologyId, by: Option<String>, untracked: Option<&str>) -> EventDraft {
        let Self { owner, sample_rate, tasks, .. } = self;
        let submitted = Submitted { owner: owner.clone(), sample_rate: *sample_rate, tasks: tasks.clone() };
        let untracked = untracked.map(|reason| format!("; its tuples are not tracked: {reason}"));
        let reason = format!("{owner} submitted it{}", untracked.unwrap_or_default());
        EventDraft { by, submitted: Some(submitted), ..EventDraft::of(id, EventKind::Submitted, reason) }
    }

    fn topology_record(&self, now: Timestamp, ackers: Option<Ackers>) -> TopologyRecord {
        TopologyRecord {
            name: self.name.clone(),
            status: self.status,
            launched: now,
            workers: self.workers,
            owner: self.owner.clone(),
            blob: self.blob.clone(),
            blob_bytes: self.blob_bytes,
            message_timeout_secs: self.message_timeout_secs,
            grow_back_secs: self.grow_back_secs,
            ackers,
            pending: None,
            metrics: None,
            log_levels: None,
            tuple_samples: None,
            update: None,
            unknown_fields: UnknownFields::new(),
        }
    }
}

/// Time for which slots must have been free before the topology grows back, if it does.
fn grow_back_secs(topology: &Topology, defaults: TrackingDefaults) -> Option<u64> {
    let set = topology.settings.get("topology.grow.back").and_then(serde_json::Value::as_bool);
    let delay = topology.whole_number("topology.grow.back.delay.secs");
    set.unwrap_or(defaults.grow_back).then(|| delay.unwrap_or(defaults.grow_back_delay.as_secs()))
}

/// Checks that an owner can be shown in a line, and compared with the owner of a token.
fn check_owner(owner: &str) -> Result<(), Refusal> {
    let reason = if owner.is_empty() {
        "the owner is empty".to_owned()
    } else if owner.len() > OWNER_BYTES_MAX {
        format!("the owner is longer than {OWNER_BYTES_MAX} bytes")
    } else if owner.chars().any(char::is_control) {
        format!("the owner {} has a control character", quoted(owner))
    } else {
        return Ok(());
    };
    Err(Refusal::BadOption(reason))
}

/// Checks that the id of the topology, which is its name with a number and a time, is no longer than an
/// id may be.
fn check_length(name: &TopologyName) -> Result<(), Refusal> {
    let n = name.as_str().len();
    match n <= TopologyId::NAME_BYTES_MAX {
        true => Ok(()),
        false => Err(Refusal::BadOption(format!(
            "the name of the topology has {n} bytes; the maximum is {}",
            TopologyId::NAME_BYTES_MAX
        ))),
    }
}

/// Generates the topology ids of one term. Ids are unique: the number grows within a term, and
/// the numbers of two terms could only meet in the same second.
#[derive(Debug)]
pub(super) struct TopologyIds {
    next: u64,
}

/// Distance between the first numbers of two terms. No term generates more ids than this in one
/// second.
const IDS_PER_TERM: u64 = 1000;

impl TopologyIds {
    pub(super) fn new(term: stormkeeper_model::Term) -> Self {
        Self { next: Self::first_number(term) }
    }

    /// Number of the first topology that is submitted in `term`.
    pub(super) fn first_number(term: stormkeeper_model::Term) -> u64 {
        u64::try_from(term.0).unwrap_or_default() * IDS_PER_TERM + 1
    }

    fn make(&mut self, name: &TopologyName, now: Timestamp) -> TopologyId {
        let id = TopologyId::new(name, self.next, now);
        self.next += 1;
        id
    }

    /// Makes an id that is not the name of a topology, as requests name a topology by either.
    fn make_unless_a_name(&mut self, name: &TopologyName, now: Timestamp, view: &ClusterView) -> TopologyId {
        let mut id = self.make(name, now);
        // Ends: each id is another one, and there are as many names as topologies.
        while view.topologies.values().any(|record| record.value.name.as_str() == id.as_str()) {
            id = self.make(name, now);
        }
        id
    }
}

/// Writes all records of a new topology in one transaction; a rejected one leaves nothing.
pub(super) async fn execute(
    (prepared, by): (&PreparedTopology, &Option<String>),
    ids: &mut TopologyIds,
    now: Timestamp,
    view: &ClusterView,
    store: &Store,
    writer: &FencedWriter,
) -> Result<(TopologyId, TopologyRecord), Refusal> {
    check_name(&prepared.name, view)?;
    #[cfg(feature = "injected-bugs")]
    if injected_bugs::is_injected(InjectedBug::RetriesUnderNewId) {
        return execute_with_injected_bug(prepared, ids, now, writer).await;
    }
    let id = ids.make_unless_a_name(&prepared.name, now, view);
    let (ackers, untracked) = prepared.ackers.decide(view)?;
    worker_program::check(prepared.program.as_ref(), view)?;
    let topology_record = prepared.topology_record(now, ackers);
    check_placeable(&id, &prepared.tasks, prepared.workers)?;
    let ops = ops(&id, &topology_record, prepared);
    check_size(&ops).map_err(Refusal::TooLarge)?;
    let mut is_in_doubt = false;
    for _ in 0..TRIES {
        let event = prepared.event_draft(&id, by.clone(), untracked.as_deref());
        match writer.commit_with_event(ops.clone(), event).await {
            Ok(_) => return Ok((id, topology_record)),
            Err(WriteError::Unknown(_)) => is_in_doubt = true,
            // The node is from our earlier attempt: no other process generates this id.
            Err(WriteError::Op { source: tree::Error::NodeExists { .. }, .. }) if is_in_doubt => {}
            Err(error) if is_in_doubt => {
                tracing::warn!(%error, topology = %id, "the outcome of a submit is unknown; reading back");
            }
            Err(error) => return Err(error.into()),
        }
        // A read may be older than the write in doubt; a repeated write is not.
        if let Some(stored) = read_back(&id, store).await? {
            return if stored.value == topology_record {
                Ok((id, topology_record))
            } else {
                Err(Refusal::OutcomeUnknown)
            };
        }
    }
    Err(Refusal::OutcomeUnknown)
}

/// Injected bug for tests of the simulator: retries under a new id after an unknown outcome.
#[cfg(feature = "injected-bugs")]
async fn execute_with_injected_bug(
    prepared: &PreparedTopology,
    ids: &mut TopologyIds,
    now: Timestamp,
    writer: &FencedWriter,
) -> Result<(TopologyId, TopologyRecord), Refusal> {
    let topology_record = prepared.topology_record(now, None);
    for _ in 0..TRIES {
        let id = ids.make(&prepared.name, now);
        match writer.commit(ops(&id, &topology_record, prepared)).await {
            Err(WriteError::Unknown(_)) => {}
            written => return written.map(|_| (id, topology_record)).map_err(Refusal::from),
        }
    }
    Err(Refusal::OutcomeUnknown)
}

/// Most attempts of a submit whose response was lost, all with the same id.
const TRIES: usize = 3;

/// Bytes of one worker in an assignment without its tasks: a supervisor id and a host name of
/// full length.
const WORKER_BYTES: usize = 400;

/// Checks that every assignment of these tasks could be stored, whatever the slots are named.
pub(super) fn check_placeable(id: &TopologyId, tasks: &TaskTable, workers: u32) -> Result<(), Refusal> {
    let digits = |task: TaskId| task.0.checked_ilog10().map_or(1, |log| log as usize + 1);
    let tasks = tasks.tasks();
    let n_workers = usize::try_from(workers).unwrap_or(usize::MAX).min(tasks.len());
    let bytes = tasks.iter().map(|task| digits(task) + 1).sum::<usize>() + n_workers * WORKER_BYTES;
    match bytes > MAX_NODE_BYTES {
        true => Err(Refusal::TooLarge(ClusterProblem::TooLarge {
            path: layout::assignment(id),
            bytes,
            limit: MAX_NODE_BYTES,
        })),
        false => Ok(()),
    }
}

/// Checks that the name is free and looks like no other, and is not the id of a topology: requests name a
/// topology by either. A killed topology has its name and its id until it is removed.
fn check_name(name: &TopologyName, view: &ClusterView) -> Result<(), Refusal> {
    if let Some((id, topology_record)) = view.named(name) {
        let is_killed = topology_record.value.status == TopologyStatus::Killed;
        return Err(Refusal::NameInUse { name: name.clone(), by: id.clone(), is_killed });
    }
    if let Some(id) = known_id(name, view) {
        return Err(Refusal::NameIsId { id });
    }
    let mut others = view.topologies.iter();
    if let Some((by, _)) =
        others.find(|(_, record)| spelling::look_alike(name.as_str(), record.value.name.as_str()))
    {
        return Err(Refusal::NameLooksLike { name: name.clone(), by: by.clone() });
    }
    let unclear = view.unreadable.keys().find(|path| {
        path.parent() == Some(layout::storms()) && TopologyId::name_in(path.name()) == name.as_str()
    });
    match unclear {
        Some(path) => Err(Refusal::NameUnclear { name: name.clone(), path: path.clone() }),
        None => Ok(()),
    }
}

/// Returns the topology that has a name as its id.
fn known_id(name: &TopologyName, view: &ClusterView) -> Option<TopologyId> {
    let id: TopologyId = name.as_str().parse().ok()?;
    let is_known = view.topologies.contains_key(&id)
        || view.tasks.contains_key(&id)
        || view.assignments.contains_key(&id)
        || view.unreadable.contains_key(&layout::storm(&id));
    is_known.then_some(id)
}

/// Operations that create all records. The topology record is last: it makes the topology exist.
fn ops(id: &TopologyId, topology_record: &TopologyRecord, prepared: &PreparedTopology) -> Vec<Op> {
    let create = |path, data| Op::Create { path, data, mode: CreateMode::Persistent };
    vec![
        create(
            layout::tasks(id),
            record::encode(&TasksRecord {
                components: prepared.tasks.clone(),
                requests: prepared.requests.clone(),
                unknown_fields: record::UnknownFields::new(),
            }),
        ),
        create(layout::taskbeats(id), Vec::new()),
        create(layout::taskerrors(id), Vec::new()),
        create(layout::last_errors(id), Vec::new()),
        create(layout::metrics(id), Vec::new()),
        create(layout::storm(id), record::encode(topology_record)),
    ]
}

fn problems(topology: &Topology) -> Vec<String> {
    match validate(topology) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use stormkeeper_coordination::{
        cluster::record::{Defect, Stored, TopologyRecord},
        election::{CampaignOutcome, Candidate, Leadership},
        tree::{
            Tree,
            faulty::{FaultPlan, FaultyTree},
            memory::MemoryTree,
        },
    };
    use stormkeeper_model::Term;

    fn prepared(n_tasks: u32, workers: u32) -> PreparedTopology {
        PreparedTopology {
            name: "wc".parse().expect("valid"),
            blob: BlobKey::of(b"x"),
            blob_bytes: Some(1),
            grow_back_secs: None,
            owner: "me".to_owned(),
            status: TopologyStatus::Active,
            workers,
            message_timeout_secs: 30,
            ackers: AckersAsked::default(),
            program: None,
            tasks: TaskTable::number([("split".parse().expect("valid"), n_tasks)]),
            requests: TaskRequests::new(),
            sample_rate: None,
        }
    }

    #[test]
    fn name_whose_id_would_be_too_long_and_owner_that_is_no_line_are_refused() {
        let name = |n: usize| "n".repeat(n).parse::<TopologyName>().expect("an id");
        check_length(&name(TopologyId::NAME_BYTES_MAX)).expect("it fits");
        let id = TopologyId::new(
            &name(TopologyId::NAME_BYTES_MAX),
            u64::MAX,
            Timestamp::from_millis(99_999_999_999_000),
        );
        assert_eq!(id.as_str().parse(), Ok(id.clone()));
        let refusal = check_length(&name(TopologyId::NAME_BYTES_MAX + 1)).expect_err("too long").to_string();
        assert!(refusal.contains("168 bytes") && refusal.contains("maximum is 167"), "{refusal}");
        check_owner("a team").expect("a line");
        for owner in ["", "a\nb", &"o".repeat(OWNER_BYTES_MAX + 1)] {
            check_owner(owner).expect_err(owner);
        }
    }

    #[test]
    fn topology_grows_back_by_its_own_settings_or_else_by_those_of_the_cluster() {
        let mut topology = stormkeeper_model::test_support::lines_and_count("wc");
        let cluster = TrackingDefaults {
            grow_back: true,
            grow_back_delay: std::time::Duration::from_secs(90),
            ..TrackingDefaults::default()
        };
        assert_eq!(grow_back_secs(&topology, TrackingDefaults::default()), None);
        assert_eq!(grow_back_secs(&topology, cluster), Some(90));
        let mut set = |key: &str, value: serde_json::Value| topology.settings.insert(key.to_owned(), value);
        set("topology.grow.back", true.into());
        set("topology.grow.back.delay.secs", 5.into());
        assert_eq!(grow_back_secs(&topology, TrackingDefaults::default()), Some(5));
        topology.settings.insert("topology.grow.back".to_owned(), false.into());
        assert_eq!(grow_back_secs(&topology, cluster), None);
    }

    async fn leading() -> (Arc<FaultyTree>, Store, Leadership) {
        let tree = FaultyTree::new(MemoryTree::new().connect(), FaultPlan::none());
        let store = Store::new(Arc::clone(&tree) as Arc<dyn Tree>);
        store.ensure_layout().await.expect("made");
        let me = "host-1".parse().expect("valid");
        let clock = stormkeeper_model::clock::Clock::new();
        let candidate = Candidate::new(
            Arc::clone(&tree) as Arc<dyn Tree>,
            me,
            "host-1:1".to_owned(),
            stormkeeper_coordination::cluster::tree_id::TreeMemory::of_process(clock.clone()),
            clock,
        );
        let Ok(CampaignOutcome::Won(leadership)) = candidate.campaign(Term(0)).await else {
            panic!("nobody else stands")
        };
        (tree, store, leadership)
    }

    async fn submit(
        prepared: &PreparedTopology,
        view: &ClusterView,
        store: &Store,
        leadership: &Leadership,
    ) -> Result<(TopologyId, TopologyRecord), Refusal> {
        let (mut ids, writer) = (TopologyIds::new(Term(1)), leadership.writer());
        execute((prepared, &None), &mut ids, Timestamp::from_millis(9000), view, store, &writer).await
    }

    #[tokio::test]
    async fn a_topology_too_large_for_any_assignment_is_rejected() {
        let (tree, store, leadership) = leading().await;
        tree.set_plan(FaultPlan::none());
        let view = ClusterView::default();
        for (n_tasks, workers) in [(100_000, 1), (2000, 2000)] {
            let refused = submit(&prepared(n_tasks, workers), &view, &store, &leadership).await;
            let refused = refused.expect_err("its assignment would be over the limit");
            assert!(
                matches!(&refused, Refusal::TooLarge(ClusterProblem::TooLarge { path, .. })
                    if path.parent() == Some(layout::assignments())),
                "{refused}"
            );
        }
        assert_eq!(tree.n_writes(), 0);
        submit(&prepared(50_000, 100), &view, &store, &leadership).await.expect("it can be placed");
    }

    #[tokio::test]
    async fn name_that_looks_like_that_of_another_topology_is_refused() {
        let (_, store, leadership) = leading().await;
        let named = |name: &str| PreparedTopology { name: name.parse().expect("valid"), ..prepared(1, 1) };
        let (id, record) =
            submit(&named("saeson"), &ClusterView::default(), &store, &leadership).await.expect("accepted");
        let version = stormkeeper_coordination::tree::Version::FIRST;
        let topologies = [(id.clone(), Stored { value: record, version })].into();
        let view = ClusterView { topologies, ..ClusterView::default() };
        let refused =
            submit(&named("sæson"), &view, &store, &leadership).await.expect_err("they look the same");
        assert!(refused.to_string().contains(&format!("looks like that of {id}")), "{refused}");
        assert_eq!(refused.code(), stormkeeper_api_types::message::Code::NameInUse);
        submit(&named("saison"), &view, &store, &leadership).await.expect("another name");
    }

    #[tokio::test]
    async fn name_is_never_the_id_of_a_topology_whichever_is_first() {
        let (_, store, leadership) = leading().await;
        let (first, record) =
            submit(&prepared(1, 1), &ClusterView::default(), &store, &leadership).await.expect("accepted");
        let mut view = ClusterView::default();
        let version = stormkeeper_coordination::tree::Version::FIRST;
        view.topologies.insert(first.clone(), Stored { value: record.clone(), version });
        let named_as_id =
            PreparedTopology { name: first.as_str().parse().expect("a name"), ..prepared(1, 1) };
        let refused = submit(&named_as_id, &view, &store, &leadership).await.expect_err("refused");
        assert!(refused.to_string().contains(first.as_str()), "{refused}");
        assert_eq!(refused.code(), stormkeeper_api_types::message::Code::NameInUse);

        // A name that will be the id of the next topology.
        let mut view = ClusterView::default();
        let next = TopologyIds::new(Term(1)).make(&prepared(1, 1).name, Timestamp::from_millis(9000));
        let named = TopologyRecord { name: next.as_str().parse().expect("a name"), ..record };
        view.topologies.insert("other-1-1".parse().expect("valid"), Stored { value: named, version });
        let (id, _) = submit(&prepared(1, 1), &view, &store, &leadership).await.expect("accepted");
        assert_ne!(id, next);
    }

    #[test]
    fn an_unreadable_record_blocks_only_its_own_name() {
        for (record, name, is_free) in [
            ("wc-1-100", "wc", false),
            ("wc-foo-1-100", "wc", true),
            ("wc-foo-1-100", "wc-foo", false),
            ("wc-1-2-100", "wc-1", false),
            ("wc-1-2-100", "wc", true),
            ("strange", "strange", false),
        ] {
            let path = layout::storm(&record.parse().expect("valid"));
            let view = ClusterView {
                unreadable: [(path, Defect::damage("garbage"))].into(),
                ..ClusterView::default()
            };
            let name = name.parse().expect("valid");
            assert_eq!(check_name(&name, &view).is_ok(), is_free, "{name} with {record}");
        }
    }
}
