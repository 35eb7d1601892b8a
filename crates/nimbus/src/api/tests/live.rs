//! Live numbers: an agent of the test in the place of that of the supervisor.

use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::{StreamExt as _, stream};
use tokio::net::TcpListener;

use super::*;
use stormkeeper_api_types::message::{live::TopologyLive, logs::SUPERVISOR};
use stormkeeper_runtime::tasks::Tasks;

const ROUTE: &str = "/api/stormkeeper/v1/topology/wc/live";

/// Starts the agent of `s0`, and announces it. It streams the lines again and again, twice a second, with
/// uptimes that grow, or refuses if there are none. Returns the number of requests for lines.
async fn agent(f: &Fixture, tasks: &Tasks, lines: &'static [&'static str]) -> Arc<AtomicUsize> {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let path = layout::supervisor(&"s0".parse().expect("valid"));
    let data = f.tree.get(&path).await.expect("read").expect("there").data;
    let mut record: SupervisorRecord = record::decode(&path, &data).expect("readable");
    record.agent = Some(listener.local_addr().expect("bound").to_string());
    f.tree.set(&path, &record::encode(&record), None).await.expect("written");
    let asked = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let answer = move || {
        counted.fetch_add(1, Ordering::SeqCst);
        async move {
            if lines.is_empty() {
                let body = json!({ "code": "no_such_route", "message": "there is nothing" });
                return ([(SUPERVISOR, "s0")], (StatusCode::NOT_FOUND, axum::Json(body))).into_response();
            }
            let parts = stream::unfold(1_u64, move |n| async move {
                if n > 1 {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
                let text: String =
                    lines.iter().map(|line| line.replace("UPTIME", &(n * 500).to_string())).collect();
                Some((
                    Ok::<_, std::convert::Infallible>(text.replace("EXECUTED", &(n * 50).to_string())),
                    n + 1,
                ))
            });
            ([(SUPERVISOR, "s0")], Body::from_stream(parts)).into_response()
        }
    };
    let routes = Router::new().fallback(answer);
    tasks.start("agent", OnExit::Ignore, async move { axum::serve(listener, routes).await.expect("served") });
    asked
}

/// A worker with the first task, which executes 100 tuples a second, and one without numbers.
const LINES: &[&str] = &[
    "{\"port\":6700,\"worker\":\"6700-1-00000a\",\"sample\":{\"uptime_ms\":UPTIME,\"tasks\":[\
     {\"task\":1,\"component\":\"count\",\"counts\":{\"emitted\":0,\"transferred\":0,\"executed\":EXECUTED,\
     \"acked\":0,\"failed\":0}}]}}\n",
    "{\"port\":6701,\"worker\":\"6701-1-00000a\",\"problem\":\"it does not send live numbers\"}\n",
];

async fn placed(f: &Fixture, id: &TopologyId) {
    wait_until("it is placed", LONG, || async {
        let stored =
            Store::new(Arc::clone(&f.tree)).assignment(id).await.map_err(|error| error.to_string())?;
        stored.filter(|stored| stored.value.workers.len() == 2).map(|_| ()).ok_or("no".to_owned())
    })
    .await;
}

/// Opens a stream of events.
async fn events(router: &Router) -> axum::body::BodyDataStream {
    let request = Request::get(format!("{ROUTE}/events")).header("host", "localhost");
    let response =
        router.clone().oneshot(request.body(Body::empty()).expect("valid")).await.expect("infallible");
    assert_eq!(response.status(), StatusCode::OK);
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    response.into_body().into_data_stream()
}

/// Returns the next event that has live numbers for which `pick` is true, as it was sent.
async fn event(stream: &mut axum::body::BodyDataStream, pick: impl Fn(&TopologyLive) -> bool) -> String {
    let found = async {
        loop {
            let part = stream.next().await.expect("more").expect("read");
            let text = String::from_utf8(part.to_vec()).expect("text");
            let data = text.lines().find_map(|line| line.strip_prefix("data: "));
            let live = data.and_then(|data| serde_json::from_str::<TopologyLive>(data).ok());
            if live.is_some_and(|live| pick(&live)) {
                return text;
            }
        }
    };
    tokio::time::timeout(LONG, found).await.expect("in time")
}

#[tokio::test]
async fn all_readers_of_a_topology_share_one_request_to_its_agent_and_get_the_same_text() {
    let (f, tasks) = (Fixture::new().await, Tasks::default());
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    let asked = agent(&f, &tasks, LINES).await;
    placed(&f, &submitted_wc(&router).await).await;
    let (status, live) = ask(&router, Method::GET, ROUTE, "").await;
    assert_eq!((status, &live["workersLive"], &live["workersTotal"]), (StatusCode::OK, &json!(1), &json!(2)));
    assert_eq!(live["missing"][0]["reason"], "it does not send live numbers", "{live}");
    assert_eq!(live["components"][0]["rates"]["executed"], json!(100.0), "it waits for rates: {live}");
    assert_eq!(live["tasks"][0]["task"], json!(1), "{live}");
    assert!(live["ageMs"].as_u64().is_some_and(|age| age < 2_000), "{live}");
    let (mut first, mut second) = (events(&router).await, events(&router).await);
    let begin = first.next().await.expect("more").expect("read");
    assert_eq!(begin, "retry: 1000\n\n");
    let text = event(&mut first, |live| live.workers_live == 1 && live.tasks.is_empty()).await;
    assert!(text.starts_with("event: live\nid: ") && text.ends_with("\n\n"), "{text}");
    let same = event(&mut second, |_| true).await;
    assert!(same == text || same == event(&mut first, |_| true).await, "{same}");
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn stream_says_when_its_topology_is_gone_and_ends() {
    let (f, tasks) = (Fixture::new().await, Tasks::default());
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    let _asked = agent(&f, &tasks, LINES).await;
    placed(&f, &submitted_wc(&router).await).await;
    let mut stream = events(&router).await;
    event(&mut stream, |_| true).await;
    let kill = "/api/stormkeeper/v1/topology/wc/kill";
    assert_eq!(ask(&router, Method::POST, kill, r#"{"waitSecs":0}"#).await.0, StatusCode::OK);
    let ended = async {
        let mut last = Bytes::new();
        while let Some(part) = stream.next().await {
            last = part.expect("read");
        }
        last
    };
    let last = tokio::time::timeout(LONG, ended).await.expect("it ends");
    assert_eq!(last, "event: end\ndata: {}\n\n");
    assert_eq!(ask(&router, Method::GET, ROUTE, "").await.0, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn supervisor_of_an_earlier_build_is_named_and_bad_requests_are_refused() {
    let (f, tasks) = (Fixture::new().await, Tasks::default());
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    let _asked = agent(&f, &tasks, &[]).await;
    placed(&f, &submitted_wc(&router).await).await;
    let (status, live) = ask(&router, Method::GET, ROUTE, "").await;
    assert_eq!((status, live["ageMs"].is_null()), (StatusCode::OK, true), "{live}");
    let missing = live["missing"].as_array().expect("a list");
    let is_old =
        |worker: &Value| worker["reason"].as_str().is_some_and(|text| text.contains("build without"));
    assert!(missing.len() == 2 && missing.iter().all(is_old), "{live}");
    for (route, status) in [
        ("/api/stormkeeper/v1/topology/none/live", StatusCode::NOT_FOUND),
        ("/api/stormkeeper/v1/topology/none/live/events", StatusCode::NOT_FOUND),
        ("/api/stormkeeper/v1/topology/wc/live?rates=maybe", StatusCode::BAD_REQUEST),
        ("/api/stormkeeper/v1/topology/wc/live/events?rates=true", StatusCode::BAD_REQUEST),
    ] {
        assert_eq!(ask(&router, Method::GET, route, "").await.0, status, "{route}");
    }
}
