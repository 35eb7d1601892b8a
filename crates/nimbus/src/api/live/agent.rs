//! Lines of the agent of one supervisor about the workers of one topology.

use std::time::Duration;

use futures_util::StreamExt as _;
use tokio::sync::mpsc;

use stormkeeper_api_types::{
    agent_client::{AgentClient, AgentError},
    message::{Code, ErrorBody, live::AgentLine},
};
use stormkeeper_metrics::live::{LINE_BYTES_MAX, LiveSample};
use stormkeeper_model::{Port, SupervisorId, TopologyId, WorkerId};

/// Pause before an agent is asked again.
const RETRY: Duration = Duration::from_secs(1);

/// Pause before an agent is asked again that has no such route: it must be replaced first.
const RETRY_OLD: Duration = Duration::from_secs(30);

/// Maximum bytes of a line: a sample, and what the agent adds.
const AGENT_LINE_BYTES_MAX: usize = LINE_BYTES_MAX + (64 << 10);

/// What is known of workers.
#[derive(Debug)]
pub(super) enum News {
    /// A sample of a worker.
    Sample { supervisor: SupervisorId, port: Port, worker: WorkerId, sample: LiveSample, kept: Duration },
    /// The reason why a worker of the supervisor has none.
    Worker { supervisor: SupervisorId, port: Port, problem: String },
    /// The reason why no worker of the supervisor has one.
    Agent { supervisor: SupervisorId, problem: String },
}

/// Reads the lines of an agent again and again, and sends what they say. Ends with its receiver.
pub(super) async fn follow(
    client: AgentClient,
    (supervisor, address): (SupervisorId, String),
    topology: TopologyId,
    news: mpsc::Sender<News>,
) {
    loop {
        let error = match client.live((&supervisor, &address), &topology).await {
            Ok(lines) => read(lines, &supervisor, &news).await,
            Err(error) => error,
        };
        let is_old = matches!(&error, AgentError::Rejected(ErrorBody { code: Code::NoSuchRoute, .. }));
        let problem = match &error {
            AgentError::Rejected(ErrorBody { code: Code::NoSuchRoute, .. }) => {
                "its supervisor does not send live numbers: it is of a build without them".to_owned()
            }
            AgentError::Rejected(ErrorBody { code: Code::UnknownTopology, .. }) => {
                "its supervisor has not started it yet".to_owned()
            }
            other => other.to_string(),
        };
        if news.send(News::Agent { supervisor: supervisor.clone(), problem }).await.is_err() {
            return;
        }
        tokio::time::sleep(if is_old { RETRY_OLD } else { RETRY }).await;
    }
}

/// Reads lines until they end. Returns the reason.
async fn read(
    mut lines: stormkeeper_api_types::agent_client::AgentLines,
    supervisor: &SupervisorId,
    news: &mpsc::Sender<News>,
) -> AgentError {
    let unavailable = |reason: String| AgentError::Unavailable { address: lines.address.clone(), reason };
    let mut begun: Vec<u8> = Vec::new();
    loop {
        let part = match lines.parts.next().await {
            Some(Ok(part)) => part,
            Some(Err(error)) => return unavailable(format!("its lines broke off: {error}")),
            None => return unavailable("its lines ended".to_owned()),
        };
        let mut rest = &part[..];
        while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
            begun.extend_from_slice(&rest[..end]);
            rest = &rest[end + 1..];
            if let Some(line) = parsed(supervisor, &std::mem::take(&mut begun))
                && news.send(line).await.is_err()
            {
                return unavailable("nobody reads".to_owned());
            }
        }
        begun.extend_from_slice(rest);
        if begun.len() > AGENT_LINE_BYTES_MAX {
            return unavailable(format!("its line is longer than {AGENT_LINE_BYTES_MAX} bytes"));
        }
    }
}

/// Parses a line; `None` if it is empty, or no line of a worker.
fn parsed(supervisor: &SupervisorId, line: &[u8]) -> Option<News> {
    let AgentLine { port, worker, kept_ms, sample, problem } = serde_json::from_slice(line).ok()?;
    let supervisor = supervisor.clone();
    let Some(sample) = sample else {
        return Some(News::Worker { supervisor, port, problem: problem.unwrap_or_default() });
    };
    Some(match serde_json::from_str(sample.get()) {
        Ok(sample) => {
            let kept = Duration::from_millis(kept_ms);
            News::Sample { supervisor, port, worker, sample, kept }
        }
        Err(error) => {
            News::Worker { supervisor, port, problem: format!("its live numbers are invalid: {error}") }
        }
    })
}
