//! Executes the decisions of a [`ReportSender`].

use super::{NextStep, ReportSender, Request};
use crate::ingest_client::{IngestError, IngestTransport};
use stormkeeper_model::clock::Clock;

/// Limit on requests of one call: the names and the backlog of an hour of a topology master, with a
/// margin. An endless sequence of requests ends here and continues with the next call.
const REQUESTS_MAX: usize = 2000;

/// Result of sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlushOutcome {
    /// The leader has ingested everything.
    Complete,
    /// Some reports are not sent; the reason is for the log. Retry after a pause.
    Incomplete(String),
}

/// Sends the reports of `delivery` to the leader, until all are sent or a request fails.
///
/// # Cancellation safety
/// A call that is dropped may have sent some requests; sending them again changes nothing.
pub async fn flush(delivery: &mut ReportSender, client: &dyn IngestTransport, clock: &Clock) -> FlushOutcome {
    for _ in 0..REQUESTS_MAX {
        let leader = match client.leader().await {
            Ok(leader) => leader,
            Err(error) => return FlushOutcome::Incomplete(error.to_string()),
        };
        delivery.set_leader_term(leader.term);
        let sent = match delivery.next_request() {
            None => return FlushOutcome::Complete,
            Some(Request::Register(request)) => {
                client.register(&leader, &request).await.map(|answer| delivery.on_registered(&answer))
            }
            Some(Request::Ingest(batch)) => client
                .ingest(&leader, &batch)
                .await
                .map(|answer| delivery.on_ingested(answer, clock.monotonic())),
        };
        match sent {
            Ok(NextStep::Continue) => {}
            Ok(NextStep::Pause) => {
                return FlushOutcome::Incomplete("the leader requested a pause".to_owned());
            }
            Err(IngestError::Unavailable { reason }) => return FlushOutcome::Incomplete(reason),
            Err(
                error @ (IngestError::Setup(_) | IngestError::Refused { .. } | IngestError::TooLarge { .. }),
            ) => {
                delivery.drop_front(&error.to_string());
                return FlushOutcome::Incomplete(error.to_string());
            }
        }
    }
    FlushOutcome::Incomplete(format!(
        "more than {REQUESTS_MAX} requests are necessary; the rest follows later"
    ))
}
