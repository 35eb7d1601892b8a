//! A real VictoriaMetrics for one test, on the loopback. It accepts OpenTSDB's `/api/put`.

use std::{
    collections::BTreeMap,
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use stormkeeper_runtime::test_support::wait_until;

use crate::cluster::{free_ports, signal};

const READY: Duration = Duration::from_secs(30);

/// Start of the line with VictoriaMetrics's counter of ingested points.
const ROWS: &str = "vm_rows_inserted_total{type=\"opentsdbhttp\"} ";

/// A VictoriaMetrics server, killed when it is dropped.
pub(crate) struct VictoriaMetrics {
    child: Option<Child>,
    http: u16,
    opentsdb: u16,
    dir: tempfile::TempDir,
}

/// Labels of one series, including the name as `__name__`.
pub(crate) type Labels = BTreeMap<String, String>;

impl VictoriaMetrics {
    /// Starts a server and waits until it is ready.
    pub(crate) async fn start() -> Result<Self> {
        let ports = free_ports(2);
        let mut server = Self { child: None, http: ports[0], opentsdb: ports[1], dir: tempfile::tempdir()? };
        server.start_again().await?;
        Ok(server)
    }

    /// Starts the server again with the same data and the same ports.
    pub(crate) async fn start_again(&mut self) -> Result<()> {
        assert!(self.child.is_none(), "VictoriaMetrics is running already");
        let child = Command::new("victoria-metrics")
            .arg(format!("-storageDataPath={}", self.dir.path().join("data").display()))
            .arg(format!("-httpListenAddr=127.0.0.1:{}", self.http))
            .arg(format!("-opentsdbHTTPListenAddr=127.0.0.1:{}", self.opentsdb))
            .args(["-search.latencyOffset=0s", "-retentionPeriod=12"])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .context(
                "cannot start victoria-metrics: apt-get install --no-install-recommends victoria-metrics",
            )?;
        self.child = Some(child);
        wait_until("VictoriaMetrics accepts connections", READY, || async {
            for port in [self.http, self.opentsdb] {
                let connected = tokio::net::TcpStream::connect(("127.0.0.1", port)).await;
                connected.map_err(|error| format!("port {port}: {error}"))?;
            }
            Ok(())
        })
        .await;
        Ok(())
    }

    /// URL for `nimbus.metrics.plugin.opentsdb.url`.
    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.opentsdb)
    }

    /// Freezes the server (SIGSTOP): it accepts connections and never responds. All points that it
    /// has acknowledged are on its disk before; otherwise it syncs seconds after a response.
    pub(crate) async fn freeze(&self) -> Result<()> {
        loop {
            let before = self.n_rows().await?;
            self.get("/snapshot/create").await?;
            if self.n_rows().await? == before {
                break;
            }
        }
        signal(self.child.as_ref().context("it runs")?.id(), Signal::STOP);
        Ok(())
    }

    /// Kills the server (`kill -9`).
    pub(crate) fn kill9(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().expect("it is a child of this test");
            child.wait().expect("it is a child of this test");
        }
    }

    /// Number of points ingested since the server's start.
    async fn n_rows(&self) -> Result<u64> {
        let metrics = self.get("/metrics").await?;
        let line = metrics.lines().find_map(|line| line.strip_prefix(ROWS));
        Ok(line.context("VictoriaMetrics does not count ingested points")?.parse()?)
    }

    async fn get(&self, path: &str) -> Result<String> {
        let url = format!("http://127.0.0.1:{}{path}", self.http);
        Ok(reqwest::get(&url).await?.error_for_status()?.text().await?)
    }

    /// Exports all values by name and tags, with their time in seconds. The server keeps all values
    /// that were sent for one time, in no order.
    pub(crate) async fn export(&self) -> Result<BTreeMap<String, (u64, Vec<f64>)>> {
        self.get("/internal/force_flush").await?;
        let text = self.get("/api/v1/export?match[]=%7B__name__%3D~%22storm.*%22%7D").await?;
        let mut found = BTreeMap::new();
        for line in text.lines() {
            let series: serde_json::Value = serde_json::from_str(line)?;
            let labels: Labels = serde_json::from_value(series["metric"].clone())?;
            let values: Vec<f64> = serde_json::from_value(series["values"].clone())?;
            let times: Vec<u64> = serde_json::from_value(series["timestamps"].clone())?;
            let Some(time) = times.first().filter(|first| times.iter().all(|time| time == *first)) else {
                bail!("points of several times, or no points: {line}")
            };
            found.insert(format!("{labels:?}"), (time / 1000, values));
        }
        Ok(found)
    }

    /// Runs a query at the current time.
    pub(crate) async fn query(&self, query: &str) -> Result<Vec<(Labels, f64)>> {
        self.get("/internal/force_flush").await?;
        let mut url = reqwest::Url::parse(&format!("http://127.0.0.1:{}/api/v1/query", self.http))?;
        url.query_pairs_mut().append_pair("query", query).append_pair("nocache", "1");
        let answer = reqwest::get(url).await?.error_for_status()?.text().await?;
        let answer: serde_json::Value = serde_json::from_str(&answer)?;
        let found = answer["data"]["result"].as_array().with_context(|| format!("no result: {answer}"))?;
        let series = found.iter().map(|series| {
            let labels: Labels = serde_json::from_value(series["metric"].clone())?;
            let value = series["value"][1].as_str().with_context(|| format!("no value: {series}"))?;
            Ok((labels, value.parse()?))
        });
        series.collect()
    }
}

impl Drop for VictoriaMetrics {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            // The process may have ended already.
            let _ended = child.kill();
            let _reaped = child.wait();
        }
    }
}
