//! Comparison of this host's clock with the leader's.
//!
//! Every response of a nimbus has its time ([`TIME`]). A process asks the leader every five seconds,
//! and [`ClockDifference`] decides what the process announces in its record. Nothing else depends on
//! the result.

use std::{fmt, sync::Arc, time::Duration};

use async_trait::async_trait;
use tracing::{debug, info, warn};

use reqwest::Method;

use crate::{authorized::AuthorizedClient, client::encoded, http};
use stormkeeper_access::tls::client::ClientTls;
use stormkeeper_model::{
    NimbusId, Timestamp, TreeId,
    clock::Clock,
    clock_difference::{ClockDifference, ClockReading},
};

/// Header of every response: the wall-clock time of the answering nimbus in milliseconds since 1970.
pub const TIME: &str = "x-stormkeeper-time-ms";

/// Header of every response: the process that answers, see [`ProcessName`].
pub const PROCESS: &str = "x-stormkeeper-process";

/// Header of every response: id of the tree that the answering nimbus remembers, if it remembers one.
pub const TREE: &str = "x-stormkeeper-tree";

/// Pause between two requests. With the timeout and the shortest pause between two writes of a
/// supervisor's record, a difference is shown within ten seconds.
const PERIOD: Duration = Duration::from_secs(5);

/// Limit for one request: a longer round trip would prove only a large difference.
const TIMEOUT: Duration = Duration::from_secs(2);

/// Name of one process of a nimbus: its id, as in a URL, and its start by its own clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessName {
    id: String,
    /// Start of the process.
    pub start: Timestamp,
}

impl ProcessName {
    /// Names the process of `id` that began at `start`.
    pub fn new(id: &NimbusId, start: Timestamp) -> Self {
        Self { id: encoded(id.as_str()), start }
    }

    /// Returns true if the process has this id.
    pub fn is_of(&self, id: &NimbusId) -> bool {
        self.id == encoded(id.as_str())
    }

    fn parse(text: &str) -> Option<Self> {
        let (id, start) = text.split_once(' ')?;
        Some(Self { id: id.to_owned(), start: Timestamp::from_millis(start.parse().ok()?) })
    }
}

impl fmt::Display for ProcessName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id, self.start.as_millis())
    }
}

/// Facts that a nimbus states about itself in every response; a nimbus of an older build says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct SelfReport {
    /// Its time.
    pub time: Option<Timestamp>,
    /// Its process.
    pub process: Option<ProcessName>,
    /// Its tree.
    pub tree: Option<TreeId>,
}

/// Source of the reports of nimbuses: HTTP, or a test.
#[async_trait]
pub trait NimbusTime: fmt::Debug + Send + Sync + 'static {
    /// Asks the nimbus at `api` (`host:port`).
    ///
    /// # Errors
    /// [`http::Error`].
    async fn ask(&self, api: &str) -> Result<SelfReport, http::Error>;
}

/// Asks nimbuses for their time by HTTP.
#[derive(Debug, Clone)]
pub struct NimbusTimeClient {
    http: AuthorizedClient,
}

impl NimbusTimeClient {
    /// A client that keeps no connections: otherwise every supervisor would occupy one of the leader's.
    ///
    /// # Errors
    /// [`http::Error::Setup`].
    pub fn new(tls: &ClientTls) -> Result<Self, http::Error> {
        let http = http::client().timeout(TIMEOUT).pool_max_idle_per_host(0);
        Ok(Self { http: AuthorizedClient::new(http, tls).map_err(http::Error::Setup)? })
    }
}

#[async_trait]
impl NimbusTime for NimbusTimeClient {
    async fn ask(&self, api: &str) -> Result<SelfReport, http::Error> {
        let request = self.http.request(Method::GET, format!("http://{api}/live"));
        let answer = http::accepted(api, self.http.send(request).await).await?;
        let text = |name: &str| answer.headers().get(name).and_then(|value| value.to_str().ok());
        let time = text(TIME).and_then(|text| text.parse().ok()).map(Timestamp::from_millis);
        let tree = text(TREE).map(|id| TreeId(id.to_owned()));
        Ok(SelfReport { time, process: text(PROCESS).and_then(ProcessName::parse), tree })
    }
}

/// The nimbus with whose clock this host's clock is compared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reference {
    /// The leader's API, `host:port`.
    Leader(String),
    /// This process leads, so its clock is the reference.
    Own,
    /// There is no leader, or it is unknown.
    Unknown,
}

/// Compares the clocks until it is dropped. Passes each change of the difference to announce to
/// `announce`: the milliseconds by which this host's clock is ahead of the leader's.
pub async fn compare<L: Future<Output = Reference> + Send>(
    nimbuses: Arc<dyn NimbusTime>,
    leader: impl Fn() -> L + Send,
    clock: Clock,
    announce: impl Fn(Option<i64>) + Send,
) {
    let (mut difference, mut announced) = (ClockDifference::default(), None);
    loop {
        let reading = match leader().await {
            Reference::Leader(api) => read(&*nimbuses, &api, &clock).await,
            Reference::Own => {
                difference = ClockDifference::default();
                None
            }
            Reference::Unknown => None,
        };
        let next = difference.observe(reading, clock.monotonic());
        let before = std::mem::replace(&mut announced, next);
        if before != next {
            log(before, next);
            announce(next);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn read(nimbuses: &dyn NimbusTime, api: &str, clock: &Clock) -> Option<ClockReading> {
    let began = clock.monotonic();
    match nimbuses.ask(api).await {
        Ok(SelfReport { time, .. }) => {
            Some(ClockReading::new(clock.now(), time?, clock.monotonic().since(began)))
        }
        Err(error) => {
            debug!(leader = api, %error, "cannot ask the leader for its time; retrying");
            None
        }
    }
}

fn log(before: Option<i64>, now: Option<i64>) {
    match (before, now) {
        (None, Some(ahead_ms)) => warn!(
            ahead_ms,
            "this host's clock differs from the leader's; synchronize the clocks of both hosts, for example \
             with chrony"
        ),
        (Some(_), None) => info!("this host's clock does not differ from the leader's any more"),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;
    use stormkeeper_runtime::{
        tasks::{OnExit, Tasks},
        watch,
    };

    /// A leader whose clock is ahead by some milliseconds, and which may not answer.
    #[derive(Debug)]
    struct FakeLeader {
        clock: Clock,
        behind_ms: Mutex<Option<u64>>,
        n_requests: Mutex<u32>,
    }

    #[async_trait]
    impl NimbusTime for FakeLeader {
        async fn ask(&self, api: &str) -> Result<SelfReport, http::Error> {
            assert_eq!(api, "leader:1");
            *self.n_requests.lock().expect("locked") += 1;
            let behind_ms = *self.behind_ms.lock().expect("locked");
            tokio::time::sleep(Duration::from_millis(100)).await;
            let time = behind_ms.map(|ms| Timestamp::from_millis(self.clock.now().as_millis() - ms));
            Ok(SelfReport { time, ..SelfReport::default() })
        }
    }

    #[test]
    fn process_name_survives_formatting_whatever_the_id() {
        let id: NimbusId = "größe-1".parse().expect("valid id");
        let name = ProcessName::new(&id, Timestamp::from_millis(7));
        assert!(name.to_string().is_ascii(), "{name}");
        assert_eq!(ProcessName::parse(&name.to_string()), Some(name.clone()));
        assert!(name.is_of(&id) && !name.is_of(&"other".parse().expect("valid id")));
        assert_eq!(ProcessName::parse("a"), None);
    }

    #[tokio::test(start_paused = true)]
    async fn difference_is_announced_within_a_period_and_withdrawn_by_the_leader_itself() {
        let clock = Clock::paced(Timestamp::from_millis(1_000_000));
        let leader = Arc::new(FakeLeader {
            clock: clock.clone(),
            behind_ms: Mutex::new(Some(0)),
            n_requests: Mutex::default(),
        });
        let (announce, announced) = watch::channel(None);
        let (leads, is_leader) = watch::channel(false);
        let reference = move || {
            let own = *is_leader.borrow();
            async move { if own { Reference::Own } else { Reference::Leader("leader:1".to_owned()) } }
        };
        let tasks = Tasks::default();
        let nimbuses = Arc::clone(&leader) as _;
        tasks.start(
            "clock",
            OnExit::Ignore,
            compare(nimbuses, reference, clock, move |next| {
                announce.send_replace(next);
            }),
        );
        tokio::time::sleep(2 * PERIOD).await;
        assert_eq!(*announced.borrow(), None);
        *leader.behind_ms.lock().expect("locked") = Some(5_000);
        tokio::time::sleep(PERIOD + TIMEOUT).await;
        let ahead = announced.borrow().expect("announced");
        assert!((4_900..=5_100).contains(&ahead), "{ahead}");
        leads.send_replace(true);
        tokio::time::sleep(PERIOD + TIMEOUT).await;
        assert_eq!(*announced.borrow(), None, "the leader's clock is the reference");
        let n_requests = *leader.n_requests.lock().expect("locked");
        assert!((3..=5).contains(&n_requests), "{n_requests} requests in 24 s, of which 7 s as the leader");
    }
}
