//! Executes the decisions of a [`Delivery`].

use super::{Delivery, NextStep, Request};
use crate::ingest_client::{MetricsClient, MetricsError};
use stormkeeper_model::clock::Clock;

/// Limit on requests of one call: the names and the backlog of an hour of a topology master, with a
/// margin. An endless sequence of requests ends here and continues with the next call.
const REQUESTS_MAX: usize = 2000;

/// Result of sending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brought {
    /// The leader has ingested everything.
    All,
    /// Some reports are not sent; the reason is for the log. Retry after a pause.
    NotAll(String),
}

/// Sends the reports of `delivery` to the leader, until all are sent or a request fails.
///
/// # Cancellation safety
/// A call that is dropped may have sent some requests; sending them again changes nothing.
pub async fn bring(delivery: &mut Delivery, client: &MetricsClient, clock: &Clock) -> Brought {
    for _ in 0..REQUESTS_MAX {
        let leader = match client.leader().await {
            Ok(leader) => leader,
            Err(error) => return Brought::NotAll(error.to_string()),
        };
        delivery.set_leader_term(leader.term);
        let sent = match delivery.next_request() {
            None => return Brought::All,
            Some(Request::Register(request)) => {
                client.register(&leader, &request).await.map(|answer| delivery.on_registered(&answer))
            }
            Some(Request::Contribute(contribution)) => client
                .contribute(&leader, &contribution)
                .await
                .map(|answer| delivery.on_ingested(answer, clock.monotonic())),
        };
        match sent {
            Ok(NextStep::Continue) => {}
            Ok(NextStep::Pause) => return Brought::NotAll("the leader requested a pause".to_owned()),
            Err(MetricsError::Unavailable { reason }) => return Brought::NotAll(reason),
            Err(
                error @ (MetricsError::Setup(_)
                | MetricsError::Refused { .. }
                | MetricsError::TooLarge { .. }),
            ) => {
                delivery.drop_front(&error.to_string());
                return Brought::NotAll(error.to_string());
            }
        }
    }
    Brought::NotAll(format!("more than {REQUESTS_MAX} requests are necessary; the rest follows later"))
}
