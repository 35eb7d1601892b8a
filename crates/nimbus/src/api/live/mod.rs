//! Live numbers of topologies, from the workers by way of the agents of their supervisors.
//!
//! The first reader of a topology starts its hub, which all readers share: [`hub`] asks the agents, [`merge`]
//! adds up what they say. A hub ends some seconds after its last reader. Any nimbus serves them.
//! `docs/design/live.md` has the design.

mod agent;
mod hub;
mod merge;
mod sums;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    Extension, Json,
    body::Body,
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::stream;
use serde::Deserialize;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::Sleep,
};

use super::{
    Api,
    error::{ApiError, PathPart},
};
use crate::change::find;
use hub::{Published, Run};
use stormkeeper_api_types::message::{Code, live::TopologyLive};
use stormkeeper_model::{TopologyId, clock::Monotonic};
use stormkeeper_runtime::tasks::{OnExit, Tasks};
use stormkeeper_serving::{Closing, Limits, query::ValidQuery};

/// Media type of server-sent events.
pub(super) const EVENTS: &str = "text/event-stream";

/// Maximum number of topologies whose numbers are read at the same time.
const HUBS_MAX: usize = 64;

/// Longest wait for numbers of all workers.
const WAIT_MAX: Duration = Duration::from_secs(3);

/// Time after which a stream ends: the next one needs a proof that is still valid.
const STREAM_MAX: Duration = Duration::from_secs(300);

/// Begin of a stream: the time after which a reader comes back.
const BEGIN: &str = "retry: 1000\n\n";

/// End of a stream whose topology is gone.
const GONE: &str = "event: end\ndata: {}\n\n";

/// Topologies whose live numbers somebody reads. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Hubs(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    // Guards the hubs; held for a few instructions.
    hubs: Mutex<BTreeMap<TopologyId, Arc<Hub>>>,
    streams: Arc<Semaphore>,
    tasks: Tasks,
}

/// Numbers of one topology.
#[derive(Debug)]
struct Hub {
    state: watch::Sender<Shown>,
    // Time of the last sign of a reader; guarded for a few instructions.
    touched: Mutex<Monotonic>,
}

/// What a hub shows to its readers.
#[derive(Debug, Clone)]
enum Shown {
    /// It has just begun.
    Nothing,
    Numbers(Arc<Published>),
    /// It has ended.
    Ended {
        is_gone: bool,
    },
}

/// Parameters of one answer.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct LiveQuery {
    /// False to wait for counts only, and not for rates, which need a second more.
    #[serde(default = "yes")]
    rates: bool,
}

fn yes() -> bool {
    true
}

impl Hub {
    fn publish(&self, published: Published) {
        self.state.send_replace(Shown::Numbers(Arc::new(published)));
    }

    /// Returns whether the numbers that are shown have the counts, and the rates, of all workers.
    fn is_complete(&self) -> (bool, bool) {
        match &*self.state.borrow() {
            Shown::Numbers(published) => (published.has_counts, published.has_rates),
            Shown::Nothing | Shown::Ended { .. } => (false, false),
        }
    }

    fn end(&self, is_gone: bool) {
        self.state.send_replace(Shown::Ended { is_gone });
    }

    /// Returns whether somebody reads, or did in the time `idle` before.
    fn is_read(&self, now: Monotonic, idle: Duration) -> bool {
        let mut touched = self.touched.lock().expect("no one panics while holding a time");
        if self.state.receiver_count() > 0 {
            *touched = now;
        }
        now.since(*touched) < idle
    }
}

impl Inner {
    fn hubs(&self) -> MutexGuard<'_, BTreeMap<TopologyId, Arc<Hub>>> {
        self.hubs.lock().expect("no one panics while holding the hubs")
    }
}

impl Hubs {
    /// Creates it without hubs. Streams may have half of the connections within `limits`.
    pub(super) fn new(limits: Limits) -> Self {
        let streams = Arc::new(Semaphore::new((limits.connections() / 2).max(1)));
        Self(Arc::new(Inner { hubs: Mutex::default(), streams, tasks: Tasks::default() }))
    }

    /// Returns the numbers of a topology as they change; starts its hub if there is none.
    fn subscribe(&self, api: &Api, id: &TopologyId) -> Result<watch::Receiver<Shown>, ApiError> {
        let now = api.nimbus.clock().monotonic();
        let mut hubs = self.0.hubs();
        let n_hubs = hubs.len();
        if let Some(hub) = hubs.get(id) {
            *hub.touched.lock().expect("no one panics while holding a time") = now;
            return Ok(hub.state.subscribe());
        }
        if n_hubs >= HUBS_MAX {
            let message = format!("live numbers of {HUBS_MAX} other topologies are read at this nimbus");
            return Err(ApiError::new(Code::NotReady, message, Some("ask another nimbus, or later")));
        }
        let hub = Arc::new(Hub { state: watch::Sender::new(Shown::Nothing), touched: Mutex::new(now) });
        let state = hub.state.subscribe();
        hubs.insert(id.clone(), Arc::clone(&hub));
        let run = Run {
            nimbus: api.nimbus.clone(),
            agents: api.agents.clone(),
            id: id.clone(),
            hub,
            hubs: Arc::downgrade(&self.0),
            tasks: self.0.tasks.child(),
        };
        self.0.tasks.start("live numbers of a topology", OnExit::Ignore, run.run());
        Ok(state)
    }
}

/// Answers with the numbers of now.
pub(super) async fn once(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    ValidQuery(LiveQuery { rates }): ValidQuery<LiveQuery>,
) -> Result<Json<TopologyLive>, ApiError> {
    let id = find(&api.nimbus.observation()?.view, &topology)?;
    let mut state = api.hubs.subscribe(&api, &id)?;
    let is_enough = |shown: &Shown| match shown {
        Shown::Nothing => false,
        Shown::Numbers(published) => published.has_rates || (!rates && published.has_counts),
        Shown::Ended { .. } => true,
    };
    let waiting = async { state.wait_for(is_enough).await.map(|shown| shown.clone()) };
    let waited = tokio::time::timeout(WAIT_MAX, waiting).await;
    // What there is after the wait says what is missing.
    let shown = waited.ok().and_then(Result::ok).unwrap_or_else(|| state.borrow().clone());
    match shown {
        Shown::Numbers(published) => Ok(Json(published.live.clone())),
        Shown::Ended { is_gone: true } => {
            let message = format!("the topology {id} is gone");
            Err(ApiError::new(Code::UnknownTopology, message, None))
        }
        Shown::Nothing | Shown::Ended { is_gone: false } => {
            let message = format!("there are no live numbers of {id} yet");
            Err(ApiError::new(Code::NotReady, message, Some("ask again")))
        }
    }
}

/// Stream to one reader.
struct Reader {
    state: watch::Receiver<Shown>,
    end: Pin<Box<Sleep>>,
    closing: Closing,
    is_over: bool,
    _place: OwnedSemaphorePermit,
}

/// Answers with the numbers of each second.
pub(super) async fn events(
    State(api): State<Api>,
    PathPart(topology): PathPart,
    closing: Option<Extension<Closing>>,
    ValidQuery(NoQuery {}): ValidQuery<NoQuery>,
) -> Result<Response, ApiError> {
    let id = find(&api.nimbus.observation()?.view, &topology)?;
    let full = |_none| {
        let message = "too many streams of live numbers are open at this nimbus";
        ApiError::new(Code::NotReady, message, Some("ask another nimbus, or later"))
    };
    let place = Arc::clone(&api.hubs.0.streams).try_acquire_owned().map_err(full)?;
    let mut state = api.hubs.subscribe(&api, &id)?;
    state.mark_changed();
    let Extension(closing) = closing.unwrap_or_default();
    let end = Box::pin(tokio::time::sleep(STREAM_MAX));
    let reader = Reader { state, end, closing, is_over: false, _place: place };
    let begin = stream::iter([Ok::<_, Infallible>(Bytes::from_static(BEGIN.as_bytes()))]);
    let rest = stream::unfold(reader, async |mut reader| Some((Ok(reader.next().await?), reader)));
    let body = Body::from_stream(futures_util::StreamExt::chain(begin, rest));
    // Proxies that keep parts of a response back would make the numbers old.
    let headers = [(CONTENT_TYPE.as_str(), EVENTS), ("x-accel-buffering", "no")];
    Ok((headers, body).into_response())
}

/// A route without parameters.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct NoQuery {}

impl Reader {
    /// Returns the next event: the newest, if the reader was slow. `None` at the end.
    async fn next(&mut self) -> Option<Bytes> {
        if self.is_over {
            return None;
        }
        loop {
            // Cancel-safe: all only wait, and a change is seen once.
            tokio::select! {
                () = self.closing.0.cancelled() => return None,
                () = &mut self.end => return None,
                changed = self.state.changed() => changed.ok()?,
            }
            match &*self.state.borrow_and_update() {
                Shown::Nothing => {}
                Shown::Numbers(published) => return Some(published.event.clone()),
                Shown::Ended { is_gone } => {
                    self.is_over = true;
                    return is_gone.then(|| Bytes::from_static(GONE.as_bytes()));
                }
            }
        }
    }
}
