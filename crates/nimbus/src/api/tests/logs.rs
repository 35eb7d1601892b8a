//! Logs of workers: agents that answer, that do not, and that are not what they seem.

use axum::response::Redirect;
use tokio::net::TcpListener;

use super::*;
use stormkeeper_api_types::message::logs::SUPERVISOR;
use stormkeeper_runtime::tasks::Tasks;

/// Starts an agent that answers every request as the supervisor `id`, and returns its address.
async fn agent(tasks: &Tasks, id: &'static str, redirect: Option<String>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let list = json!({ "supervisor": id, "host": format!("host-{id}"), "workers": [
        { "port": 6700, "worker": "6700-1-00000a", "running": true, "files": [] }] });
    let answer = move || {
        let (list, redirect) = (list.clone(), redirect.clone());
        async move {
            let response = match redirect {
                Some(to) => Redirect::temporary(&to).into_response(),
                None => axum::Json(list).into_response(),
            };
            ([(SUPERVISOR, id)], response)
        }
    };
    let routes = Router::new().fallback(answer);
    tasks.start("agent", OnExit::Ignore, async move { axum::serve(listener, routes).await.expect("served") });
    address
}

async fn register(f: &Fixture, id: &str, agent: &str) {
    let path = layout::supervisor(&"s0".parse().expect("valid"));
    let node = f.tree.get(&path).await.expect("read").expect("there");
    let record: SupervisorRecord = record::decode(&path, &node.data).expect("valid");
    let record = SupervisorRecord { host: format!("host-{id}"), agent: Some(agent.to_owned()), ..record };
    let path = layout::supervisor(&id.parse().expect("valid"));
    f.tree.create(&path, &record::encode(&record), CreateMode::Ephemeral).await.expect("created");
}

#[tokio::test]
async fn agents_without_a_useful_answer_are_named_and_the_others_are_shown() {
    let (f, tasks) = (Fixture::new().await, Tasks::default());
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    let good = agent(&tasks, "good", None).await;
    register(&f, "good", &good).await;
    register(&f, "copied", &good).await;
    let redirects = agent(&tasks, "redirects", Some(format!("http://{good}/"))).await;
    register(&f, "redirects", &redirects).await;
    register(&f, "misspelt", "host/path?:80").await;
    // Connections are accepted by the kernel, and nothing answers.
    let hangs = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    register(&f, "hangs", &hangs.local_addr().expect("bound").to_string()).await;
    wait_until("all are in the view", LONG, async || {
        let (_, list) = ask(&router, Method::GET, "/api/stormkeeper/v1/supervisor/summary", "").await;
        if list["supervisors"].as_array().is_some_and(|all| all.len() == 6) {
            Ok(())
        } else {
            Err(list.to_string())
        }
    })
    .await;
    let (status, logs) = ask(&router, Method::GET, "/api/stormkeeper/v1/topology/gone-1-1/logs", "").await;
    assert_eq!((status, &logs["present"]), (StatusCode::OK, &json!(false)), "{logs}");
    let shown: Vec<&Value> =
        logs["supervisors"].as_array().expect("a list").iter().map(|it| &it["supervisor"]).collect();
    assert_eq!(shown, [&json!("good")]);
    let reason = |id: &str| {
        let mut all = logs["unavailable"].as_array().expect("a list").iter();
        let found =
            all.find(|it| it["supervisor"] == id).unwrap_or_else(|| panic!("{id} is not named: {logs}"));
        found["reason"].as_str().expect("a reason").to_owned()
    };
    for (id, expected) in [
        ("s0", "it is of a build without one (its version is 0)"),
        ("copied", "is of another supervisor, good"),
        ("redirects", "it answered 307"),
        ("misspelt", "which is no address"),
        ("hangs", "no answer within 5 s"),
    ] {
        assert!(reason(id).contains(expected), "{id}: {}", reason(id));
    }
}

#[tokio::test]
async fn bad_requests_for_logs_are_refused_before_an_agent_is_asked() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    for (path, status, code) in [
        ("wc/logs", StatusCode::NOT_FOUND, "unknown_topology"),
        ("wc-1-1/logs?all=perhaps", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs?path=x", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/search?host=none", StatusCode::NOT_FOUND, "unknown_host"),
        ("wc-1-1/logs/search?port=70000", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/none/6700/worker.log", StatusCode::NOT_FOUND, "unknown_host"),
        ("wc-1-1/logs/..%2f../6700/worker.log", StatusCode::NOT_FOUND, "unknown_host"),
        ("wc-1-1/logs/%ff/6700/worker.log", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/s0/6700/worker.log?offset=-1", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/s0/6700/worker.log", StatusCode::BAD_GATEWAY, "agent_unavailable"),
    ] {
        let (found, answer) =
            ask(&router, Method::GET, &format!("/api/stormkeeper/v1/topology/{path}"), "").await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{path}: {answer}");
    }
}
