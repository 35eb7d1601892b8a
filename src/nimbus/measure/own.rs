//! What a nimbus measures of itself, once a minute, as any worker does: cuts of its own launch
//! with numbers, brought to the leader or, by the leader, to its own archive.

use std::{collections::VecDeque, time::Duration};

use tracing::{debug, info};

use crate::{
    archive::Archive,
    metrics::{
        Contribution, Control, MetricId, MetricName, Minute, Point, Registry, Subject,
        builtin::{self, Builtin},
        contribution::Cuts,
        instrument::{Counter, Gauge, Meter},
        name::NIMBUS,
        registry::CutRequest,
    },
    model::{Timestamp, TopologyId, WorkerId},
    nimbus::measure::{
        Measure,
        process::{self, Usage},
    },
    rpc::{
        client::chain,
        metrics::{Claim, ContributeAnswer, RegisterRequest, Registered},
    },
};

/// The cuts that wait for a leader; the oldest goes when there is one more. An hour: longer
/// than nimbuses are without a leader.
const WAITING_MAX: usize = 60;

/// A wait that ends a moment too early, as clocks are not exact, must not become a busy loop.
const WAIT_MIN: Duration = Duration::from_millis(10);

/// The instruments of a nimbus.
#[derive(Debug)]
pub(super) struct Own {
    registry: Registry,
    pub(super) points: Meter,
    pub(super) contributions: Meter,
    pub(super) refused: Counter,
    pub(super) registered: Counter,
    dropped: Counter,
    cpu: Gauge,
    memory: Gauge,
    files: Gauge,
    archive_bytes: Gauge,
    archive_queue: Gauge,
    upload_queue: Gauge,
    view_age: Gauge,
}

fn topology() -> TopologyId {
    NIMBUS.parse().expect("a fixed id is valid")
}

impl Own {
    /// Those of the nimbus at `api` on `host`.
    pub(super) fn new(host: &str, api: &str, now: crate::clock::Monotonic) -> Self {
        let port = api.rsplit_once(':').and_then(|(_, port)| port.parse().ok()).unwrap_or(0);
        let name = |metric: &Builtin| -> MetricName {
            let of = |host: &str| metric.of(topology(), Subject::Nimbus { host: host.to_owned(), port });
            // What is configured as the host may hold what no name does.
            of(host).or_else(|_| of("unnamed")).expect("fixed parts make a name")
        };
        let registry = Registry::new(Control::default(), now);
        Self {
            points: registry.meter(name(&builtin::NIMBUS_INTAKE_POINTS)),
            contributions: registry.meter(name(&builtin::NIMBUS_INTAKE_CONTRIBUTIONS)),
            refused: registry.counter(name(&builtin::NIMBUS_INTAKE_REFUSED)),
            registered: registry.counter(name(&builtin::NIMBUS_REGISTERED)),
            dropped: registry.counter(name(&builtin::NIMBUS_UPLOAD_DROPPED)),
            cpu: registry.gauge(name(&builtin::NIMBUS_CPU_USED_RATIO)),
            memory: registry.gauge(name(&builtin::NIMBUS_MEMORY_USED)),
            files: registry.gauge(name(&builtin::NIMBUS_OPEN_FILES)),
            archive_bytes: registry.gauge(name(&builtin::NIMBUS_ARCHIVE_BYTES)),
            archive_queue: registry.gauge(name(&builtin::NIMBUS_ARCHIVE_QUEUE)),
            upload_queue: registry.gauge(name(&builtin::NIMBUS_UPLOAD_QUEUE)),
            view_age: registry.gauge(name(&builtin::NIMBUS_VIEW_AGE)),
            registry,
        }
    }
}

/// What was read last, to see what came since.
#[derive(Debug, Default)]
struct Before {
    usage: Option<(Usage, Timestamp)>,
    dropped: Option<u64>,
}

/// Cuts of one launch on their way to the leader.
struct Cutting {
    measure: Measure,
    worker: WorkerId,
    n_cuts: u64,
    waiting: VecDeque<Contribution>,
}

/// Measures for as long as the nimbus runs.
pub(super) async fn measure(measure: Measure) {
    let archive = measure.opened().await;
    let started = measure.shared.setup.clock.now();
    let worker = format!("{}-{}", measure.shared.setup.me, started.as_millis());
    let Ok(worker) = worker.parse::<WorkerId>() else {
        info!(worker, "this nimbus does not measure itself: its id is too long");
        return;
    };
    let mut cutting = Cutting { measure: measure.clone(), worker, n_cuts: 0, waiting: VecDeque::new() };
    let mut before = Before::default();
    loop {
        let minute = Minute::of(measure.shared.setup.clock.now());
        // A clock that is set back only makes this minute longer.
        while Minute::of(measure.shared.setup.clock.now()) <= minute {
            let wait = minute.end().since(measure.shared.setup.clock.now());
            tokio::time::sleep(wait.clamp(WAIT_MIN, measure.shared.options.pace.clock)).await;
        }
        measure.read_gauges(&archive, &mut before).await;
        cutting.cut(minute);
        if let Err(reason) = cutting.bring(&archive).await {
            debug!(reason, waiting = cutting.waiting.len(), "nimbus' own metrics wait");
        }
    }
}

impl Measure {
    async fn read_gauges(&self, archive: &Archive, before: &mut Before) {
        let (own, now) = (&self.shared.own, self.shared.setup.clock.now());
        // Three small files of the kernel's memory.
        if let Some(usage) = process::usage() {
            own.memory.set(usage.memory_bytes as f64);
            own.files.set(usage.fds as f64);
            if let Some((last, at)) = before.usage {
                let (used, took) = (usage.cpu.saturating_sub(last.cpu), now.since(at));
                if !took.is_zero() {
                    own.cpu.set(100.0 * used.as_secs_f64() / took.as_secs_f64());
                }
            }
            before.usage = Some((usage, now));
        }
        own.archive_queue.set(self.shared.gate.n_in_flight() as f64);
        if let Ok(status) = archive.status().await {
            own.archive_bytes.set(status.bytes as f64);
        }
        if let Ok(queue) = archive.queue_status().await {
            own.upload_queue.set(queue.ready as f64);
            let dropped = queue.uploaders.values().map(|uploader| uploader.dropped).sum::<u64>();
            own.dropped.add(dropped.saturating_sub(before.dropped.unwrap_or(dropped)));
            before.dropped = Some(dropped);
        }
        let age = {
            let observation = self.shared.setup.observations.borrow();
            match observation.fresh {
                true => Duration::ZERO,
                false => self.shared.setup.clock.monotonic().since(observation.read_at),
            }
        };
        own.view_age.set(age.as_millis() as f64);
    }
}

impl Cutting {
    fn cut(&mut self, minute: Minute) {
        let now = self.measure.shared.setup.clock.monotonic();
        let leaves = self.measure.shared.own.registry.cut(CutRequest { minute, now, with_gauges: true });
        let points: Vec<(MetricId, Point)> = leaves.into_iter().map(|leaf| (leaf.id, leaf.point)).collect();
        self.n_cuts += 1;
        let cuts = vec![Cuts { worker: self.worker.clone(), first: self.n_cuts, last: self.n_cuts }];
        self.waiting.push_back(Contribution { topology: topology(), minute, cuts, points });
        if self.waiting.len() > WAITING_MAX {
            // The archive counts the cut that is missing.
            self.waiting.pop_front();
        }
    }

    /// Brings what waits to the leader, the oldest first.
    async fn bring(&mut self, archive: &Archive) -> Result<(), String> {
        while let Some(contribution) = self.waiting.front() {
            let mut answer = self.contribute(archive, contribution).await?;
            if let ContributeAnswer::Unregistered { .. } = answer {
                self.register(archive).await?;
                // Ids that the leader knows by another number come with the next cut.
                answer = self.contribute(archive, contribution).await?;
            }
            match answer {
                // A nimbus' own numbers are not kept until they are safe: what is lost with a
                // leader and its disk is a minute of these.
                ContributeAnswer::Stored { .. } => {}
                ContributeAnswer::Overlaps { .. } => {}
                ContributeAnswer::Refused { reason } => info!(reason, "nimbus' own metrics are refused"),
                ContributeAnswer::Unregistered { .. } => {
                    info!("nimbus' own metrics are not known to the leader after they were registered");
                }
                ContributeAnswer::NotNow { reason } => return Err(reason),
            }
            self.waiting.pop_front();
        }
        Ok(())
    }

    async fn contribute(
        &self,
        archive: &Archive,
        contribution: &Contribution,
    ) -> Result<ContributeAnswer, String> {
        if let Ok((_, term)) = self.measure.leading() {
            let stored = self.measure.store(archive, term, contribution.clone()).await;
            return stored.map_err(|refusal| refusal.to_string());
        }
        let client = &self.measure.shared.client;
        let leader = client.leader().await.map_err(|error| chain(&error))?;
        client.contribute(&leader, contribution).await.map_err(|error| chain(&error))
    }

    async fn register(&self, archive: &Archive) -> Result<(), String> {
        let registry = &self.measure.shared.own.registry;
        let (_, names) = registry.names_since(0);
        let claims = names.iter().map(|(id, name)| Claim { name: name.to_string(), id: *id }).collect();
        let request = RegisterRequest { topology: topology(), claims };
        let answer = match self.measure.leading() {
            Ok((_, term)) => archive.register(term, request).await.map_err(|error| chain(&error))?,
            Err(_) => {
                let client = &self.measure.shared.client;
                let leader = client.leader().await.map_err(|error| chain(&error))?;
                client.register(&leader, &request).await.map_err(|error| chain(&error))?
            }
        };
        for ((old, name), registered) in names.iter().zip(answer.claims) {
            match registered {
                Registered::As(new) if new == *old => {}
                Registered::As(new) => drop(registry.rename(*old, new)),
                Registered::Refused(reason) => info!(%name, reason, "a metric of nimbus itself is refused"),
            }
        }
        Ok(())
    }
}
