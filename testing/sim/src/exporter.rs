//! The external store of a run: it counts what it accepted, and fails by the seed.

use std::{
    fmt::{self, Debug},
    sync::{Arc, Mutex, PoisonError},
};

use async_trait::async_trait;

use crate::{environment::lock, journal::Journal};
use stormkeeper_metric_store::ExportKey;
use stormkeeper_metrics::{MetricName, Point};
use stormkeeper_metrics_service::exporters::{ExportCounts, ExportError, MetricExporter, PayloadSource};

/// Probability that an export is rejected.
const REJECTED: f64 = 0.2;

/// Probability that the answer to an accepted export is lost.
const ANSWER_LOST: f64 = 0.1;

/// Exporter of one nimbus to the one store of the run.
pub(super) struct CountingExporter {
    nimbus: String,
    journal: Arc<Mutex<Journal>>,
    // Guards the generator; held for one number.
    random: Mutex<fastrand::Rng>,
}

impl CountingExporter {
    pub(super) fn new(nimbus: &str, journal: &Arc<Mutex<Journal>>) -> Self {
        let random = Mutex::new(fastrand::Rng::new());
        Self { nimbus: nimbus.to_owned(), journal: Arc::clone(journal), random }
    }

    /// Fails with the given probability.
    fn fail(&self, probability: f64) -> Result<(), ExportError> {
        let number = self.random.lock().unwrap_or_else(PoisonError::into_inner).f64();
        if number >= probability {
            return Ok(());
        }
        let (url, message) = ("sim://store".to_owned(), "out of order".to_owned());
        Err(ExportError::Answered { url, status: 503, message })
    }
}

impl Debug for CountingExporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CountingExporter").field(&self.nimbus).finish()
    }
}

#[async_trait]
impl MetricExporter for CountingExporter {
    fn name(&self) -> &str {
        "counting"
    }

    async fn export(&self, key: &ExportKey, source: &dyn PayloadSource) -> Result<ExportCounts, ExportError> {
        let (mut counters, mut points, mut after) = (Vec::<(MetricName, u64)>::new(), 0, None);
        loop {
            let page = source.page(after).await?;
            points += page.points.len() as u64;
            counters.extend(page.points.into_iter().filter_map(|(meta, point)| match point {
                Point::Counter(counter) => Some((meta.name, counter.count)),
                Point::Gauge(_) | Point::Meter(_) | Point::Histogram(_) | Point::Timer(_) => None,
            }));
            match page.next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        self.fail(REJECTED)?;
        lock(&self.journal).exported(&self.nimbus, key, &counters);
        self.fail(ANSWER_LOST)?;
        Ok(ExportCounts { points, refused: 0 })
    }
}
