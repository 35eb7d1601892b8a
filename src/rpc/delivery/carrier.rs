//! Carries out what a [`Delivery`] decides.

use super::{Ask, Delivery, Then};
use crate::{
    clock::Clock,
    rpc::metrics_client::{MetricsClient, MetricsError},
};

/// The most requests in one go: a topology master's backlog of an hour and all of its names, and
/// some more; whoever asks endlessly is stopped here and goes on later.
const REQUESTS_MAX: usize = 2000;

/// How far it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Brought {
    /// Everything is with the leader.
    All,
    /// Something is not; the reason is for the log. Try again after a pause.
    NotAll(String),
}

/// Brings what `delivery` holds to the leader, until all is there or something goes wrong.
///
/// # Cancellation safety
/// A call that is dropped may have sent something; sending it again changes nothing.
pub async fn bring(delivery: &mut Delivery, client: &MetricsClient, clock: &Clock) -> Brought {
    for _ in 0..REQUESTS_MAX {
        let leader = match client.leader().await {
            Ok(leader) => leader,
            Err(error) => return Brought::NotAll(error.to_string()),
        };
        delivery.led_by(leader.term);
        let sent = match delivery.next_ask() {
            None => return Brought::All,
            Some(Ask::Register(request)) => {
                client.register(&leader, &request).await.map(|answer| delivery.registered(&answer))
            }
            Some(Ask::Contribute(contribution)) => client
                .contribute(&leader, &contribution)
                .await
                .map(|answer| delivery.contributed(answer, clock.monotonic())),
        };
        match sent {
            Ok(Then::GoOn) => {}
            Ok(Then::Pause) => return Brought::NotAll("the leader asks for a pause".to_owned()),
            Err(MetricsError::Unavailable { reason }) => return Brought::NotAll(reason),
            Err(
                error @ (MetricsError::Setup(_)
                | MetricsError::Refused { .. }
                | MetricsError::TooLarge { .. }),
            ) => {
                delivery.refused(&error.to_string());
                return Brought::NotAll(error.to_string());
            }
        }
    }
    Brought::NotAll("there is more than goes at once".to_owned())
}
