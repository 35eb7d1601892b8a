//! Clusters with tokens and a cluster secret: everything works with locked doors, and a running cluster
//! is locked without the restart of a worker.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
};

use reqwest::{Method, StatusCode};
use stormkeeper_runtime::test_support::wait_until;

use crate::{
    cluster::{Cluster, Shape, WAIT_MAX},
    exact_counts::{SETTINGS, counted, settled, submit, wait_until_counted},
};

pub(crate) fn stormkeeper(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_stormkeeper"))
        .args(args)
        .env_remove("STORMKEEPER_CONF")
        .env_remove("STORMKEEPER_TOKEN")
        .output()
        .expect("the binary runs")
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a path of text")
}

/// Secret and tokens, made by the commands.
pub(crate) struct Keys {
    dir: tempfile::TempDir,
}

impl Keys {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let keys = Self { dir };
        let made = stormkeeper(&["secret", "new", text(&keys.path("secret"))]);
        assert!(made.status.success(), "{made:?}");
        let mut lines = String::new();
        for (name, role, owner) in [
            ("root", "admin", None),
            ("bob", "operator", None),
            ("ci", "operator", Some("team")),
            ("grafana", "reader", None),
        ] {
            let out = keys.path(name);
            let owner = owner.map(|owner| ["--owner", owner]);
            let args = [&["token", "new", name, "--role", role, "--out", text(&out)][..]];
            let made = stormkeeper(&[args.concat(), owner.into_iter().flatten().collect()].concat());
            assert!(made.status.success(), "{made:?}");
            let printed = String::from_utf8(made.stdout).expect("text");
            let line = printed.lines().find_map(|line| line.strip_prefix("line:")).expect("a line");
            lines.push_str(&format!("{}\n", line.trim()));
        }
        fs::write(keys.path("tokens"), lines).expect("written");
        keys
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(crate) fn settings(&self) -> String {
        format!(
            "storm.cluster.secret.file: {}\nui.tokens.file: {}\nui.token.file: {}\n",
            text(&self.path("secret")),
            text(&self.path("tokens")),
            text(&self.path("root")),
        )
    }

    pub(crate) fn token(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).expect("there").trim().to_owned()
    }
}

async fn ask(api: &str, method: Method, route: &str, token: Option<&str>) -> StatusCode {
    let client = stormkeeper_api_types::http::client().build().expect("a client");
    let mut request = client.request(method, format!("http://{api}{route}"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    request.send().await.expect("answered").status()
}

/// Asserts that each nimbus refuses each kind of request to everybody who may not send it.
async fn expect_locked_doors(cluster: &Cluster, keys: &Keys) {
    let (reader, operator, admin) = (keys.token("grafana"), keys.token("bob"), keys.token("root"));
    let v1 = "/api/stormkeeper/v1";
    for api in cluster.apis() {
        for (method, route, too_low) in [
            (Method::GET, "/topology/summary", None),
            (Method::GET, "/metrics/history", None),
            (Method::POST, "/topology/exact/kill", Some(&reader)),
            (Method::POST, "/topology/submit", Some(&reader)),
            (Method::POST, "/host/127.0.0.1/drain", Some(&reader)),
            (Method::POST, "/recovery", Some(&operator)),
            (Method::GET, "/metrics/sync/checkpoint", Some(&admin)),
            (Method::POST, "/metrics/register", Some(&admin)),
            (Method::POST, "/metrics/ingest", Some(&admin)),
        ] {
            let route = format!("{v1}{route}");
            let anonymous = ask(api, method.clone(), &route, None).await;
            assert_eq!(anonymous, StatusCode::UNAUTHORIZED, "{method} {route}");
            if let Some(token) = too_low {
                assert_eq!(
                    ask(api, method.clone(), &route, Some(token)).await,
                    StatusCode::FORBIDDEN,
                    "{route}"
                );
            }
        }
        assert_eq!(ask(api, Method::GET, "/live", None).await, StatusCode::OK);
        assert_eq!(
            ask(api, Method::GET, &format!("{v1}/topology/summary"), Some(&reader)).await,
            StatusCode::OK
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn locked_cluster_counts_exactly_across_the_loss_of_its_leader() {
    let keys = Keys::new();
    let settings = format!("{SETTINGS}{}", keys.settings());
    let mut cluster = Cluster::with(Shape { nimbuses: 3, ..Shape::SMALL }, &settings).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    cluster.wait_until_whole("exact").await;
    wait_until_counted(&cluster, &counts).await;
    expect_locked_doors(&cluster, &keys).await;

    let leading = cluster.leading().await.expect("there is a leader");
    cluster.nimbuses[leading.nimbus].kill9();
    cluster.wait_for_leader_after(leading.term).await;
    wait_until_counted(&cluster, &counts).await;
    cluster.nimbuses[leading.nimbus].start_again();
    cluster.wait_until_nimbuses_registered().await;
    expect_locked_doors(&cluster, &keys).await;

    cluster.set_token(None);
    let refused = cluster.run(&["deactivate", "exact"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("has no token") && said.contains("STORMKEEPER_TOKEN"), "{said}");
    cluster.set_token(Some(keys.path("grafana")));
    let refused = cluster.run(&["kill", "exact"]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(4), "{said}");
    assert!(said.contains("grafana (reader)") && said.contains("operator"), "{said}");

    cluster.set_token(Some(keys.path("bob")));
    cluster.ok(&["deactivate", "exact"]);
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    for (component, metric) in [("numbers", "Emitted"), ("sink", "Acked")] {
        let stored = settled(&cluster, (&id, component, metric), &counts).await;
        let (begun, done) = counted(&counts, component);
        let of_component = stored[&format!("component {component}")];
        assert!(done > 200 && begun == done, "{component}: {begun} begun, {done} done");
        assert_eq!(of_component, done, "{component}: {stored:?}");
    }
    let events = cluster.ok(&["events"]);
    assert!(events.contains("bob"), "{events}");
    cluster.ok(&["kill", "exact", "-w", "0s"]);
    cluster.wait_until_nothing_is_left().await;
}

/// Adds lines to the configuration of all daemons, and restarts them one after the other.
pub(crate) async fn restart_with(cluster: &mut Cluster, lines: &str) {
    let names = cluster.nimbuses.iter().chain(&cluster.supervisors).map(|daemon| daemon.name.clone());
    for name in names.collect::<Vec<_>>() {
        let file = cluster.path(&name).join("storm.yaml");
        let before = fs::read_to_string(&file).expect("there");
        let kept: String = before
            .lines()
            .filter(|line| !lines.contains(line.split(':').next().unwrap_or_default()))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(&file, format!("{kept}{lines}")).expect("written");
    }
    for nimbus in 0..cluster.nimbuses.len() {
        cluster.nimbuses[nimbus].terminate();
        cluster.nimbuses[nimbus].start_again();
        cluster.wait_until_nimbuses_registered().await;
    }
    for supervisor in 0..cluster.supervisors.len() {
        cluster.supervisors[supervisor].terminate();
        cluster.supervisors[supervisor].start_again();
        cluster.wait_until_ready().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn running_cluster_is_locked_step_by_step_and_no_worker_restarts() {
    let keys = Keys::new();
    let mut cluster = Cluster::with(Shape::SMALL, SETTINGS).await;
    let counts = cluster.path("counts");
    submit(&cluster, &counts).await;
    cluster.wait_until_whole("exact").await;
    let workers = cluster.worker_processes();

    let files: String = keys
        .settings()
        .lines()
        .filter(|line| !line.starts_with("ui.token.file"))
        .map(|l| format!("{l}\n"))
        .collect();
    restart_with(&mut cluster, &format!("{files}storm.access: optional\n")).await;
    wait_until_counted(&cluster, &counts).await;
    let api = cluster.api(0).to_owned();
    let summary = "/api/stormkeeper/v1/topology/summary";
    assert_eq!(ask(&api, Method::GET, summary, None).await, StatusCode::OK, "no proof is required yet");
    assert_eq!(
        ask(&api, Method::GET, summary, Some("a-token-that-nobody-knows")).await,
        StatusCode::UNAUTHORIZED
    );

    // Supervisors write the keys of running workers every ten seconds.
    wait_until("every worker has the keys of its topology", WAIT_MAX, async || {
        let without = workers_without_keys(&cluster);
        if without.is_empty() { Ok(()) } else { Err(format!("{without:?}\n{}", cluster.logs())) }
    })
    .await;
    cluster.set_token(Some(keys.path("root")));
    restart_with(&mut cluster, "storm.access: required\n").await;
    assert_eq!(ask(&api, Method::GET, summary, None).await, StatusCode::UNAUTHORIZED);
    wait_until_counted(&cluster, &counts).await;
    assert_eq!(cluster.worker_processes(), workers, "no worker was restarted");

    cluster.ok(&["deactivate", "exact"]);
    let id = cluster.json(&["show", "exact"])["id"].as_str().expect("an id").to_owned();
    for (component, metric) in [("numbers", "Emitted"), ("sink", "Acked")] {
        let stored = settled(&cluster, (&id, component, metric), &counts).await;
        let (_, done) = counted(&counts, component);
        assert_eq!(stored[&format!("component {component}")], done, "{component}: {stored:?}");
    }
}

fn workers_without_keys(cluster: &Cluster) -> Vec<PathBuf> {
    let dirs =
        (1..=cluster.supervisors.len()).map(|i| cluster.path(&format!("supervisor-{i}/supervisor/workers")));
    let workers = dirs.flat_map(|dir| fs::read_dir(dir).into_iter().flatten());
    let workers = workers.map(|entry| entry.expect("readable").path());
    workers.filter(|dir| !dir.join("access.keys").exists()).collect()
}

#[test]
fn daemon_whose_files_have_a_mistake_does_not_start() {
    let keys = Keys::new();
    let dir = tempfile::tempdir().expect("a directory");
    let local_dir = format!("storm.local.dir={}", text(dir.path()));
    let (secret, tokens) = (keys.path("secret"), keys.path("tokens"));
    let typo = keys.path("typo");
    fs::write(&typo, "ann adm sha256:00\n").expect("written");
    let start = |daemon: &str, settings: &[String]| {
        let mut args = vec![daemon, "-c", &local_dir];
        args.extend(settings.iter().flat_map(|setting| ["-c", setting]));
        let output = stormkeeper(&args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let secret_is = |path: &Path| format!("storm.cluster.secret.file={}", text(path));
    let tokens_are = |path: &Path| format!("ui.tokens.file={}", text(path));
    let expect = |daemon, settings: &[String], words: &[&str]| {
        let (code, said) = start(daemon, settings);
        assert_eq!(code, Some(3), "{said}");
        assert!(words.iter().all(|word| said.contains(word)), "{words:?}: {said}");
    };
    expect("nimbus", &[secret_is(&secret), tokens_are(&typo)], &["typo:1", "\"adm\" is no role"]);
    expect("nimbus", &[tokens_are(&tokens)], &["storm.cluster.secret.file", "stormkeeper secret new"]);
    expect("nimbus", &[secret_is(&secret)], &["ui.tokens.file", "stormkeeper token new"]);
    expect("supervisor", &["storm.access=required".to_owned()], &["storm.cluster.secret.file"]);
    expect("supervisor", &[secret_is(&keys.path("none"))], &["cannot read", "none"]);
    let readable = keys.path("readable");
    fs::copy(&secret, &readable).expect("copied");
    Command::new("chmod").args(["644", text(&readable)]).status().expect("chmod runs");
    expect("supervisor", &[secret_is(&readable)], &["644", "chmod 600"]);
    expect("nimbus", &["storm.access=closed".to_owned()], &["storm.access", "optional"]);
}
