//! From a stored blob to a topology: checked whole, then written at once.

use crate::{
    cluster::{
        layout,
        record::{self, Rest, Storm, Tasks},
        store::Store,
        view::ClusterView,
    },
    election::{FencedWriter, WriteError},
    model::{
        BlobKey, Timestamp, TopologyId, TopologyName,
        status::TopologyStatus,
        topology::{TaskTable, Topology},
        validate::validate,
    },
    nimbus::{change::read_back, plan::check_size, refusal::Refusal},
    tree::{self, CreateMode, Op},
};

/// A topology that can run, ready to be written.
#[derive(Debug, Clone)]
pub(super) struct Prepared {
    pub(super) name: TopologyName,
    pub(super) blob: BlobKey,
    pub(super) owner: String,
    pub(super) status: TopologyStatus,
    pub(super) workers: u32,
    pub(super) message_timeout_secs: u64,
    pub(super) tasks: TaskTable,
}

/// The longest text of an owner; it is only shown.
const OWNER_BYTES_MAX: usize = 200;

impl Prepared {
    /// Checks a topology that was read from `blob`.
    ///
    /// # Errors
    /// [`Refusal::InvalidTopology`] with everything that is wrong, and
    /// [`Refusal::BadOption`].
    pub(super) fn new(
        topology: &Topology,
        name: Option<TopologyName>,
        blob: BlobKey,
        owner: String,
        status: TopologyStatus,
        message_timeout: std::time::Duration,
    ) -> Result<Self, Refusal> {
        if owner.len() > OWNER_BYTES_MAX {
            return Err(Refusal::BadOption(format!("the owner is longer than {OWNER_BYTES_MAX} bytes")));
        }
        let problems = problems(topology);
        if !problems.is_empty() {
            return Err(Refusal::InvalidTopology { problems });
        }
        let components =
            topology.components.iter().map(|(id, component)| (id.clone(), component.parallelism));
        let message_timeout_secs =
            topology.whole_number("topology.message.timeout.secs").unwrap_or(message_timeout.as_secs());
        Ok(Self {
            name: name.unwrap_or_else(|| topology.name.clone()),
            blob,
            owner,
            status,
            workers: topology.wanted_workers(),
            message_timeout_secs,
            tasks: TaskTable::number(components),
        })
    }

    fn storm(&self, now: Timestamp) -> Storm {
        Storm {
            name: self.name.clone(),
            status: self.status,
            launched: now,
            workers: self.workers,
            owner: self.owner.clone(),
            blob: self.blob.clone(),
            message_timeout_secs: self.message_timeout_secs,
            pending: None,
            rest: Rest::new(),
        }
    }
}

/// Makes the ids of one term. No id is made twice: within a term the number grows, and the
/// numbers of two terms could only meet in the same second.
#[derive(Debug)]
pub(super) struct Ids {
    next: u64,
}

/// How far apart the numbers of two terms begin; a term that makes more ids than this in
/// one second does not exist.
const IDS_PER_TERM: u64 = 1000;

impl Ids {
    pub(super) fn new(term: crate::model::Term) -> Self {
        Self { next: u64::try_from(term.0).unwrap_or_default() * IDS_PER_TERM + 1 }
    }

    fn make(&mut self, name: &TopologyName, now: Timestamp) -> TopologyId {
        let id = TopologyId::new(name, self.next, now);
        self.next += 1;
        id
    }
}

/// Writes all records of a new topology in one transaction; a refused one leaves nothing.
pub(super) async fn carry_out(
    prepared: &Prepared,
    ids: &mut Ids,
    now: Timestamp,
    view: &ClusterView,
    store: &Store,
    writer: &FencedWriter,
) -> Result<(TopologyId, Storm), Refusal> {
    check_name(&prepared.name, view)?;
    let id = ids.make(&prepared.name, now);
    let storm = prepared.storm(now);
    let ops = ops(&id, &storm, &prepared.tasks);
    check_size(&ops).map_err(Refusal::TooLarge)?;
    let mut is_in_doubt = false;
    for _ in 0..TRIES {
        match writer.commit(ops.clone()).await {
            Ok(_) => return Ok((id, storm)),
            Err(WriteError::Unknown(_)) => is_in_doubt = true,
            // What is there is what we wrote before: nobody else makes this id.
            Err(WriteError::Op { source: tree::Error::NodeExists { .. }, .. }) if is_in_doubt => {}
            Err(error) if is_in_doubt => {
                tracing::warn!(%error, topology = %id, "could not find out about a submit");
            }
            Err(error) => return Err(error.into()),
        }
        // A read may be older than the write in doubt; the same write again is not.
        if let Some(stored) = read_back(&id, store).await? {
            return if stored.value == storm { Ok((id, storm)) } else { Err(Refusal::OutcomeUnknown) };
        }
    }
    Err(Refusal::OutcomeUnknown)
}

/// How often a submit whose answer was lost is tried, always with the same id.
const TRIES: usize = 3;

/// Whether the name is free. A topology that is killed has it until it is gone.
fn check_name(name: &TopologyName, view: &ClusterView) -> Result<(), Refusal> {
    if let Some((id, storm)) = view.named(name) {
        let is_killed = storm.value.status == TopologyStatus::Killed;
        return Err(Refusal::NameInUse { name: name.clone(), by: id.clone(), is_killed });
    }
    let unclear = view.unreadable.keys().find(|path| {
        path.parent() == Some(layout::storms())
            && path.name().strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('-'))
    });
    match unclear {
        Some(path) => Err(Refusal::NameUnclear { name: name.clone(), path: path.clone() }),
        None => Ok(()),
    }
}

/// The record itself comes last, as it is what makes the topology exist.
fn ops(id: &TopologyId, storm: &Storm, tasks: &TaskTable) -> Vec<Op> {
    let create = |path, data| Op::Create { path, data, mode: CreateMode::Persistent };
    vec![
        create(layout::tasks(id), record::encode(&Tasks { components: tasks.clone() })),
        create(layout::taskbeats(id), Vec::new()),
        create(layout::taskerrors(id), Vec::new()),
        create(layout::last_errors(id), Vec::new()),
        create(layout::metrics(id), Vec::new()),
        create(layout::storm(id), record::encode(storm)),
    ]
}

fn problems(topology: &Topology) -> Vec<String> {
    match validate(topology) {
        Ok(()) => Vec::new(),
        Err(problems) => problems.iter().map(ToString::to_string).collect(),
    }
}
