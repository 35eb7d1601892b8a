//! Metrics from a process of the simulation to the leader.

use std::{future::Future, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use serde::Serialize;

use super::{Network, NoAnswer};
use crate::environment::lock;
use stormkeeper_coordination::cluster::{record::Leader, store::Store};
use stormkeeper_metric_shipping::ingest_client::{IngestError, IngestTransport, read_leader};
use stormkeeper_metrics::protocol::{
    BODY_BYTES_MAX, IngestRequest, IngestResponse, RegisterRequest, RegisterResponse,
};
use stormkeeper_nimbus::{Handle, refusal::Refusal};

/// Sends the metrics of one process: a nimbus, a topology master or a supervisor. The leader gets
/// the encoded body, so that it decodes the body and checks its limits as if the body came over
/// HTTP.
#[derive(Debug)]
pub(crate) struct NetworkIngest {
    network: Arc<Network>,
    from: String,
    store: Store,
}

impl NetworkIngest {
    /// Sends from the process `from`, which reads the leader from the tree of `store`.
    pub(crate) fn new(network: &Arc<Network>, from: String, store: Store) -> Self {
        Self { network: Arc::clone(network), from, store }
    }

    async fn post<T, F>(
        &self,
        leader: &Leader,
        request: &(impl Serialize + Sync),
        answer: impl FnOnce(Handle, Bytes) -> F + Send + 'static,
    ) -> Result<T, IngestError>
    where
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let body = Bytes::from(rmp_serde::to_vec(request).expect("messages are plain values"));
        if body.len() > BODY_BYTES_MAX {
            return Err(IngestError::TooLarge { bytes: body.len() });
        }
        let (api, term) = (&leader.api, leader.term);
        let unavailable = |reason| IngestError::Unavailable { reason: format!("{api}: {reason}") };
        let answered = self.network.call(&self.from, api, async move |nimbus: Handle| {
            let answered = match nimbus.check_term(term) {
                Ok(()) => answer(nimbus.clone(), body).await,
                Err(refusal) => Err(refusal),
            };
            (answered, nimbus.term())
        });
        let (answered, its_term) = answered.await.map_err(|NoAnswer(reason)| unavailable(reason))?;
        if its_term.is_some_and(|its_term| its_term != term) {
            return Err(unavailable("the nimbus is in another term now"));
        }
        answered.map_err(|refusal| IngestError::of_answer(api, refusal.code(), refusal.to_string()))
    }
}

#[async_trait]
impl IngestTransport for NetworkIngest {
    async fn leader(&self) -> Result<Leader, IngestError> {
        read_leader(&self.store).await
    }

    async fn register(
        &self,
        leader: &Leader,
        request: &RegisterRequest,
    ) -> Result<RegisterResponse, IngestError> {
        let answer = async |nimbus: Handle, body| {
            let _permit = nimbus.metrics_body_permit()?;
            nimbus.register_metrics(body).await
        };
        self.post(leader, request, answer).await
    }

    async fn ingest(&self, leader: &Leader, request: &IngestRequest) -> Result<IngestResponse, IngestError> {
        let (journal, points) = (Arc::clone(&self.network.journal), request.points.clone());
        let answer = async move |nimbus: Handle, body| {
            let _permit = nimbus.metrics_body_permit()?;
            let answer = nimbus.ingest_metrics(body).await?;
            if let IngestResponse::Accepted { at, high_watermark } = answer {
                lock(&journal).stored(at, &points);
                lock(&journal).answered(&nimbus.options().host, at, high_watermark);
            }
            Ok(answer)
        };
        self.post(leader, request, answer).await
    }
}
