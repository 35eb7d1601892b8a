//! Fault injection: wraps any tree and adds planned and random faults.
//!
//! The same seed and the same requests in the same order give the same faults. Without faults in
//! its plan the wrapper is transparent. Sessions are expired and disconnected by
//! [`crate::tree::memory::MemoryTree`] itself.
//!
//! The wrapper can also be held, as if its process were frozen: requests wait and no changes
//! arrive, while the server continues and may end the session. And the wrapper can be killed with
//! its process: no request in flight ever completes.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::tree::{
    Changes, CreateMode, Error, Node, NodeFacts, NodeWithChildren, Op, OpResult, ReadTree, Scope,
    SessionState, Tree, TreePath, Version, Watcher, watch::WatchSink,
};
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

/// Fault of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TreeFault {
    /// The request takes effect, but its response is lost.
    LostResponse,
    /// The request is lost and has no effect; the outcome is unknown to the caller.
    LostRequest,
    /// The request is rejected with this error and has no effect.
    Refused(Error),
}

/// Probability of each fault, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct FaultRates {
    /// Probability that a request takes effect while its response is lost.
    pub lost_response: f64,
    /// Probability that a request is lost.
    pub lost_request: f64,
    /// Probability that a request is delayed before it is sent.
    pub delay: f64,
    /// Maximum delay.
    pub delay_max: Duration,
    /// Probability that a changed path is not reported to a watcher.
    pub lost_event: f64,
}

/// Planned faults: which requests fail, and how.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    seed: u64,
    rates: FaultRates,
    nth_writes: BTreeMap<u64, TreeFault>,
    last_request: Option<u64>,
    denied: BTreeSet<TreePath>,
}

impl FaultPlan {
    /// Returns a plan without faults.
    pub fn none() -> Self {
        Self::default()
    }

    /// Returns a plan with random faults, the same faults for the same `seed`.
    pub fn seeded(seed: u64, rates: FaultRates) -> Self {
        Self { seed, rates, ..Self::default() }
    }

    /// Does not let this connection read or write these znodes, nor create or delete their children, as
    /// after a change of their access control lists.
    pub fn deny(mut self, paths: impl IntoIterator<Item = TreePath>) -> Self {
        self.denied.extend(paths);
        self
    }

    /// Makes the `n`th write fail, counted from 1 for the first write after the plan is set. A
    /// multi is one write.
    pub fn fail_nth_write(mut self, n: u64, fault: TreeFault) -> Self {
        self.nth_writes.insert(n, fault);
        self
    }
}

impl FaultPlan {
    /// Makes the process die with its `n`th request, read or write, counted from 1: that request
    /// takes effect, its response is lost, and every later request is rejected without effect.
    pub fn die_with_request(mut self, n: u64) -> Self {
        self.last_request = Some(n);
        self
    }
}

/// Wraps a tree and injects the faults of a [`FaultPlan`].
#[derive(Debug)]
pub struct FaultyTree {
    inner: Arc<dyn Tree>,
    // Guards the plan and its counters; held for a few instructions.
    plan_state: Arc<Mutex<PlanState>>,
    gate: watch::Sender<Gate>,
    /// The session as the process sees it.
    session: watch::Sender<SessionState>,
    /// Owns the tasks that forward changes.
    relays: Tasks,
}

#[derive(Debug)]
struct PlanState {
    plan: FaultPlan,
    random: fastrand::Rng,
    n_requests: u64,
    n_writes: u64,
    n_watches: u64,
}

/// State of the wrapper: whether requests and changes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Frozen,
    /// Never opened again.
    Killed,
}

/// Delay and fault of one request.
struct PlannedFault {
    delay: Duration,
    fault: Option<TreeFault>,
}

impl FaultyTree {
    /// Wraps `inner` with the faults of `plan`.
    pub fn new(inner: Arc<dyn Tree>, plan: FaultPlan) -> Arc<Self> {
        let plan_state = Arc::new(Mutex::new(PlanState::new(plan)));
        let (gate, open) = watch::channel(Gate::Open);
        let seen = inner.session();
        let session = watch::Sender::new(*seen.borrow());
        let relays = Tasks::default();
        relays.start("faulty-session", OnExit::Ignore, relay_session(seen, session.clone(), open));
        Arc::new(Self { inner, plan_state, gate, session, relays })
    }

    /// Freezes the process: nothing passes in either direction until [`FaultyTree::thaw`].
    pub fn freeze(&self) {
        self.switch_gate(Gate::Open, Gate::Frozen);
    }

    /// Unfreezes the process. Waiting requests are sent; requests of a session that has ended in
    /// between fail.
    pub fn thaw(&self) {
        self.switch_gate(Gate::Frozen, Gate::Open);
    }

    fn switch_gate(&self, from: Gate, to: Gate) {
        self.gate.send_if_modified(|gate| {
            let switches = *gate == from;
            if switches {
                *gate = to;
            }
            switches
        });
    }

    /// Kills the process: nothing passes any more, and requests in flight never complete. The
    /// server does not notice; the session lives on until it is ended on the server.
    pub fn kill(&self) {
        self.gate.send_replace(Gate::Killed);
    }

    /// Replaces the plan and resets its counters. [`FaultPlan::none`] ends all faults.
    pub fn set_plan(&self, plan: FaultPlan) {
        *lock(&self.plan_state) = PlanState::new(plan);
    }

    /// True if the process has died by its plan ([`FaultPlan::die_with_request`]).
    pub fn is_dead(&self) -> bool {
        let plan_state = lock(&self.plan_state);
        plan_state.plan.last_request.is_some_and(|last| plan_state.n_requests >= last)
    }

    /// Returns the number of writes since the plan was set.
    pub fn n_writes(&self) -> u64 {
        lock(&self.plan_state).n_writes
    }

    /// Returns the error for a request about znodes, if one of them is denied.
    fn denied<'a>(&self, mut paths: impl Iterator<Item = &'a TreePath>) -> Option<Error> {
        let plan_state = lock(&self.plan_state);
        let path = paths.find(|path| plan_state.plan.denied.contains(path))?;
        Some(Error::NotAuthorized { path: Some(path.clone()) })
    }

    /// Returns the error for operations, if a znode is denied that one of them reads, writes, or adds a
    /// child to or removes a child from.
    fn denied_ops(&self, ops: &[Op]) -> Option<Error> {
        let denied = ops.iter().enumerate().find_map(|(index, op)| {
            let parent = op.path().parent();
            let concerned = match op {
                Op::Check { path, .. } | Op::Set { path, .. } => Some(path),
                Op::Create { .. } | Op::Delete { .. } => parent.as_ref(),
            };
            Some((index, self.denied(concerned.into_iter())?))
        });
        denied.map(|(index, source)| Error::Multi { index, source: Box::new(source) })
    }

    async fn write<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let planned = lock(&self.plan_state).next_write();
        self.apply(planned, request).await
    }

    async fn read<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let planned = lock(&self.plan_state).next_request();
        self.apply(planned, request).await
    }

    /// Applies `planned` to `request`. A request is sent when it is first polled, so not polling it
    /// loses it.
    async fn apply<T>(
        &self,
        planned: PlannedFault,
        request: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Error> {
        let session = self.session.borrow().connected();
        let mut gate = self.gate.subscribe();
        let waits = !planned.delay.is_zero() || *gate.borrow() != Gate::Open;
        if waits {
            tokio::time::sleep(planned.delay).await;
            until_open(&mut gate).await;
            // The server knows the session in which a request was made.
            if session != self.inner.session().borrow().connected() {
                return Err(Error::SessionExpired);
            }
        }
        match planned.fault {
            None => request.await,
            Some(TreeFault::LostRequest) => {
                Err(Error::ConnectionLost("injected fault: request lost".to_owned()))
            }
            Some(TreeFault::Refused(error)) => Err(error),
            Some(TreeFault::LostResponse) => {
                let _lost = request.await;
                Err(Error::ConnectionLost("injected fault: response lost".to_owned()))
            }
        }
    }
}

/// Waits until the gate is open; for ever if it is shut.
async fn until_open(gate: &mut watch::Receiver<Gate>) {
    if gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
        // The tree has been dropped, and all its callers end with it.
        std::future::pending().await
    }
}

fn lock(plan_state: &Mutex<PlanState>) -> MutexGuard<'_, PlanState> {
    plan_state.lock().expect("no one panics while holding the plan of faults")
}

impl PlanState {
    fn new(plan: FaultPlan) -> Self {
        let random = fastrand::Rng::with_seed(plan.seed);
        Self { plan, random, n_requests: 0, n_writes: 0, n_watches: 0 }
    }

    fn next_write(&mut self) -> PlannedFault {
        self.n_writes += 1;
        let random_fault = self.next_request();
        match self.plan.nth_writes.get(&self.n_writes) {
            Some(fault) => PlannedFault { fault: Some(fault.clone()), ..random_fault },
            None => random_fault,
        }
    }

    fn next_request(&mut self) -> PlannedFault {
        self.n_requests += 1;
        let end = match self.plan.last_request.map(|last| self.n_requests.cmp(&last)) {
            None | Some(Ordering::Less) => None,
            Some(Ordering::Equal) => Some(TreeFault::LostResponse),
            Some(Ordering::Greater) => Some(TreeFault::Refused(Error::Disconnected)),
        };
        let rates = self.plan.rates;
        // The same number of draws for each request, so that a rate does not affect other faults.
        let (fault_draw, delay_draw, delay_fraction) =
            (self.random.f64(), self.random.f64(), self.random.f64());
        let fault = if fault_draw < rates.lost_response {
            Some(TreeFault::LostResponse)
        } else if fault_draw < rates.lost_response + rates.lost_request {
            Some(TreeFault::LostRequest)
        } else {
            None
        };
        let delay =
            if delay_draw < rates.delay { rates.delay_max.mul_f64(delay_fraction) } else { Duration::ZERO };
        PlannedFault { delay, fault: end.or(fault) }
    }

    /// Returns the generator of a new watcher. Each watcher has its own, so that the order in which
    /// watchers are woken does not matter.
    fn next_watch(&mut self) -> fastrand::Rng {
        self.n_watches += 1;
        fastrand::Rng::with_seed(self.plan.seed.wrapping_add(self.n_watches))
    }
}

/// Forwards changes of the session while the gate is open.
async fn relay_session(
    mut seen: watch::Receiver<SessionState>,
    session: watch::Sender<SessionState>,
    mut gate: watch::Receiver<Gate>,
) {
    while seen.changed().await.is_ok() {
        until_open(&mut gate).await;
        let state = *seen.borrow_and_update();
        session.send_if_modified(|shown| std::mem::replace(shown, state) != state);
    }
}

/// Forwards changes until the watcher behind `sink` is dropped, and drops some of them.
async fn relay(
    mut inner: Watcher,
    sink: WatchSink,
    dropped: Arc<Notify>,
    plan_state: Arc<Mutex<PlanState>>,
    mut gate: watch::Receiver<Gate>,
    mut random: fastrand::Rng,
) {
    loop {
        let changes = tokio::select! {
            biased;
            // Both are cancel-safe: changes that are not returned stay pending.
            () = dropped.notified() => return,
            changes = async {
                inner.wait().await;
                until_open(&mut gate).await;
                inner.take()
            } => changes,
        };
        let Some(changes) = changes else { continue };
        match changes {
            // Reported at the start and after a reconnect, which no tree may omit.
            Changes::Everything => sink.note_everything(),
            Changes::Paths(paths) => {
                let rate = lock(&plan_state).plan.rates.lost_event;
                paths.iter().filter(|_| random.f64() >= rate).for_each(|path| sink.note(path));
            }
        }
    }
}

#[async_trait]
impl ReadTree for FaultyTree {
    async fn get(&self, path: &TreePath) -> Result<Option<Node>, Error> {
        match self.denied([path].into_iter()) {
            Some(denial) => self.read(async { Err(denial) }).await,
            None => self.read(self.inner.get(path)).await,
        }
    }

    async fn children(&self, path: &TreePath) -> Result<Option<Vec<String>>, Error> {
        match self.denied([path].into_iter()) {
            Some(denial) => self.read(async { Err(denial) }).await,
            None => self.read(self.inner.children(path)).await,
        }
    }

    async fn get_many(&self, paths: &[TreePath]) -> Result<Vec<Option<NodeWithChildren>>, Error> {
        match self.denied(paths.iter()) {
            Some(denial) => self.read(async { Err(denial) }).await,
            None => self.read(self.inner.get_many(paths)).await,
        }
    }

    async fn facts(&self, path: &TreePath) -> Result<Option<NodeFacts>, Error> {
        match self.denied([path].into_iter()) {
            Some(denial) => self.read(async { Err(denial) }).await,
            None => self.read(self.inner.facts(path)).await,
        }
    }

    fn watch(&self, path: &TreePath, scope: Scope) -> Watcher {
        let inner = self.inner.watch(path, scope);
        let dropped = Arc::new(Notify::new());
        let (watcher, sink) = Watcher::with_drop_notice(path, scope, &dropped);
        let random = lock(&self.plan_state).next_watch();
        let relay = relay(inner, sink, dropped, Arc::clone(&self.plan_state), self.gate.subscribe(), random);
        self.relays.start("faulty-watch", OnExit::Ignore, relay);
        watcher
    }

    fn root(&self) -> &TreePath {
        self.inner.root()
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.session.subscribe()
    }
}

#[async_trait]
impl Tree for FaultyTree {
    async fn create(&self, path: &TreePath, data: &[u8], mode: CreateMode) -> Result<TreePath, Error> {
        match self.denied(path.parent().iter()) {
            Some(denial) => self.write(async { Err(denial) }).await,
            None => self.write(self.inner.create(path, data, mode)).await,
        }
    }

    async fn set(&self, path: &TreePath, data: &[u8], expected: Option<Version>) -> Result<Version, Error> {
        match self.denied(Some(path.clone()).iter()) {
            Some(denial) => self.write(async { Err(denial) }).await,
            None => self.write(self.inner.set(path, data, expected)).await,
        }
    }

    async fn delete(&self, path: &TreePath, expected: Option<Version>) -> Result<(), Error> {
        match self.denied(path.parent().iter()) {
            Some(denial) => self.write(async { Err(denial) }).await,
            None => self.write(self.inner.delete(path, expected)).await,
        }
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, Error> {
        match self.denied_ops(&ops) {
            Some(denial) => self.write(async { Err(denial) }).await,
            None => self.write(self.inner.multi(ops)).await,
        }
    }

    async fn close(&self) {
        until_open(&mut self.gate.subscribe()).await;
        self.inner.close().await;
        self.session.send_replace(SessionState::Closed);
    }
}

#[cfg(test)]
mod tests;
