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

/// Starts an agent that refuses every request with `code`, and returns its address.
async fn agent_without_logs(tasks: &Tasks, id: &'static str, code: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let answer = move || async move {
        let body = json!({ "code": code, "message": format!("refused by {id}") });
        ([(SUPERVISOR, id)], (StatusCode::NOT_FOUND, axum::Json(body)))
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
    register(&f, "without", &agent_without_logs(&tasks, "without", "unknown_topology").await).await;
    register(&f, "broken", &agent_without_logs(&tasks, "broken", "internal").await).await;
    // Connections are accepted by the kernel, and nothing answers.
    let hangs = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    register(&f, "hangs", &hangs.local_addr().expect("bound").to_string()).await;
    wait_until("all are in the view", LONG, async || {
        let (_, list) = ask(&router, Method::GET, "/api/stormkeeper/v1/supervisor/summary", "").await;
        if list["supervisors"].as_array().is_some_and(|all| all.len() == 8) {
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
    assert_eq!(shown, [&json!("good"), &json!("without")], "a host that has nothing is no failure");
    assert_eq!(logs["supervisors"][1]["workers"], json!([]));
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
        ("broken", "refused by broken"),
        ("hangs", "no answer within 5 s"),
    ] {
        assert!(reason(id).contains(expected), "{id}: {}", reason(id));
    }
}

/// Starts the agent of `s1`, which has one log.
async fn agent_with_log(tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let log = async |request: Request<Body>| {
        let path = "/api/stormkeeper/v1/logs/gone-1-1/6700/worker.log/download?worker=w%2F1";
        let response = match request.uri() == path {
            true => vec![0xff; 3 << 20].into_response(),
            false => {
                let body = json!({ "code": "unknown_log", "message": request.uri().to_string() });
                (StatusCode::NOT_FOUND, axum::Json(body)).into_response()
            }
        };
        ([(SUPERVISOR, "s1")], response)
    };
    let routes = Router::new().fallback(log);
    tasks.start("agent", OnExit::Ignore, async move { axum::serve(listener, routes).await.expect("served") });
    address
}

#[tokio::test]
async fn downloaded_log_has_the_bytes_of_the_agent_and_a_refusal_is_that_of_the_agent() {
    let (f, tasks) = (Fixture::new().await, Tasks::default());
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    register(&f, "s1", &agent_with_log(&tasks).await).await;
    let at = |file: &str| {
        format!("/api/stormkeeper/v1/topology/gone-1-1/logs/s1/6700/{file}/download?worker=w%2F1")
    };
    let bytes = wait_until("the supervisor is in the view", LONG, async || {
        let request = Request::builder().uri(at("worker.log")).header("host", "localhost");
        let request = request.body(Body::empty()).expect("a request");
        let response = router.clone().oneshot(request).await.expect("infallible");
        let (status, headers) = (response.status(), response.headers().clone());
        let bytes = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        if status != StatusCode::OK {
            return Err(String::from_utf8_lossy(&bytes).into_owned());
        }
        let name = "attachment; filename=\"gone-1-1-s1-6700-worker.log\"";
        assert_eq!(headers["content-disposition"], name);
        Ok(bytes)
    })
    .await;
    assert!(bytes.len() == 3 << 20 && bytes.iter().all(|byte| *byte == 0xff), "{} bytes", bytes.len());
    let (status, answer) = ask(&router, Method::GET, &at("..%2Fworker.log"), "").await;
    assert_eq!((status, &answer["code"]), (StatusCode::NOT_FOUND, &json!("unknown_log")));
    let asked = answer["message"].as_str().expect("the path at the agent");
    assert!(asked.contains("/6700/..%2Fworker.log/download"), "a part of a path stays one: {asked}");
    for dots in ["..", "%2e%2e", "."] {
        let (status, answer) = ask(&router, Method::GET, &at(dots), "").await;
        assert_eq!((status, &answer["code"]), (StatusCode::NOT_FOUND, &json!("unknown_log")), "{dots}");
        assert_eq!(answer["message"], json!("this is no name of a log file"), "the agent is not asked");
    }
}

/// Starts an agent of the supervisor `s1` with a log of ten bytes, and returns its address.
async fn agent_with_ten_bytes(tasks: &Tasks) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("bound").to_string();
    let answer = async |method: Method, headers: HeaderMap| {
        let part = stormkeeper_serving::range::Part::asked(&method, &headers, 10);
        let text = "0123456789";
        let end = usize::try_from(part.first() + part.length()).expect("small");
        let text = &text[usize::try_from(part.first()).expect("small")..end];
        ([(SUPERVISOR, "s1")], part.response(|| text.into()))
    };
    let routes = Router::new().fallback(answer);
    tasks.start("agent", OnExit::Ignore, async move { axum::serve(listener, routes).await.expect("served") });
    address
}

#[tokio::test]
async fn length_and_range_of_a_log_are_those_of_its_agent() {
    let (f, tasks) = (Fixture::new().await, Tasks::default());
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    register(&f, "s1", &agent_with_ten_bytes(&tasks).await).await;
    let path = "/api/stormkeeper/v1/topology/gone-1-1/logs/s1/6700/worker.log/download";
    let send = async |method: Method, headers: &[(&str, &str)]| {
        let mut request = axum::http::Request::builder().method(method).uri(path).header("host", "localhost");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let response = router.clone().oneshot(request.body(Body::empty()).expect("valid")).await;
        let response = response.expect("infallible");
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().expect("text"));
        let headers = [header("content-length"), header("content-range"), header("content-type")];
        let headers = headers.map(|value| value.unwrap_or_default().to_owned());
        let status = response.status().as_u16();
        let body = axum::body::to_bytes(response.into_body(), 1 << 20).await.expect("a body");
        (status, headers, String::from_utf8(body.to_vec()).expect("text"))
    };
    let octets = "application/octet-stream";
    let whole =
        wait_until("the supervisor is in the view", LONG, async || match send(Method::GET, &[]).await {
            (200, headers, body) => Ok((headers, body)),
            other => Err(format!("{other:?}")),
        })
        .await;
    assert_eq!(whole, (["10", "", octets].map(str::to_owned), "0123456789".to_owned()));
    let (status, headers, body) = send(Method::HEAD, &[]).await;
    assert_eq!(
        (status, headers.each_ref().map(String::as_str), body.as_str()),
        (200, ["10", "", octets], "")
    );
    let (status, headers, body) = send(Method::GET, &[("range", "bytes=2-4")]).await;
    let headers = headers.each_ref().map(String::as_str);
    assert_eq!((status, headers, body.as_str()), (206, ["3", "bytes 2-4/10", octets], "234"));
    let (status, _, body) = send(Method::GET, &[("range", "bytes=2-4"), ("if-range", "\"x\"")]).await;
    assert_eq!((status, body.as_str()), (200, "0123456789"));
    let (status, headers, body) = send(Method::GET, &[("range", "bytes=10-")]).await;
    assert_eq!((status, headers[1].as_str(), headers[2].as_str()), (416, "bytes */10", "application/json"));
    assert!(body.contains("behind the end"), "{body}");
}

#[tokio::test]
async fn download_beyond_the_limit_is_refused() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    // Connections are accepted by the kernel, and nothing answers.
    let hangs = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    register(&f, "s1", &hangs.local_addr().expect("bound").to_string()).await;
    let path = "/api/stormkeeper/v1/topology/gone-1-1/logs/s1/6700/worker.log/download";
    let all = (0..=crate::api::logs::DOWNLOADS_MAX).map(|_| async {
        wait_until("the supervisor is in the view", LONG, async || {
            match ask(&router, Method::GET, path, "").await {
                (StatusCode::NOT_FOUND, answer) => Err(answer.to_string()),
                (status, answer) => Ok((status, answer)),
            }
        })
        .await
    });
    let mut answers = futures_util::future::join_all(all).await;
    answers.sort_by_key(|(status, _)| *status);
    let statuses: Vec<StatusCode> = answers.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == StatusCode::SERVICE_UNAVAILABLE).count(), 1);
    assert_eq!(
        statuses.iter().filter(|status| **status == StatusCode::BAD_GATEWAY).count(),
        crate::api::logs::DOWNLOADS_MAX
    );
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
        ("wc-1-1/logs/search?port=", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/search?last=-1", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/search?last=10001", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/search?past=yes", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/search?text=", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/search?text=a%0Ab", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/search?component=a%2Fb", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/search?pattern=a", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/none/6700/worker.log", StatusCode::NOT_FOUND, "unknown_host"),
        ("wc-1-1/logs/..%2f../6700/worker.log", StatusCode::NOT_FOUND, "unknown_host"),
        ("wc-1-1/logs/%ff/6700/worker.log", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/s0/6700/worker.log?offset=-1", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/s0/6700/worker.log", StatusCode::BAD_GATEWAY, "agent_unavailable"),
        ("wc-1-1/logs/s0/6700/worker.log/download", StatusCode::BAD_GATEWAY, "agent_unavailable"),
        ("wc-1-1/logs/s0/6700/worker.log/download?offset=1", StatusCode::BAD_REQUEST, "invalid_request"),
        ("wc-1-1/logs/none/6700/worker.log/download", StatusCode::NOT_FOUND, "unknown_host"),
    ] {
        let (found, answer) =
            ask(&router, Method::GET, &format!("/api/stormkeeper/v1/topology/{path}"), "").await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{path}: {answer}");
    }
}

#[tokio::test]
async fn parameters_of_a_path_that_takes_none_are_refused_and_other_paths_are_still_absent() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    for (path, status, code) in [
        ("cluster/summary?limit=1", StatusCode::BAD_REQUEST, "invalid_request"),
        ("topology/summary?window=600", StatusCode::BAD_REQUEST, "invalid_request"),
        ("topology/wc-1-1/errors?limit=1", StatusCode::BAD_REQUEST, "invalid_request"),
        ("topology/wc-1-1/nowhere?limit=1", StatusCode::NOT_FOUND, "no_such_route"),
        ("cluster/events?limit=many", StatusCode::BAD_REQUEST, "invalid_request"),
        ("metrics/status?limit=1", StatusCode::BAD_REQUEST, "invalid_request"),
    ] {
        let (found, answer) = ask(&router, Method::GET, &format!("/api/stormkeeper/v1/{path}"), "").await;
        assert_eq!((found, &answer["code"]), (status, &json!(code)), "{path}: {answer}");
        assert!(answer["hint"].is_string() || code == "no_such_route", "{path}: {answer}");
    }
    let (status, answer) = ask(&router, Method::GET, "/api/stormkeeper/v1/cluster/summary?", "").await;
    assert_eq!(status, StatusCode::OK, "{answer}");
    let kill = "/api/stormkeeper/v1/topology/wc/kill?waitSecs=9";
    let (status, answer) = ask(&router, Method::POST, kill, "").await;
    assert_eq!((status, &answer["code"]), (StatusCode::BAD_REQUEST, &json!("invalid_request")));
}
