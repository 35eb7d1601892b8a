//! A real Prometheus for one test, on the loopback, and the tools that judge its pages.

use std::{
    io::Write as _,
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;
use stormkeeper_runtime::test_support::wait_until;

use crate::{cluster::free_ports, victoria_metrics::Labels};

const READY: Duration = Duration::from_secs(60);

/// Reads OpenMetrics strictly, and prints the number of samples.
const STRICT_READER: &str = "
import sys
from prometheus_client.openmetrics.parser import text_string_to_metric_families
print(sum(len(family.samples) for family in text_string_to_metric_families(sys.stdin.read())))
";

/// A Prometheus server with native histograms, killed when it is dropped.
pub(crate) struct PrometheusServer {
    child: Child,
    port: u16,
    _dir: tempfile::TempDir,
}

impl PrometheusServer {
    /// Starts a server that scrapes `targets` every second and evaluates the rules of a file, and waits
    /// until it is ready.
    pub(crate) async fn start(targets: &[String], rules: &Path) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let port = free_ports(1)[0];
        let config = dir.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{rules:?}]\n\
             scrape_configs: [{{job_name: stormkeeper, static_configs: [{{targets: {targets:?}}}]}}]\n"
        );
        std::fs::write(&config, text)?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", dir.path().join("data").display()))
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .arg("--enable-feature=native-histograms")
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context("cannot start prometheus: apt-get install --no-install-recommends prometheus")?;
        let server = Self { child, port, _dir: dir };
        wait_until("Prometheus is ready", READY, async || {
            let ready = reqwest::get(server.url("/-/ready")).await.map_err(|error| error.to_string())?;
            ready.error_for_status().map(drop).map_err(|error| error.to_string())
        })
        .await;
        Ok(server)
    }

    fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}{path}", self.port)
    }

    /// Runs a query at the current time.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<(Labels, f64)>> {
        let mut url = reqwest::Url::parse(&self.url("/api/v1/query"))?;
        url.query_pairs_mut().append_pair("query", query);
        let answer: Value = serde_json::from_str(&reqwest::get(url).await?.text().await?)?;
        ensure!(answer["status"] == "success", "{query}: {answer}");
        let found = answer["data"]["result"].as_array().with_context(|| format!("no result: {answer}"))?;
        let series = found.iter().map(|series| {
            let labels: Labels = serde_json::from_value(series["metric"].clone())?;
            let value = series["value"][1].as_str().with_context(|| format!("no number: {series}"))?;
            Ok((labels, value.parse()?))
        });
        series.collect()
    }

    /// Waits until a query has `n` series, all with this value.
    pub(crate) async fn wait_until_all(&self, query: &str, n: usize, value: f64) {
        wait_until(&format!("{query} is {value} on {n} nimbuses"), READY, async || {
            let found = self.query(query).await.map_err(|error| format!("{error:#}"))?;
            let is_so = found.len() == n && found.iter().all(|(_, of)| *of == value);
            if is_so { Ok(()) } else { Err(format!("{found:?}")) }
        })
        .await;
    }

    /// Returns the health of each rule, by its name.
    pub(crate) async fn rules(&self) -> Result<Vec<(String, String)>> {
        let answer: Value =
            serde_json::from_str(&reqwest::get(self.url("/api/v1/rules")).await?.text().await?)?;
        let groups = answer["data"]["groups"].as_array().context("groups")?;
        let rules = groups.iter().filter_map(|group| group["rules"].as_array()).flatten();
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        Ok(rules.map(|rule| (text(&rule["name"]), text(&rule["health"]))).collect())
    }
}

impl Drop for PrometheusServer {
    fn drop(&mut self) {
        // The process may have ended already.
        let _ended = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Runs a program with a page as its input; returns its standard output and error.
fn judged(mut command: Command, page: &str) -> Result<String> {
    let name = format!("{command:?}");
    let pipes = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = pipes.spawn().with_context(|| format!("cannot run {name}"))?;
    child.stdin.take().context("a pipe")?.write_all(page.as_bytes())?;
    let output = child.wait_with_output()?;
    let text = [output.stdout, output.stderr].concat();
    let text = String::from_utf8_lossy(&text).into_owned();
    ensure!(output.status.success(), "{name}: {}: {text}", output.status);
    Ok(text)
}

/// Lets `promtool check metrics` judge a text page; returns its complaints.
pub(crate) fn check_metrics(page: &str) -> Result<String> {
    let mut command = Command::new("promtool");
    command.args(["check", "metrics"]);
    judged(command, page)
}

/// Lets `promtool check rules` judge a file; returns what it says.
pub(crate) fn check_rules(file: &Path) -> Result<String> {
    let mut command = Command::new("promtool");
    command.args(["check", "rules"]).arg(file);
    judged(command, "")
}

/// Lets the reference reader of OpenMetrics read a page; returns the number of samples.
pub(crate) fn read_strictly(page: &str) -> Result<usize> {
    // Debian's Python, for which the package python3-prometheus-client is.
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-c", STRICT_READER]);
    Ok(judged(command, page)?.trim().parse()?)
}
