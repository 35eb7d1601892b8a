//! Users of the cluster: what they ask for, and what they were promised.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;

use crate::{
    daemon::tasks::Ending,
    model::{
        HostName, StreamId, TopologyId, TopologyName,
        status::TopologyStatus,
        topology::{Component, ComponentKind, Grouping, Input, Run, StreamDeclaration, Topology},
    },
    nimbus::{Handle, change::Change, drain::DrainChange, handle::Submission, refusal::Refusal},
    rpc::{bundle, bundle::Bundle},
    test_support::sim::ground::Ground,
};

/// How long a user waits for an answer.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a user knows of one of their topologies. Each name is submitted under once.
#[derive(Debug, Clone, Default)]
pub(super) struct Promise {
    /// How many workers it may have at most, whatever became of the last request.
    pub(super) workers_max: u32,
    pub(super) submitted: Said,
    pub(super) killed: Said,
    /// What was last asked of its spouts and promised; none when an answer is missing.
    pub(super) status: Option<TopologyStatus>,
    /// Requests under way.
    pub(super) n_open: usize,
}

/// What the cluster said to a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Said {
    /// Nothing was asked, or it was refused.
    #[default]
    No,
    /// Nobody knows.
    Perhaps,
    /// It is done.
    Yes,
}

/// What became of a request.
enum Answer<T> {
    Done(T),
    /// Surely not done.
    Refused(String),
    Unknown,
}

/// Everyone who uses the cluster. Clones are the same ones.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    ground: Arc<Ground>,
    apis: Arc<Vec<String>>,
    // Guards what they know; held for a few instructions.
    promises: Arc<Mutex<BTreeMap<TopologyName, Promise>>>,
    // Guards the hosts they wanted drained; held for a few instructions.
    drains: Arc<Mutex<BTreeMap<String, Drain>>>,
}

/// What is known of a host that was to be drained.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub(super) drained: Said,
    pub(super) is_open: bool,
}

impl Clients {
    pub(super) fn new(ground: &Arc<Ground>, apis: Vec<String>) -> Self {
        Self {
            ground: Arc::clone(ground),
            apis: Arc::new(apis),
            promises: Arc::default(),
            drains: Arc::default(),
        }
    }

    /// What they know of each topology they ever submitted.
    pub(super) fn promises(&self) -> BTreeMap<TopologyName, Promise> {
        self.lock().clone()
    }

    /// Submits a topology and waits for the answer in a task of its own.
    pub(super) fn submit(&self, n: usize, workers: u32, parallelism: u32, random: fastrand::Rng) {
        let topology = topology(n, workers, parallelism);
        let (this, name) = (self.clone(), topology.name.clone());
        self.lock().insert(
            name.clone(),
            Promise {
                workers_max: workers,
                submitted: Said::Perhaps,
                status: Some(TopologyStatus::Active),
                n_open: 1,
                ..Promise::default()
            },
        );
        self.ground.tasks.start("submit", Ending::Normal, async move {
            let bundle = bundle::pack(&topology, Vec::new(), 1 << 20).expect("a small topology");
            let answer = this.ask(random, |nimbus| submit(nimbus, bundle.clone())).await;
            this.settle(&name, format_args!("submit of {name}"), &answer, |promise, answer| {
                promise.submitted = match answer {
                    Answer::Done(_) => Said::Yes,
                    Answer::Refused(_) => Said::No,
                    Answer::Unknown => Said::Perhaps,
                }
            });
        });
    }

    /// Asks for a change and waits for the answer in a task of its own.
    pub(super) fn change(&self, name: &TopologyName, change: Change, random: fastrand::Rng) {
        let (this, name) = (self.clone(), name.clone());
        let before = {
            let mut promises = self.lock();
            let Some(promise) = promises.get_mut(&name) else { return };
            let before = promise.clone();
            promise.n_open += 1;
            promise.status = None;
            match &change {
                Change::Kill(_) => promise.killed = promise.killed.max(Said::Perhaps),
                Change::Rebalance(request) => {
                    promise.workers_max = promise.workers_max.max(request.workers.unwrap_or(0));
                }
                Change::Activate | Change::Deactivate | Change::Metrics(_) => {}
            }
            before
        };
        self.ground.tasks.start("change", Ending::Normal, async move {
            let asked = change.clone();
            let answer = this
                .ask(random, |nimbus| {
                    let (name, change) = (name.clone(), asked.clone());
                    async move { nimbus.change(name.as_str(), change, None).await.map(|(id, _)| id) }
                })
                .await;
            let what = format!("{} of {name}", change.verb());
            this.settle(&name, what, &answer, |promise, answer| {
                let alone = promise.n_open == 0;
                match (&change, answer) {
                    (Change::Kill(_), Answer::Done(_)) => promise.killed = Said::Yes,
                    (Change::Kill(_), Answer::Refused(_)) if alone && promise.killed == Said::Perhaps => {
                        promise.killed = before.killed;
                        promise.status = before.status;
                    }
                    (Change::Activate, Answer::Done(_)) if alone => {
                        promise.status = Some(TopologyStatus::Active);
                    }
                    (Change::Deactivate, Answer::Done(_)) if alone => {
                        promise.status = Some(TopologyStatus::Inactive);
                    }
                    (_, Answer::Refused(_)) if alone => promise.status = before.status,
                    (Change::Rebalance(_), Answer::Done(_)) if alone => promise.status = before.status,
                    (_, _) => {}
                }
            });
        });
    }

    /// What they know of each host that was ever to be drained.
    pub(super) fn drains(&self) -> BTreeMap<String, Drain> {
        self.lock_drains().clone()
    }

    /// Asks for a host to be drained or used again, one request at a time.
    pub(super) fn drain(&self, host: &str, change: DrainChange, random: fastrand::Rng) {
        let before = {
            let mut drains = self.lock_drains();
            let drain = drains.entry(host.to_owned()).or_insert(Drain { drained: Said::No, is_open: false });
            if drain.is_open {
                return;
            }
            let before = drain.drained;
            *drain = Drain { drained: Said::Perhaps, is_open: true };
            before
        };
        let (this, host) = (self.clone(), host.to_owned());
        self.ground.tasks.start("drain", Ending::Normal, async move {
            let name: HostName = host.parse().expect("a valid host");
            let answer = this
                .ask(random, |nimbus| {
                    let name = name.clone();
                    async move { nimbus.drain(name, change, None).await }
                })
                .await;
            let drained = match (&answer, change) {
                (Answer::Done(()), DrainChange::Drain { .. }) => Said::Yes,
                (Answer::Done(()), DrainChange::Undrain) => Said::No,
                (Answer::Refused(_), _) => before,
                (Answer::Unknown, _) => Said::Perhaps,
            };
            this.ground.journal().remark(format_args!("{} of {host}: {}", change.verb(), answer.outcome()));
            this.lock_drains().insert(host, Drain { drained, is_open: false });
        });
    }

    fn lock_drains(&self) -> MutexGuard<'_, BTreeMap<String, Drain>> {
        self.drains.lock().expect("no one panics while holding the drains")
    }

    fn settle<T>(
        &self,
        name: &TopologyName,
        what: impl std::fmt::Display,
        answer: &Answer<T>,
        note: impl FnOnce(&mut Promise, &Answer<T>),
    ) {
        self.ground.journal().remark(format_args!("{what}: {}", answer.outcome()));
        let mut promises = self.lock();
        let Some(promise) = promises.get_mut(name) else { return };
        promise.n_open -= 1;
        note(promise, answer);
    }

    /// Asks any nimbus, which passes the request on to the leader.
    async fn ask<T, Fut>(&self, mut random: fastrand::Rng, request: impl Fn(Handle) -> Fut) -> Answer<T>
    where
        Fut: Future<Output = Result<T, Refusal>>,
    {
        let network = &self.ground.network;
        let api = random.choice(self.apis.iter()).expect("there is a nimbus");
        let Some(mut nimbus) = network.reach(api) else {
            return Answer::Refused(format!("nobody answers at {api}"));
        };
        if !nimbus.takes_writes() {
            let leader = nimbus.leader().and_then(|leader| network.reach(&leader.api));
            let Some(leader) = leader else { return Answer::Refused(format!("{api} knows no leader")) };
            nimbus = leader;
        }
        match tokio::time::timeout(PATIENCE, request(nimbus)).await {
            Ok(Ok(done)) => Answer::Done(done),
            Ok(Err(Refusal::OutcomeUnknown)) | Err(_) => Answer::Unknown,
            Ok(Err(refusal)) => Answer::Refused(refusal.to_string()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopologyName, Promise>> {
        self.promises.lock().expect("no one panics while holding the promises")
    }
}

impl<T> Answer<T> {
    fn outcome(&self) -> String {
        match self {
            Self::Done(_) => "done".to_owned(),
            Self::Refused(reason) => format!("refused, {reason}"),
            Self::Unknown => "nobody knows".to_owned(),
        }
    }
}

impl PartialOrd for Said {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Said {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

/// Puts the blob and submits it, as the command line does.
async fn submit(nimbus: Handle, bundle: Bundle) -> Result<TopologyId, Refusal> {
    let Bundle { key, bytes } = bundle;
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
    nimbus.blobs().put(&key, body).await?;
    let submission = Submission {
        name: None,
        blob: key,
        owner: "ann".to_owned(),
        by: None,
        status: TopologyStatus::Active,
    };
    nimbus.submit(submission).await.map(|(id, _)| id)
}

/// The `n`th topology: a spout and a bolt.
fn topology(n: usize, workers: u32, parallelism: u32) -> Topology {
    let component = |kind, outputs, inputs| Component {
        kind,
        parallelism,
        run: Run::Command(vec!["component".to_owned()]),
        outputs,
        inputs,
        settings: Default::default(),
    };
    let stream = StreamId::default_stream();
    let declared = StreamDeclaration { fields: vec!["line".to_owned()], direct: false };
    let spout = component(ComponentKind::Spout, [(stream.clone(), declared)].into(), Vec::new());
    let [lines, count] = ["lines", "count"].map(|name| name.parse().expect("a valid id"));
    let input = Input { from: lines, stream, grouping: Grouping::Shuffle };
    let bolt = component(ComponentKind::Bolt, Default::default(), vec![input]);
    let lines = "lines".parse().expect("a valid id");
    Topology {
        name: format!("t{n}").parse().expect("a valid name"),
        settings: [
            ("topology.workers".to_owned(), workers.into()),
            ("topology.message.timeout.secs".to_owned(), 10.into()),
        ]
        .into(),
        components: [(lines, spout), (count, bolt)].into(),
    }
}
