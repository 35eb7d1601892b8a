//! Running uploaders, each in a loop of its own: what one does to itself, the others do not
//! feel.
//!
//! A call of an uploader is a task that may panic, and that is dropped when its time is over.
//! One that blocks its thread cannot be dropped: nothing is asked of that uploader until it has
//! ended, and the archive's queue holds what it missed.

use std::{panic::AssertUnwindSafe, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use tokio::sync::{mpsc, oneshot};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::{
    archive::{self, Archive, Event, PayloadPage, Upload, UploadKey},
    daemon::tasks::{Ending, Tasks},
    metrics::{MetaType, MetricId},
    model::Term,
    nimbus::measure::{Doing, Measure, UploaderState},
    plugin::{MetricUploader, PayloadSource, Sent, UploadError},
    rpc::client::chain,
};

/// The most points of one page of a payload.
const PAGE: usize = 2000;

/// How many metas an uploader is told at once.
const METAS: usize = 5000;

/// How many events wait for an uploader; what comes then it is not told, which is counted.
const EVENTS: usize = 10_000;

/// How long an uploader without work sleeps at most, should no change wake it.
const IDLE: Duration = Duration::from_secs(60);

/// How long a call that was given up has to end before its uploader counts as stuck.
const END_PATIENCE: Duration = Duration::from_secs(1);

/// How long an uploader may clean up.
const CLEANUP: Duration = Duration::from_secs(3);

/// Tells events to every uploader.
#[derive(Debug, Clone)]
pub(super) struct Telling(Vec<(String, mpsc::Sender<Event>)>);

/// A channel for the events of each uploader.
pub(super) fn events(uploaders: &[Arc<dyn MetricUploader>]) -> (Telling, Vec<mpsc::Receiver<Event>>) {
    let channels = uploaders.iter().map(|uploader| (uploader.name().to_owned(), mpsc::channel(EVENTS)));
    let (senders, receivers) = channels.map(|(name, (sender, receiver))| ((name, sender), receiver)).unzip();
    (Telling(senders), receivers)
}

impl Telling {
    pub(super) fn tell(&self, measure: &Measure, events: &[Event]) {
        for (name, sender) in &self.0 {
            for event in events {
                if sender.try_send(event.clone()).is_err() {
                    measure.state(name, |state| state.events_lost += 1);
                }
            }
        }
    }
}

impl Measure {
    fn state(&self, uploader: &str, change: impl FnOnce(&mut UploaderState)) {
        let mut states = self.shared.states.lock().expect("no one panics while holding states");
        let new = || UploaderState::new(self.shared.setup.clock.now());
        change(states.entry(uploader.to_owned()).or_insert_with(new));
    }
}

/// The payload of one entry, for one uploader.
struct Payload {
    archive: Archive,
    key: UploadKey,
    levels: Vec<MetaType>,
}

#[async_trait]
impl PayloadSource for Payload {
    async fn page(&self, after: Option<MetricId>) -> Result<PayloadPage, UploadError> {
        let page = self.archive.payload(&self.key, &self.levels, after, PAGE).await;
        page.map_err(UploadError::Payload)
    }
}

/// One uploader at work.
pub(super) struct Run {
    measure: Measure,
    archive: Archive,
    term: Term,
    uploader: Arc<dyn MetricUploader>,
    name: String,
    tasks: Tasks,
    /// A call that was given up and has not ended.
    stuck: Option<Tasks>,
}

impl Run {
    pub(super) fn new(
        measure: Measure,
        archive: Archive,
        term: Term,
        uploader: Arc<dyn MetricUploader>,
        owner: &Tasks,
    ) -> Self {
        let name = uploader.name().to_owned();
        let now = measure.shared.setup.clock.now();
        measure.state(&name, |state| *state = UploaderState::new(now));
        Self { measure, archive, term, uploader, name, tasks: owner.child(), stuck: None }
    }

    pub(super) async fn run(mut self, mut events: mpsc::Receiver<Event>, cancelled: CancellationToken) {
        tokio::select! {
            biased;
            // An upload that is dropped here was not acknowledged, and comes again.
            () = cancelled.cancelled() => {}
            () = self.work(&mut events) => {}
        }
        if self.stuck.is_none() {
            // Its set has ended with the leadership, so that it runs in this one.
            let cleanup = AssertUnwindSafe(self.uploader.cleanup()).catch_unwind();
            if !matches!(tokio::time::timeout(CLEANUP, cleanup).await, Ok(Ok(()))) {
                warn!(uploader = self.name, "it did not clean up");
            }
        }
    }

    async fn work(&mut self, events: &mut mpsc::Receiver<Event>) {
        let pause = self.measure.shared.options.pace.upload_pause;
        loop {
            self.doing(Doing::Starting);
            let uploader = Arc::clone(&self.uploader);
            match self.call("init", None, async move { uploader.init().await }).await {
                Ok(()) => break,
                Err(reason) => self.failed("cannot be started", &reason),
            }
            self.doing(Doing::Pausing);
            tokio::time::sleep(pause).await;
        }
        let mut queue = self.archive.queue_changed();
        loop {
            let _seen = *queue.borrow_and_update();
            while let Ok(event) = events.try_recv() {
                self.send_event(event).await;
            }
            let wait = match self.step().await {
                Ok(true) => continue,
                Ok(false) => self.idle().await,
                Err(reason) => {
                    self.failed("has a failure", &reason);
                    self.doing(Doing::Pausing);
                    pause
                }
            };
            tokio::select! {
                biased;
                // Cancel-safe: an event that is not returned stays in the queue, the others only wait.
                Some(event) = events.recv() => self.send_event(event).await,
                // Closed with the archive: then it is the time that wakes.
                Ok(()) = queue.changed() => {}
                () = tokio::time::sleep(wait) => {}
            }
        }
    }

    /// Tells new metas, and sends one entry of the queue. Answers whether there may be more.
    async fn step(&mut self) -> Result<bool, String> {
        let archive = |error: archive::Error| chain(&error);
        loop {
            let metas = self.archive.metas_since(&self.name, METAS).await.map_err(archive)?;
            if metas.is_empty() {
                break;
            }
            self.doing(Doing::Uploading);
            let (uploader, told) = (Arc::clone(&self.uploader), metas.clone());
            self.call("register_metrics", None, async move { uploader.register_metrics(&told).await })
                .await?;
            self.archive.ack_metas(self.term, &self.name, &metas).await.map_err(archive)?;
        }
        let Some(upload) = self.archive.next_upload(&self.name).await.map_err(archive)? else {
            return Ok(false);
        };
        self.doing(Doing::Uploading);
        let Upload { key, timeout, .. } = upload;
        let (uploader, its) = (Arc::clone(&self.uploader), key.clone());
        let levels = uploader.levels().to_vec();
        let source = Payload { archive: self.archive.clone(), key: key.clone(), levels };
        // Before the archive takes it for refused by itself.
        let limit = timeout.saturating_sub(timeout / 10);
        match self.call("upload", Some(limit), async move { uploader.upload(&its, &source).await }).await {
            Ok(Sent { points, refused }) => {
                debug!(uploader = self.name, upload = %key, points, refused, "acknowledged");
                self.measure.state(&self.name, |state| {
                    state.points += points;
                    state.refused += refused;
                });
                self.archive.ack(self.term, &self.name, key).await.map_err(archive)?;
            }
            Err(reason) => {
                self.failed("did not take an upload", &reason);
                self.archive.nack(&self.name, key, &reason).await.map_err(archive)?;
            }
        }
        Ok(true)
    }

    async fn send_event(&mut self, event: Event) {
        let uploader = Arc::clone(&self.uploader);
        match self.call("send_event", None, async move { uploader.send_event(&event).await }).await {
            Ok(()) => self.measure.state(&self.name, |state| state.events += 1),
            Err(reason) => {
                self.measure.state(&self.name, |state| state.events_lost += 1);
                self.failed("was not told an event", &reason);
            }
        }
    }

    /// How long to wait when there is nothing to send now. What was refused becomes ready again
    /// by time alone.
    async fn idle(&self) -> Duration {
        let status = self.archive.queue_status().await.ok();
        let pending = status.and_then(|status| Some(status.uploaders.get(&self.name)?.pending)).unwrap_or(0);
        self.doing(if pending > 0 { Doing::Pausing } else { Doing::Idle });
        if pending > 0 { self.measure.shared.options.pace.upload_pause } else { IDLE }
    }

    /// Makes a call of the uploader, which may do anything.
    async fn call<T: Send + 'static>(
        &mut self,
        what: &'static str,
        limit: Option<Duration>,
        call: impl Future<Output = Result<T, UploadError>> + Send + 'static,
    ) -> Result<T, String> {
        self.unstick().await;
        let limit = limit.unwrap_or(self.measure.shared.options.pace.upload_call);
        let calls = self.tasks.child();
        let (reply, answer) = oneshot::channel();
        calls.start("uploader-call", Ending::Normal, async move {
            // The asker may have given up.
            let _gone = reply.send(AssertUnwindSafe(call).catch_unwind().await);
        });
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(Ok(result))) => result.map_err(|error| chain(&error)),
            Ok(Ok(Err(_panic))) => Err(format!("its {what} panicked; the log has the details")),
            Ok(Err(_ended)) => Err(format!("its {what} was dropped")),
            Err(_too_long) => {
                if !calls.stop(END_PATIENCE).await {
                    self.stuck = Some(calls);
                }
                Err(format!("its {what} took longer than {limit:?} and was given up"))
            }
        }
    }

    /// Waits for the end of a call that blocks its thread.
    async fn unstick(&mut self) {
        let Some(calls) = &self.stuck else { return };
        self.doing(Doing::Stuck);
        warn!(uploader = self.name, "a call of it was given up and does not end: it is asked nothing more");
        while !calls.stop(IDLE).await {}
        info!(uploader = self.name, "the call that did not end has ended");
        self.stuck = None;
    }

    fn doing(&self, doing: Doing) {
        let now = self.measure.shared.setup.clock.now();
        self.measure.state(&self.name, |state| {
            if state.doing != doing {
                (state.doing, state.since) = (doing, now);
            }
        });
    }

    fn failed(&self, what: &str, reason: &str) {
        let mut is_news = false;
        self.measure.state(&self.name, |state| {
            state.failures += 1;
            is_news = state.last_failure.as_deref() != Some(reason);
            state.last_failure = Some(reason.to_owned());
        });
        match is_news {
            true => warn!(uploader = self.name, reason, "an uploader {what}"),
            false => debug!(uploader = self.name, reason, "an uploader {what}"),
        }
    }
}
