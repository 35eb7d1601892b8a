//! HTTP between processes: requests to a reachable process are calls in memory.
//!
//! [`Network::call`] is one request: a task of the receiving process, so that the request dies with
//! that process and goes on without its sender. The network can delay a request or its answer, lose
//! the request, or lose the answer after the effect. Requests of a frozen process wait until it
//! thaws, and so do requests to it.

mod ingest;
mod query;
mod replicas;

use std::{
    collections::BTreeMap,
    future::Future,
    path::Path,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use async_trait::async_trait;
use reqwest::StatusCode;
use tokio::sync::oneshot;

use crate::journal::Journal;
use stormkeeper_api_types::blobs::{BlobPeers, FetchBlob, FetchError};
use stormkeeper_api_types::http;
use stormkeeper_model::{BlobKey, Term};
use stormkeeper_nimbus::Handle;
use stormkeeper_runtime::{
    tasks::{OnExit, Tasks},
    watch,
};

pub(crate) use ingest::NetworkIngest;
pub(crate) use query::NetworkQuery;
pub(crate) use replicas::NetworkReplicas;

/// Latency of a request.
pub(super) const LATENCY: Duration = Duration::from_millis(2);

/// Time after which a sender stops to wait for an answer, as over HTTP.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(30);

/// All listening nimbuses, by API address.
#[derive(Debug)]
pub(super) struct Network {
    // Guards the listening nimbuses and the faults; held for a few instructions.
    state: Mutex<State>,
    journal: Arc<Mutex<Journal>>,
}

#[derive(Debug)]
struct State {
    listeners: BTreeMap<String, Listener>,
    faults: NetworkFaults,
    random: fastrand::Rng,
}

#[derive(Debug)]
struct Listener {
    handle: Handle,
    is_frozen: watch::Sender<bool>,
    /// The requests that the process is answering.
    requests: Tasks,
}

/// Faults of the network: probabilities per request.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct NetworkFaults {
    /// The request is lost.
    pub(super) lost_request: f64,
    /// The answer is lost after the request took effect.
    pub(super) lost_answer: f64,
    /// The request, or the answer, is delayed by up to `delay_max`.
    pub(super) delay: f64,
    pub(super) delay_max: Duration,
}

/// Fate of one request.
#[derive(Debug, Clone, Copy)]
struct Fate {
    there: Duration,
    is_request_lost: bool,
    is_answer_lost: bool,
    back: Duration,
    /// True if the sender notices a loss at once, as with a connection that is reset; otherwise it
    /// waits until its timeout.
    is_reset: bool,
}

/// Failure of a request without an answer, which may have taken effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NoAnswer(pub(super) &'static str);

/// Error of a request that the nimbus at `api` did not execute.
fn refused(api: &str, status: StatusCode, message: String) -> http::Error {
    http::Error::Refused { peer: api.to_owned(), status: status.as_u16(), message }
}

impl Network {
    pub(super) fn new(random: fastrand::Rng, journal: Arc<Mutex<Journal>>) -> Self {
        let (listeners, faults) = (BTreeMap::new(), NetworkFaults::default());
        Self { state: Mutex::new(State { listeners, faults, random }), journal }
    }

    pub(super) fn join(&self, handle: Handle) {
        let (is_frozen, requests) = (watch::Sender::new(false), Tasks::default());
        let listener = Listener { handle, is_frozen, requests };
        self.lock().listeners.insert(listener.handle.api().to_owned(), listener);
    }

    /// Removes a process, and with it the requests that it is answering.
    pub(super) fn leave(&self, api: &str) {
        self.lock().listeners.remove(api);
    }

    /// Freezes a process, which then does not respond, or resumes it.
    pub(super) fn freeze(&self, api: &str, is_frozen: bool) {
        if let Some(listener) = self.lock().listeners.get(api) {
            listener.is_frozen.send_replace(is_frozen);
        }
    }

    /// Sets the faults of all later requests.
    pub(super) fn set_faults(&self, faults: NetworkFaults) {
        self.lock().faults = faults;
    }

    /// The nimbus that responds at `api`.
    pub(super) fn reach(&self, api: &str) -> Option<Handle> {
        let state = self.lock();
        let listener = state.listeners.get(api).filter(|listener| !*listener.is_frozen.borrow())?;
        Some(listener.handle.clone())
    }

    /// Sends a request of the process at `from` to the nimbus at `api`, and returns its result.
    /// `from` may be any name of a process that listens at no address.
    pub(super) async fn call<T, F>(
        &self,
        from: &str,
        api: &str,
        request: impl FnOnce(Handle) -> F + Send + 'static,
    ) -> Result<T, NoAnswer>
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        self.thaw(from).await;
        let fate = self.lock().draw();
        tokio::time::sleep(LATENCY + fate.there).await;
        let (answer, received) = oneshot::channel();
        match fate.is_request_lost {
            true => drop(answer),
            false => self.serve(api, request, answer),
        }
        let received = match tokio::time::timeout(ANSWER_TIMEOUT, received).await {
            Ok(received) => received,
            Err(_too_long) => return Err(NoAnswer("no response in time")),
        };
        if received.is_err() || fate.is_answer_lost {
            let pause = if fate.is_reset { Duration::ZERO } else { ANSWER_TIMEOUT };
            tokio::time::sleep(pause).await;
            return Err(NoAnswer("the connection was lost"));
        }
        tokio::time::sleep(fate.back).await;
        self.thaw(from).await;
        received.map_err(|_closed| NoAnswer("the connection was lost"))
    }

    /// Starts a request at the nimbus at `api`. `answer` is dropped if there is none.
    fn serve<T, F>(
        &self,
        api: &str,
        request: impl FnOnce(Handle) -> F + Send + 'static,
        answer: oneshot::Sender<T>,
    ) where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let state = self.lock();
        let Some(listener) = state.listeners.get(api) else { return };
        let (handle, mut is_frozen) = (listener.handle.clone(), listener.is_frozen.subscribe());
        listener.requests.start("request", OnExit::Ignore, async move {
            let _thawed = is_frozen.wait_for(|is_frozen| !is_frozen).await;
            // The sender may have stopped to wait.
            let _sent = answer.send(request(handle).await);
        });
    }

    /// Waits until the process at `api` is not frozen.
    async fn thaw(&self, api: &str) {
        let listener = |state: &State| state.listeners.get(api).map(|of| of.is_frozen.subscribe());
        let is_frozen = listener(&self.lock());
        if let Some(mut is_frozen) = is_frozen {
            let _thawed = is_frozen.wait_for(|is_frozen| !is_frozen).await;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no one panics while holding the network")
    }
}

impl State {
    fn draw(&mut self) -> Fate {
        let NetworkFaults { lost_request, lost_answer, delay, delay_max } = self.faults;
        let random = &mut self.random;
        let mut is_drawn = |probability: f64| random.f64() < probability;
        let (is_request_lost, is_answer_lost) = (is_drawn(lost_request), is_drawn(lost_answer));
        let (is_late, is_answer_late, is_reset) = (is_drawn(delay), is_drawn(delay), is_drawn(0.5));
        let mut pause = |is_late| if is_late { delay_max.mul_f64(random.f64()) } else { Duration::ZERO };
        let (there, back) = (pause(is_late), pause(is_answer_late));
        Fate { there, is_request_lost, is_answer_lost, back, is_reset }
    }
}

#[async_trait]
impl BlobPeers for Network {
    async fn request_copy(&self, api: &str, key: &BlobKey, from: &str, term: Term) -> Result<(), FetchError> {
        tokio::time::sleep(LATENCY).await;
        let refused = |status| FetchError::Refused { api: api.to_owned(), key: key.clone(), status };
        let handle = self.reach(api).ok_or_else(|| refused(StatusCode::SERVICE_UNAVAILABLE))?;
        handle.copy_blob(key, from.to_owned(), term).await.map_err(|_refusal| refused(StatusCode::CONFLICT))
    }
}

#[async_trait]
impl FetchBlob for Network {
    async fn fetch_at_most(
        &self,
        api: &str,
        key: &BlobKey,
        into: &Path,
        bytes_max: u64,
    ) -> Result<u64, FetchError> {
        tokio::time::sleep(LATENCY).await;
        let refused = |status| FetchError::Refused { api: api.to_owned(), key: key.clone(), status };
        let handle = self.reach(api).ok_or_else(|| refused(StatusCode::SERVICE_UNAVAILABLE))?;
        let (path, bytes) = handle.blobs().file(key).ok_or_else(|| refused(StatusCode::NOT_FOUND))?;
        if bytes > bytes_max {
            return Err(FetchError::TooLarge { api: api.to_owned(), key: key.clone(), bytes_max });
        }
        std::fs::copy(path, into).map_err(|source| FetchError::Write { path: into.to_owned(), source })
    }
}
