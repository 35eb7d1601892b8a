//! The cluster, its nimbuses and its history.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::Serialize;

use crate::{text, totals::Totals};
use stormkeeper_coordination::cluster::{record::NimbusRecord, view::ClusterView};
use stormkeeper_model::{NimbusId, Timestamp, TopologyId};

/// Version of Storm whose API this is, three numbers with dots: monitors choose by it what they ask.
pub(crate) const VERSION: &str = "2.8.0";

/// Sources of the pages without measured values.
#[derive(Debug, Clone, Copy)]
pub struct Cluster<'a> {
    /// The cluster view.
    pub view: &'a ClusterView,
    /// Sums over this view.
    pub totals: &'a Totals,
    /// Time of the answer.
    pub now: Timestamp,
    /// Problem of each topology that has one.
    pub problems: &'a BTreeMap<TopologyId, String>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormVersionInfo")]
struct VersionInfo {
    version: &'static str,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormClusterSummary")]
pub(crate) struct ClusterSummary {
    storm_version: &'static str,
    storm_version_info: VersionInfo,
    /// Whether all nimbuses and supervisors run one version.
    version_match: bool,
    user: Option<String>,
    /// Uptime of the leader, which clients of the first versions read; "" without a leader.
    nimbus_uptime: String,
    supervisors: usize,
    topologies: usize,
    slots_total: usize,
    slots_used: usize,
    slots_free: usize,
    executors_total: usize,
    tasks_total: usize,
    total_mem: f64,
    total_cpu: f64,
    avail_mem: f64,
    avail_cpu: f64,
    fragmented_mem: f64,
    fragmented_cpu: f64,
    mem_assigned_percent_util: String,
    cpu_assigned_percent_util: String,
    scheduler_display_resource: bool,
    total_generics: String,
    avail_generics: String,
    #[serde(rename = "bugtracker-url")]
    bugtracker_url: Option<String>,
    #[serde(rename = "central-log-url")]
    central_log_url: Option<String>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormNimbusList")]
pub(crate) struct NimbusList {
    nimbuses: Vec<NimbusSummary>,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(rename = "StormNimbusSummary")]
struct NimbusSummary {
    host: String,
    port: Option<u16>,
    status: &'static str,
    version: String,
    #[serde(rename = "nimbusUpTime")]
    up_time: String,
    /// Text of digits, as Storm documents it.
    #[serde(rename = "nimbusUpTimeSeconds")]
    up_time_seconds: String,
    #[serde(rename = "nimbusLogLink")]
    log_link: String,
}

#[derive(Debug, Clone, Serialize, JsonSchema)]
#[schemars(rename = "StormHistory")]
pub(crate) struct History {
    #[serde(rename = "topo-history")]
    topologies: Vec<TopologyId>,
}

impl Cluster<'_> {
    /// Returns the body of `cluster/summary`.
    pub fn summary(&self) -> impl Serialize + use<> {
        let Self { view, totals, now, .. } = self;
        let leader = view.leader.as_ref().and_then(|leader| view.nimbuses.get(&leader.nimbus));
        let (mut total, mut avail) = ((0.0, 0.0), (0.0, 0.0));
        let mut fragmented = (0.0, 0.0);
        for of in totals.supervisors.values() {
            let left = of.total.left(of.used);
            total = (total.0 + of.total.memory, total.1 + of.total.cpu);
            avail = (avail.0 + left.memory, avail.1 + left.cpu);
            // Resources that are left beside no free slot cannot be used.
            if of.slots_used >= of.slots {
                fragmented = (fragmented.0 + left.memory, fragmented.1 + left.cpu);
            }
        }
        let of_nimbuses = view.nimbuses.values().map(|record| record.version.as_str());
        let of_supervisors = view.supervisors.values().map(|record| record.version.as_str());
        let versions: BTreeSet<&str> = of_nimbuses.chain(of_supervisors).collect();
        ClusterSummary {
            storm_version: VERSION,
            storm_version_info: VersionInfo { version: VERSION },
            version_match: versions.len() <= 1,
            user: None,
            nimbus_uptime: leader.map_or_else(String::new, |leader| uptime(leader, *now)),
            supervisors: view.supervisors.len(),
            topologies: view.topologies.len(),
            slots_total: totals.slots,
            slots_used: totals.slots_used,
            slots_free: totals.slots.saturating_sub(totals.slots_used),
            executors_total: totals.tasks,
            tasks_total: totals.tasks,
            total_mem: total.0,
            total_cpu: total.1,
            avail_mem: avail.0,
            avail_cpu: avail.1,
            fragmented_mem: fragmented.0,
            fragmented_cpu: fragmented.1,
            mem_assigned_percent_util: percent_used(total.0, avail.0),
            cpu_assigned_percent_util: percent_used(total.1, avail.1),
            scheduler_display_resource: true,
            total_generics: String::new(),
            avail_generics: String::new(),
            bugtracker_url: None,
            central_log_url: None,
        }
    }

    /// Returns the body of `nimbus/summary`.
    pub fn nimbuses(&self) -> impl Serialize + use<> {
        NimbusList { nimbuses: self.view.nimbuses.iter().map(|of| self.nimbus(of)).collect() }
    }

    fn nimbus(&self, (id, record): (&NimbusId, &NimbusRecord)) -> NimbusSummary {
        let leads = self.view.leader.as_ref().is_some_and(|leader| leader.nimbus == *id);
        NimbusSummary {
            host: record.host.clone(),
            port: record.api.rsplit_once(':').and_then(|(_, port)| port.parse().ok()),
            status: if leads { "Leader" } else { "Not a Leader" },
            version: record.version.clone(),
            up_time: uptime(record, self.now),
            up_time_seconds: self.now.since(record.start).as_secs().to_string(),
            log_link: String::new(),
        }
    }

    /// Returns the body of `history/summary`: ids of topologies, the latest first.
    pub fn history(topologies: Vec<TopologyId>) -> impl Serialize + use<> {
        History { topologies }
    }
}

fn uptime(nimbus: &NimbusRecord, now: Timestamp) -> String {
    text::uptime(now.since(nimbus.start).as_secs())
}

fn percent_used(total: f64, avail: f64) -> String {
    text::decimal(if total > 0.0 { (total - avail) * 100.0 / total } else { 0.0 })
}
