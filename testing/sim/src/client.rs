//! Users of the cluster: their requests, and the promises that they received.

use std::{
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use bytes::Bytes;

use crate::environment::Environment;
use stormkeeper_api_types::message::UpdateRequest;
use stormkeeper_model::{
    HostName, StreamId, TopologyId, TopologyName,
    status::TopologyStatus,
    topology::{Component, ComponentKind, Grouping, Input, Run, StreamDeclaration, Topology},
};
use stormkeeper_nimbus::{Handle, change::Change, drain::DrainChange, handle::Submission, refusal::Refusal};
use stormkeeper_runtime::tasks::OnExit;
use stormkeeper_topology_package::{package, package::TopologyPackage};

/// Time for which a user waits for a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(60);

/// Knowledge of a user about one of their topologies. Each name is submitted once.
#[derive(Debug, Clone, Default)]
pub(super) struct Promise {
    /// Maximum number of its workers, for every possible outcome of the last request.
    pub(super) workers_max: u32,
    pub(super) submitted: RequestState,
    pub(super) killed: RequestState,
    /// Status that was last promised; none when a response is missing.
    pub(super) status: Option<TopologyStatus>,
    /// Requests under way.
    pub(super) n_open: usize,
    /// Number, workers and parallelism with which it was submitted.
    made: (usize, u32, u32),
    /// Number of updates that were requested: each has a package of its own.
    n_updates: u64,
}

/// State of a request.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum RequestState {
    /// Nothing was requested, or the request was rejected.
    #[default]
    NotDone,
    /// The outcome is unknown.
    Unknown,
    /// The request was applied.
    Done,
}

/// Outcome of a request.
enum Response<T> {
    Done(T),
    /// Certainly not applied.
    Rejected(String),
    Unknown,
}

/// All users of the cluster. Clones share their state.
#[derive(Debug, Clone)]
pub(super) struct Clients {
    env: Arc<Environment>,
    apis: Arc<Vec<String>>,
    // Guards the users' knowledge of topologies; held for a few instructions.
    promises: Arc<Mutex<BTreeMap<TopologyName, Promise>>>,
    // Guards the users' knowledge of drains; held for a few instructions.
    drains: Arc<Mutex<BTreeMap<String, Drain>>>,
}

/// Knowledge of a host for which a drain was requested.
#[derive(Debug, Clone, Copy)]
pub(super) struct Drain {
    pub(super) drained: RequestState,
    pub(super) is_open: bool,
}

impl Clients {
    pub(super) fn new(env: &Arc<Environment>, apis: Vec<String>) -> Self {
        Self { env: Arc::clone(env), apis: Arc::new(apis), promises: Arc::default(), drains: Arc::default() }
    }

    /// The users' knowledge of each topology that was ever submitted.
    pub(super) fn promises(&self) -> BTreeMap<TopologyName, Promise> {
        self.lock().clone()
    }

    /// Submits a topology and waits for the response in a separate task.
    pub(super) fn submit(&self, n: usize, workers: u32, parallelism: u32, random: fastrand::Rng) {
        let topology = topology(n, workers, parallelism);
        let (this, name) = (self.clone(), topology.name.clone());
        self.lock().insert(
            name.clone(),
            Promise {
                workers_max: workers,
                submitted: RequestState::Unknown,
                status: Some(TopologyStatus::Active),
                n_open: 1,
                made: (n, workers, parallelism),
                ..Promise::default()
            },
        );
        self.env.tasks.start("submit", OnExit::Ignore, async move {
            let bundle = package::pack(&topology, None, Vec::new(), 1 << 20).expect("a small topology");
            let response = this.request(random, |nimbus| submit(nimbus, bundle.clone())).await;
            this.record_response(&name, format_args!("submit of {name}"), &response, |promise, response| {
                promise.submitted = match response {
                    Response::Done(_) => RequestState::Done,
                    Response::Rejected(_) => RequestState::NotDone,
                    Response::Unknown => RequestState::Unknown,
                }
            });
        });
    }

    /// Requests a change and waits for the response in a separate task.
    pub(super) fn change(&self, name: &TopologyName, change: Change, random: fastrand::Rng) {
        let (this, name) = (self.clone(), name.clone());
        let before = {
            let mut promises = self.lock();
            let Some(promise) = promises.get_mut(&name) else { return };
            let before = promise.clone();
            promise.n_open += 1;
            promise.status = None;
            match &change {
                Change::Kill(_) => promise.killed = promise.killed.max(RequestState::Unknown),
                Change::Rebalance(request) => {
                    promise.workers_max = promise.workers_max.max(request.workers.unwrap_or(0));
                }
                Change::Activate
                | Change::Deactivate
                | Change::Metrics(_)
                | Change::LogLevel(_)
                | Change::Sample(_)
                | Change::Update(_)
                | Change::Credentials(_) => {}
            }
            before
        };
        self.env.tasks.start("change", OnExit::Ignore, async move {
            let asked = change.clone();
            let response = this
                .request(random, |nimbus| {
                    let (name, change) = (name.clone(), asked.clone());
                    async move { nimbus.change(name.as_str(), change, None).await.map(|(id, _)| id) }
                })
                .await;
            let what = format!("{} of {name}", change.verb());
            this.record_response(&name, what, &response, |promise, response| {
                let alone = promise.n_open == 0;
                match (&change, response) {
                    (Change::Kill(_), Response::Done(_)) => promise.killed = RequestState::Done,
                    (Change::Kill(_), Response::Rejected(_))
                        if alone && promise.killed == RequestState::Unknown =>
                    {
                        promise.killed = before.killed;
                        promise.status = before.status;
                    }
                    (Change::Activate, Response::Done(_)) if alone => {
                        promise.status = Some(TopologyStatus::Active);
                    }
                    (Change::Deactivate, Response::Done(_)) if alone => {
                        promise.status = Some(TopologyStatus::Inactive);
                    }
                    (_, Response::Rejected(_)) if alone => promise.status = before.status,
                    (Change::Rebalance(_), Response::Done(_)) if alone => promise.status = before.status,
                    (_, _) => {}
                }
            });
        });
    }

    /// Requests an update to another package and waits for the response in a separate task. What was
    /// promised stays as it is.
    pub(super) fn update(&self, name: &TopologyName, at_once: u32, random: fastrand::Rng) {
        let (this, name) = (self.clone(), name.clone());
        let topology = {
            let mut promises = self.lock();
            let Some(promise) = promises.get_mut(&name) else { return };
            promise.n_open += 1;
            promise.n_updates += 1;
            let (n, workers, parallelism) = promise.made;
            let mut topology = topology(n, workers, parallelism);
            topology.settings.insert("code".to_owned(), promise.n_updates.into());
            topology
        };
        self.env.tasks.start("update", OnExit::Ignore, async move {
            let bundle = package::pack(&topology, None, Vec::new(), 1 << 20).expect("a small topology");
            let response =
                this.request(random, |nimbus| update(nimbus, name.clone(), bundle.clone(), at_once)).await;
            this.record_response(&name, format_args!("update of {name}"), &response, |_, _| {});
        });
    }

    /// The users' knowledge of each host for which a drain was ever requested.
    pub(super) fn drains(&self) -> BTreeMap<String, Drain> {
        self.lock_drains().clone()
    }

    /// Requests to drain or undrain a host, one request at a time.
    pub(super) fn drain(&self, host: &str, change: DrainChange, random: fastrand::Rng) {
        let before = {
            let mut drains = self.lock_drains();
            let drain = drains
                .entry(host.to_owned())
                .or_insert(Drain { drained: RequestState::NotDone, is_open: false });
            if drain.is_open {
                return;
            }
            let before = drain.drained;
            *drain = Drain { drained: RequestState::Unknown, is_open: true };
            before
        };
        let (this, host) = (self.clone(), host.to_owned());
        self.env.tasks.start("drain", OnExit::Ignore, async move {
            let name: HostName = host.parse().expect("a valid host");
            let response = this
                .request(random, |nimbus| {
                    let name = name.clone();
                    async move { nimbus.drain(name, change, None).await }
                })
                .await;
            let drained = match (&response, change) {
                (Response::Done(()), DrainChange::Drain { .. }) => RequestState::Done,
                (Response::Done(()), DrainChange::Undrain) => RequestState::NotDone,
                (Response::Rejected(_), _) => before,
                (Response::Unknown, _) => RequestState::Unknown,
            };
            this.env.journal().log(format_args!("{} of {host}: {}", change.verb(), response.outcome()));
            this.lock_drains().insert(host, Drain { drained, is_open: false });
        });
    }

    fn lock_drains(&self) -> MutexGuard<'_, BTreeMap<String, Drain>> {
        self.drains.lock().expect("no one panics while holding the drains")
    }

    fn record_response<T>(
        &self,
        name: &TopologyName,
        what: impl std::fmt::Display,
        response: &Response<T>,
        update: impl FnOnce(&mut Promise, &Response<T>),
    ) {
        self.env.journal().log(format_args!("{what}: {}", response.outcome()));
        let mut promises = self.lock();
        let Some(promise) = promises.get_mut(name) else { return };
        promise.n_open -= 1;
        update(promise, response);
    }

    /// Sends a request to a random nimbus, which forwards it to the leader.
    async fn request<T, Fut>(&self, mut random: fastrand::Rng, request: impl Fn(Handle) -> Fut) -> Response<T>
    where
        Fut: Future<Output = Result<T, Refusal>>,
    {
        let network = &self.env.network;
        let api = random.choice(self.apis.iter()).expect("there is a nimbus");
        let Some(mut nimbus) = network.reach(api) else {
            return Response::Rejected(format!("no nimbus responds at {api}"));
        };
        if !nimbus.takes_writes() {
            let leader = nimbus.leader().and_then(|leader| network.reach(&leader.api));
            let Some(leader) = leader else { return Response::Rejected(format!("{api} knows no leader")) };
            nimbus = leader;
        }
        match tokio::time::timeout(RESPONSE_TIMEOUT, request(nimbus)).await {
            Ok(Ok(done)) => Response::Done(done),
            Ok(Err(Refusal::OutcomeUnknown)) | Err(_) => Response::Unknown,
            Ok(Err(refusal)) => Response::Rejected(refusal.to_string()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<TopologyName, Promise>> {
        self.promises.lock().expect("no one panics while holding the promises")
    }
}

impl<T> Response<T> {
    fn outcome(&self) -> String {
        match self {
            Self::Done(_) => "done".to_owned(),
            Self::Rejected(reason) => format!("rejected, {reason}"),
            Self::Unknown => "outcome unknown".to_owned(),
        }
    }
}

impl PartialOrd for RequestState {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for RequestState {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (*self as u8).cmp(&(*other as u8))
    }
}

/// Uploads the topology package and submits it, as the command line does.
async fn submit(nimbus: Handle, bundle: TopologyPackage) -> Result<TopologyId, Refusal> {
    let TopologyPackage { key, bytes } = bundle;
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

/// Uploads another topology package and begins an update to it, as the command line does.
async fn update(
    nimbus: Handle,
    name: TopologyName,
    bundle: TopologyPackage,
    at_once: u32,
) -> Result<TopologyId, Refusal> {
    let TopologyPackage { key, bytes } = bundle;
    let body = futures_util::stream::iter([Ok::<_, std::io::Error>(Bytes::from(bytes))]);
    nimbus.blobs().put(&key, body).await?;
    let request = UpdateRequest { blob: key, at_once: Some(at_once) };
    nimbus.update(name.as_str(), request, None).await.map(|(id, _)| id)
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
            // Every other one grows back.
            ("topology.grow.back".to_owned(), n.is_multiple_of(2).into()),
            ("topology.grow.back.delay.secs".to_owned(), 20.into()),
        ]
        .into(),
        components: [(lines, spout), (count, bolt)].into(),
        program: None,
        given_at_submission: Default::default(),
    }
}
