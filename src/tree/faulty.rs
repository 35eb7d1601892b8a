//! A tree that goes wrong on purpose: any tree, with faults by plan and by chance.
//!
//! The same seed and the same requests in the same order give the same faults. Without
//! faults in its plan it is transparent. Sessions are ended and cut by
//! [`crate::tree::memory::MemoryTree`] itself.
//!
//! It can also be held, as if its process were frozen: requests wait and no news come in,
//! while the server goes on and may end the session. And it can be killed with its process:
//! nothing that is under way ever comes to an end.

use std::{
    cmp::Ordering,
    collections::BTreeMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use tokio::sync::Notify;

use crate::{
    daemon::{
        tasks::{Ending, Tasks},
        watch,
    },
    tree::{
        Changes, CreateMode, Error, Family, Node, Op, OpResult, ReadTree, Scope, SessionState, Tree,
        TreePath, Version, Watcher, watch::WatchSink,
    },
};

/// What goes wrong with one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fault {
    /// It takes effect, and the answer is lost.
    LostReply,
    /// It is lost, and nobody knows.
    LostRequest,
    /// It is refused with this error, without effect.
    Refused(Error),
}

/// How likely each fault is, from 0 to 1.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Rates {
    /// Of a request to take effect while its answer is lost.
    pub lost_reply: f64,
    /// Of a request to be lost.
    pub lost_request: f64,
    /// Of a request to wait before it is sent.
    pub delay: f64,
    /// The longest such wait.
    pub delay_max: Duration,
    /// Of a changed path not to be told to one watcher.
    pub lost_event: f64,
}

/// Which requests go wrong, and how.
#[derive(Debug, Clone, Default)]
pub struct FaultPlan {
    seed: u64,
    rates: Rates,
    nth_writes: BTreeMap<u64, Fault>,
    last_request: Option<u64>,
}

impl FaultPlan {
    /// Nothing goes wrong.
    pub fn none() -> Self {
        Self::default()
    }

    /// Requests go wrong at random, the same ones for the same `seed`.
    pub fn seeded(seed: u64, rates: Rates) -> Self {
        Self { seed, rates, ..Self::default() }
    }

    /// Makes the `n`th write fail, counted from 1 for the first after the plan is in force.
    /// A multi is one write.
    pub fn fail_nth_write(mut self, n: u64, fault: Fault) -> Self {
        self.nth_writes.insert(n, fault);
        self
    }
}

impl FaultPlan {
    /// The process dies with its `n`th request, read or write, counted from 1: that one
    /// takes effect, its answer is lost, and every later one is refused without effect.
    pub fn die_with_request(mut self, n: u64) -> Self {
        self.last_request = Some(n);
        self
    }
}

/// Wraps a tree and breaks it by a [`FaultPlan`].
#[derive(Debug)]
pub struct FaultyTree {
    inner: Arc<dyn Tree>,
    // Guards the plan and how far it is; held for a few instructions.
    progress: Arc<Mutex<Progress>>,
    gate: watch::Sender<Gate>,
    /// The session as the process sees it.
    session: watch::Sender<SessionState>,
    /// Own the tasks that pass changes on.
    relays: Tasks,
}

#[derive(Debug)]
struct Progress {
    plan: FaultPlan,
    random: fastrand::Rng,
    n_requests: u64,
    n_writes: u64,
    n_watches: u64,
}

/// Whether anything passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gate {
    Open,
    Held,
    /// Never opened again.
    Shut,
}

/// What is to happen to one request.
struct Fate {
    delay: Duration,
    fault: Option<Fault>,
}

impl FaultyTree {
    /// Breaks `inner` by `plan`.
    pub fn new(inner: Arc<dyn Tree>, plan: FaultPlan) -> Arc<Self> {
        let progress = Arc::new(Mutex::new(Progress::new(plan)));
        let (gate, open) = watch::channel(Gate::Open);
        let seen = inner.session();
        let session = watch::Sender::new(*seen.borrow());
        let relays = Tasks::default();
        relays.start("faulty-session", Ending::Normal, relay_session(seen, session.clone(), open));
        Arc::new(Self { inner, progress, gate, session, relays })
    }

    /// Freezes the process: nothing passes in either direction until [`FaultyTree::let_go`].
    pub fn hold(&self) {
        self.turn(Gate::Open, Gate::Held);
    }

    /// Thaws the process. What it had under way goes out; of a session that ended meanwhile
    /// it fails.
    pub fn let_go(&self) {
        self.turn(Gate::Held, Gate::Open);
    }

    fn turn(&self, from: Gate, to: Gate) {
        self.gate.send_if_modified(|gate| {
            let turns = *gate == from;
            if turns {
                *gate = to;
            }
            turns
        });
    }

    /// Kills the process: nothing passes any more, and what is under way never ends. The
    /// server does not know; the session lives on until it is ended there.
    pub fn kill(&self) {
        self.gate.send_replace(Gate::Shut);
    }

    /// Goes on by another plan; its count of writes starts over. [`FaultPlan::none`] heals.
    pub fn set_plan(&self, plan: FaultPlan) {
        *lock(&self.progress) = Progress::new(plan);
    }

    /// Whether the process has died of its plan ([`FaultPlan::die_with_request`]).
    pub fn is_dead(&self) -> bool {
        let progress = lock(&self.progress);
        progress.plan.last_request.is_some_and(|last| progress.n_requests >= last)
    }

    /// How many writes were made since the plan is in force.
    pub fn n_writes(&self) -> u64 {
        lock(&self.progress).n_writes
    }

    async fn write<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let fate = lock(&self.progress).next_write();
        self.meet(fate, request).await
    }

    async fn read<T>(&self, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let fate = lock(&self.progress).next_request();
        self.meet(fate, request).await
    }

    /// Lets `request` meet its fate. It is sent when it is first polled, so not polling it
    /// loses it.
    async fn meet<T>(&self, fate: Fate, request: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let session = self.session.borrow().connected();
        let mut gate = self.gate.subscribe();
        let waits = !fate.delay.is_zero() || *gate.borrow() != Gate::Open;
        if waits {
            tokio::time::sleep(fate.delay).await;
            pass(&mut gate).await;
            // The server knows a request by the session that it was made in.
            if session != self.inner.session().borrow().connected() {
                return Err(Error::SessionExpired);
            }
        }
        match fate.fault {
            None => request.await,
            Some(Fault::LostRequest) => {
                Err(Error::ConnectionLost("the request was lost on purpose".to_owned()))
            }
            Some(Fault::Refused(error)) => Err(error),
            Some(Fault::LostReply) => {
                let _lost = request.await;
                Err(Error::ConnectionLost("the answer was lost on purpose".to_owned()))
            }
        }
    }
}

/// Waits until the gate is open; for ever when it is shut.
async fn pass(gate: &mut watch::Receiver<Gate>) {
    if gate.wait_for(|gate| *gate == Gate::Open).await.is_err() {
        // The tree is gone, and whoever waits here goes with it.
        std::future::pending().await
    }
}

fn lock(progress: &Mutex<Progress>) -> MutexGuard<'_, Progress> {
    progress.lock().expect("no one panics while holding the plan of faults")
}

impl Progress {
    fn new(plan: FaultPlan) -> Self {
        let random = fastrand::Rng::with_seed(plan.seed);
        Self { plan, random, n_requests: 0, n_writes: 0, n_watches: 0 }
    }

    fn next_write(&mut self) -> Fate {
        self.n_writes += 1;
        let chance = self.next_request();
        match self.plan.nth_writes.get(&self.n_writes) {
            Some(fault) => Fate { fault: Some(fault.clone()), ..chance },
            None => chance,
        }
    }

    fn next_request(&mut self) -> Fate {
        self.n_requests += 1;
        let end = match self.plan.last_request.map(|last| self.n_requests.cmp(&last)) {
            None | Some(Ordering::Less) => None,
            Some(Ordering::Equal) => Some(Fault::LostReply),
            Some(Ordering::Greater) => Some(Fault::Refused(Error::Disconnected)),
        };
        let rates = self.plan.rates;
        // As many draws for each request, so that one rate does not shift the others' luck.
        let (dice, hesitation, share) = (self.random.f64(), self.random.f64(), self.random.f64());
        let fault = if dice < rates.lost_reply {
            Some(Fault::LostReply)
        } else if dice < rates.lost_reply + rates.lost_request {
            Some(Fault::LostRequest)
        } else {
            None
        };
        let delay = if hesitation < rates.delay { rates.delay_max.mul_f64(share) } else { Duration::ZERO };
        Fate { delay, fault: end.or(fault) }
    }

    /// The luck of a new watcher, its own, so that the order in which watchers are woken
    /// does not matter.
    fn next_watch(&mut self) -> fastrand::Rng {
        self.n_watches += 1;
        fastrand::Rng::with_seed(self.plan.seed.wrapping_add(self.n_watches))
    }
}

/// Passes changes of the session on, whenever the gate is open.
async fn relay_session(
    mut seen: watch::Receiver<SessionState>,
    session: watch::Sender<SessionState>,
    mut gate: watch::Receiver<Gate>,
) {
    while seen.changed().await.is_ok() {
        pass(&mut gate).await;
        let state = *seen.borrow_and_update();
        session.send_if_modified(|shown| std::mem::replace(shown, state) != state);
    }
}

/// Passes changes on until the watcher behind `sink` is dropped, leaving some out.
async fn relay(
    mut inner: Watcher,
    sink: WatchSink,
    dropped: Arc<Notify>,
    progress: Arc<Mutex<Progress>>,
    mut gate: watch::Receiver<Gate>,
    mut random: fastrand::Rng,
) {
    loop {
        let changes = tokio::select! {
            biased;
            // Cancel-safe both: changes that are not returned stay pending.
            () = dropped.notified() => return,
            changes = async {
                inner.wait().await;
                pass(&mut gate).await;
                inner.take()
            } => changes,
        };
        let Some(changes) = changes else { continue };
        match changes {
            // Said at the start and after a reconnect, when no tree forgets to say it.
            Changes::Everything => sink.note_everything(),
            Changes::Paths(paths) => {
                let rate = lock(&progress).plan.rates.lost_event;
                paths.iter().filter(|_| random.f64() >= rate).for_each(|path| sink.note(path));
            }
        }
    }
}

#[async_trait]
impl ReadTree for FaultyTree {
    async fn get(&self, path: &TreePath) -> Result<Option<Node>, Error> {
        self.read(self.inner.get(path)).await
    }

    async fn children(&self, path: &TreePath) -> Result<Option<Vec<String>>, Error> {
        self.read(self.inner.children(path)).await
    }

    async fn get_many(&self, paths: &[TreePath]) -> Result<Vec<Option<Family>>, Error> {
        self.read(self.inner.get_many(paths)).await
    }

    fn watch(&self, path: &TreePath, scope: Scope) -> Watcher {
        let inner = self.inner.watch(path, scope);
        let dropped = Arc::new(Notify::new());
        let (watcher, sink) = Watcher::with_drop_notice(path, scope, &dropped);
        let random = lock(&self.progress).next_watch();
        let relay = relay(inner, sink, dropped, Arc::clone(&self.progress), self.gate.subscribe(), random);
        self.relays.start("faulty-watch", Ending::Normal, relay);
        watcher
    }

    fn session(&self) -> watch::Receiver<SessionState> {
        self.session.subscribe()
    }
}

#[async_trait]
impl Tree for FaultyTree {
    async fn create(&self, path: &TreePath, data: &[u8], mode: CreateMode) -> Result<TreePath, Error> {
        self.write(self.inner.create(path, data, mode)).await
    }

    async fn set(&self, path: &TreePath, data: &[u8], expected: Option<Version>) -> Result<Version, Error> {
        self.write(self.inner.set(path, data, expected)).await
    }

    async fn delete(&self, path: &TreePath, expected: Option<Version>) -> Result<(), Error> {
        self.write(self.inner.delete(path, expected)).await
    }

    async fn multi(&self, ops: Vec<Op>) -> Result<Vec<OpResult>, Error> {
        self.write(self.inner.multi(ops)).await
    }

    async fn close(&self) {
        pass(&mut self.gate.subscribe()).await;
        self.inner.close().await;
        self.session.send_replace(SessionState::Closed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{
        Outcome,
        contract::{Sessions, run_all},
        memory::MemoryTree,
    };

    fn path(text: &str) -> TreePath {
        text.parse().expect("valid path")
    }

    fn faulty(plan: FaultPlan) -> (MemoryTree, Arc<FaultyTree>) {
        let server = MemoryTree::new();
        let tree = FaultyTree::new(server.connect(), plan);
        (server, tree)
    }

    #[tokio::test]
    async fn without_faults_it_keeps_the_contract() {
        run_all(async |_| {
            let server = MemoryTree::new();
            Sessions::new(move || {
                let tree: Arc<dyn Tree> = FaultyTree::new(server.connect(), FaultPlan::none());
                async move { tree }
            })
        })
        .await;
    }

    #[tokio::test]
    async fn the_nth_write_fails_as_told() {
        let plan = FaultPlan::none()
            .fail_nth_write(2, Fault::LostReply)
            .fail_nth_write(3, Fault::LostRequest)
            .fail_nth_write(4, Fault::Refused(Error::Disconnected));
        let (_server, tree) = faulty(plan);
        let mut seen = Vec::new();
        for name in ["/a", "/b", "/c", "/d", "/e"] {
            let created = tree.create(&path(name), b"", CreateMode::Persistent).await;
            let is_there = tree.get(&path(name)).await.expect("reads are not writes").is_some();
            seen.push((created.map_err(|error| error.outcome()).err(), is_there));
        }
        let unknown = Some(Outcome::Unknown);
        let wanted = [
            (None, true),
            (unknown, true),
            (unknown, false),
            (Some(Outcome::NotApplied), false),
            (None, true),
        ];
        assert_eq!(seen, wanted);
        assert_eq!(tree.n_writes(), 5);
    }

    /// What becomes of a few hundred writes.
    async fn course(seed: u64) -> Vec<(bool, bool)> {
        let rates = Rates { lost_reply: 0.2, lost_request: 0.2, ..Rates::default() };
        let (server, tree) = faulty(FaultPlan::seeded(seed, rates));
        let honest = server.connect();
        let mut course = Vec::new();
        for i in 0..300 {
            let at = path(&format!("/{i}"));
            let answered = tree.create(&at, b"", CreateMode::Persistent).await.is_ok();
            course.push((answered, honest.get(&at).await.expect("read").is_some()));
        }
        course
    }

    #[tokio::test]
    async fn the_same_seed_gives_the_same_faults() {
        let course_of_seven = course(7).await;
        assert_eq!(course_of_seven, course(7).await);
        assert_ne!(course_of_seven, course(8).await);
        for kind in [(true, true), (false, true), (false, false)] {
            let n = course_of_seven.iter().filter(|seen| **seen == kind).count();
            assert!(n > 20, "{n} of 300 were {kind:?}");
        }
        assert!(!course_of_seven.contains(&(true, false)), "an answer for nothing");
    }

    #[tokio::test(start_paused = true)]
    async fn delays_are_bounded_and_healing_ends_them() {
        let delay_max = Duration::from_secs(3);
        let rates = Rates { delay: 1.0, delay_max, ..Rates::default() };
        let (_server, tree) = faulty(FaultPlan::seeded(1, rates));
        let clock = crate::clock::Clock::new();
        let start = clock.monotonic();
        for _ in 0..10 {
            tree.get(&TreePath::root()).await.expect("late, but read");
        }
        let waited = clock.monotonic().since(start);
        assert!(waited > Duration::from_secs(1) && waited <= 10 * delay_max, "{waited:?}");
        tree.set_plan(FaultPlan::none());
        let healed = clock.monotonic();
        tree.get(&TreePath::root()).await.expect("read");
        assert_eq!(clock.monotonic().since(healed), Duration::ZERO);
    }

    #[tokio::test]
    async fn lost_events_are_not_heard_but_everything_is() {
        let rates = Rates { lost_event: 1.0, ..Rates::default() };
        let (server, tree) = faulty(FaultPlan::seeded(1, rates));
        let mut watcher = tree.watch(&TreePath::root(), Scope::Subtree);
        assert_eq!(watcher.changed().await, Changes::Everything);
        tree.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");
        let session = tree.session().borrow().connected().expect("connected");
        server.expire(session);
        assert_eq!(watcher.changed().await, Changes::Everything, "the creation was to be lost");
    }

    #[tokio::test(start_paused = true)]
    async fn while_it_is_held_nothing_passes_and_the_server_goes_on() {
        let (server, tree) = faulty(FaultPlan::none());
        let other = server.connect();
        let mut watcher = tree.watch(&path("/a"), Scope::Node);
        assert_eq!(watcher.changed().await, Changes::Everything);
        let pause = Duration::from_secs(60);
        tree.hold();
        other.create(&path("/a"), b"", CreateMode::Persistent).await.expect("created");
        let held = tokio::time::timeout(pause, tree.create(&path("/b"), b"", CreateMode::Persistent)).await;
        assert!(held.is_err() && watcher.take().is_none(), "something passed");
        tree.let_go();
        assert_eq!(watcher.changed().await, Changes::Paths([path("/a")].into()));
        tree.create(&path("/b"), b"", CreateMode::Persistent).await.expect("created");

        // A request from before the end of the session is not one of the next session.
        tree.hold();
        let old = tree.session().borrow().connected().expect("connected");
        let at = path("/c");
        let late = tree.create(&at, b"", CreateMode::Ephemeral);
        let thaw = async {
            tokio::time::sleep(pause).await;
            server.expire(old);
            assert_eq!(tree.session().borrow().connected(), Some(old), "it cannot know yet");
            tree.let_go();
        };
        assert_eq!(tokio::join!(late, thaw).0, Err(Error::SessionExpired));
        assert_eq!(other.get(&at).await, Ok(None));
        tree.session().wait_for(|state| state.connected() != Some(old)).await.expect("it hears of it");

        tree.kill();
        tree.let_go();
        assert!(tokio::time::timeout(pause, tree.get(&path("/b"))).await.is_err(), "the dead answer");
        assert_eq!(server.sessions().len(), 2, "the server cannot know");
    }

    #[tokio::test]
    async fn a_dropped_watcher_ends_its_relay() {
        let (_server, tree) = faulty(FaultPlan::none());
        for _ in 0..100 {
            tree.watch(&path("/a"), Scope::Node).changed().await;
        }
        crate::test_support::wait_until("no relay is left", Duration::from_secs(10), async || {
            // Each relay shares the plan.
            match Arc::strong_count(&tree.progress) {
                1 => Ok(()),
                n => Err(format!("{} relays", n - 1)),
            }
        })
        .await;
    }
}
