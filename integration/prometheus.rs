//! A real Prometheus scrapes the nimbuses and the agents of a cluster that counts tuples.

use std::{fs, path::Path};

use anyhow::{Context as _, Result};
use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX},
    exact_counts::SETTINGS,
    logs::agents,
    prometheus_server::{PrometheusServer, check_metrics, check_rules, read_strictly},
};

const TOPOLOGY: &str = r#"
name: counted
config: {topology.workers: 2, topology.metric.sample.rate: 1.0}
spouts: [{id: numbers, parallelism: 2, command: ["python3", "numbers.py"], output: [n]}]
bolts: [{id: sink, parallelism: 2, command: ["python3", "sink.py"], output: []}]
streams: [{from: numbers, to: sink, grouping: {type: SHUFFLE}}]
"#;

const NUMBERS: &str = "
import time
from stormkeeper import Spout

class Numbers(Spout):
    left = 300

    def next_tuple(self):
        if self.left == 0:
            time.sleep(0.1)
            return
        self.left -= 1
        self.emit([self.left])

Numbers().run()
";

const SINK: &str = "
import time
from stormkeeper import BasicBolt, counter

class Sink(BasicBolt):
    def initialize(self, conf, context):
        self.words = counter('words.read')

    def process(self, tup):
        time.sleep(0.02 if tup.values[0] % 10 == 0 else 0.001)
        self.words.add(2)

Sink().run()
";

/// Number of tuples of all tasks of the spout.
const TUPLES: f64 = 600.0;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn submit(cluster: &Cluster) -> Result<()> {
    let dir = cluster.path("counted");
    fs::create_dir_all(dir.join("resources"))?;
    for (name, text) in [("numbers.py", NUMBERS), ("sink.py", SINK)] {
        fs::write(dir.join("resources").join(name), text)?;
    }
    let file = dir.join("topology.yaml");
    fs::write(&file, TOPOLOGY)?;
    cluster.ok(&["submit", &file.display().to_string(), "--wait"]);
    Ok(())
}

/// Returns the page of a nimbus or an agent.
async fn page(address: &str, accept: &str) -> Result<String> {
    let url = format!("http://{address}/metrics");
    let request =
        stormkeeper_api_types::http::client().build().expect("made").get(url).header("accept", accept);
    Ok(request.send().await?.error_for_status()?.text().await?)
}

/// Returns the 99th percentile of the time that the sink takes, in seconds, from our own API.
async fn own_p99(cluster: &Cluster) -> Result<f64> {
    let filter = "window=1d&level=component&component=sink&name=ProcessLatency";
    let url =
        format!("http://{}/api/stormkeeper/v1/metrics/topology/counted/latest?{filter}", cluster.api(0));
    let answer: Value = serde_json::from_str(&reqwest::get(url).await?.error_for_status()?.text().await?)?;
    let p99 = answer["values"][0]["value"]["histogram"]["p99"].as_f64();
    Ok(p99.with_context(|| format!("no p99: {answer}"))? / 1e6)
}

/// Collects the expressions of a dashboard, with all variables as for "all".
fn expressions(of: &Value, found: &mut Vec<String>) {
    match of {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str().filter(|_| name == "expr") {
                    Some(text) => {
                        let text = text.replace("$__rate_interval", "5m");
                        found.push(text.replace("$topology", ".*").replace("$component", ".*"));
                    }
                    None => expressions(value, found),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, found)),
        _ => {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn prometheus_reads_the_counted_tuples_from_every_nimbus_also_after_the_leader_is_lost() -> Result<()> {
    let mut cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    let rules = root().join("docs/alerts.yml");
    let agents = agents(&cluster).await;
    let pages = [cluster.apis(), &agents[..]].concat();
    let server = PrometheusServer::start(&pages, &rules).await?;
    server.wait_until_all("up", 4, 1.0).await;
    submit(&cluster)?;
    expect_workers_of_agents(&server, &agents).await?;

    let emitted = "stormkeeper_component_emitted_tuples_total{topology=\"counted\",component=\"numbers\"}";
    server.wait_until_all(emitted, 2, TUPLES).await;
    let of_topology = "stormkeeper_topology_emitted_tuples_total";
    let of_stream =
        "stormkeeper_component_stream_emitted_tuples_total{component=\"numbers\",stream=\"default\"}";
    let acked = "stormkeeper_component_acked_tuples_total{component=\"sink\"}";
    let user = "stormkeeper_component_user_words_x2e_read_events_total";
    let values = "stormkeeper_component_process_latency_values_total{component=\"sink\"}";
    let sampled = "histogram_count(stormkeeper_component_process_latency_seconds{component=\"sink\"})";
    for (query, value) in [
        (of_topology, TUPLES),
        (of_stream, TUPLES),
        (acked, TUPLES),
        (user, 2.0 * TUPLES),
        (values, TUPLES),
        (sampled, TUPLES),
    ] {
        server.wait_until_all(query, 2, value).await;
    }
    let quantile =
        "histogram_quantile(0.99, stormkeeper_component_process_latency_seconds{component=\"sink\"})";
    let ours = own_p99(&cluster).await?;
    for (labels, theirs) in server.query(quantile).await? {
        assert!((theirs - ours).abs() <= 0.05 * ours && ours > 0.02, "{labels:?}: {theirs}, ours is {ours}");
    }

    expect_judges_to_be_content(&pages, &server, &rules).await?;

    // A new leader, and the one before as a follower: no counter goes back.
    let before = cluster.leading().await.map_err(anyhow::Error::msg)?;
    cluster.nimbuses[before.nimbus].kill9();
    cluster.wait_for_leader_after(before.term).await;
    cluster.nimbuses[before.nimbus].start_again();
    server.wait_until_all("up", 4, 1.0).await;
    server.wait_until_all("sum(stormkeeper_nimbus_leading)", 1, 1.0).await;
    server.wait_until_all(emitted, 2, TUPLES).await;
    server.wait_until_all("sum(resets(stormkeeper_component_emitted_tuples_total[10m]))", 1, 0.0).await;
    Ok(())
}

/// Checks that each agent's page has the host and the worker that runs there.
async fn expect_workers_of_agents(server: &PrometheusServer, agents: &[String]) -> Result<()> {
    server.wait_until_all("stormkeeper_worker_up{topology=\"counted\"}", 2, 1.0).await;
    let instances = async |query: &str| {
        let found = server.query(query).await?;
        assert!(found.iter().all(|(_, value)| *value > 0.0), "{query}: {found:?}");
        let mut instances: Vec<String> =
            found.iter().filter_map(|(labels, _)| labels.get("instance").cloned()).collect();
        instances.sort();
        Ok::<_, anyhow::Error>(instances)
    };
    let mut expected = agents.to_vec();
    expected.sort();
    for query in
        ["stormkeeper_worker_memory_used_bytes{topology=\"counted\"}", "stormkeeper_host_memory_bytes"]
    {
        assert_eq!(instances(query).await?, expected, "{query}");
    }
    Ok(())
}

/// Lets other programs judge the pages, the alert rules and the dashboard.
async fn expect_judges_to_be_content(
    pages: &[String],
    server: &PrometheusServer,
    rules: &Path,
) -> Result<()> {
    for address in pages {
        let text = page(address, "text/plain;version=0.0.4").await?;
        assert_eq!(check_metrics(&text)?, "", "complaints of promtool about {address}");
        let open_metrics = page(address, "application/openmetrics-text;version=1.0.0").await?;
        let n_samples = open_metrics.lines().filter(|line| !line.starts_with('#')).count();
        assert_eq!(read_strictly(&open_metrics)?, n_samples, "samples of {address}");
        assert!(n_samples > 15, "only {n_samples} samples of {address}");
    }
    let of_nimbus = page(&pages[0], "text/plain").await?;
    assert!(of_nimbus.lines().count() > 200, "{of_nimbus}");
    // The judges do complain about other pages.
    assert!(check_metrics("# TYPE a counter\na 1\n").is_err());
    assert!(read_strictly("# TYPE a counter\na_total 1\n").is_err());

    let said = check_rules(rules)?;
    assert!(said.contains("SUCCESS"), "{said}");
    wait_until("every rule was evaluated", WAIT_MAX, async || {
        let rules = server.rules().await.map_err(|error| format!("{error:#}"))?;
        let is_ok = rules.len() > 20 && rules.iter().all(|(_, health)| health == "ok");
        if is_ok { Ok(()) } else { Err(format!("{rules:?}")) }
    })
    .await;
    let dashboard: Value =
        serde_json::from_str(&fs::read_to_string(root().join("docs/grafana/stormkeeper.json"))?)?;
    let mut queries = Vec::new();
    expressions(&dashboard, &mut queries);
    assert!(queries.len() > 30, "only {queries:?}");
    for query in &queries {
        server.query(query).await.context("a query of the dashboard")?;
    }
    Ok(())
}
