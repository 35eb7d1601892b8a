//! The prefix of the own API, and the old one for builds before it.

use super::*;
use stormkeeper_api_types::routes::HEADER;

#[tokio::test]
async fn routes_are_at_their_prefix_and_for_earlier_builds_at_the_old_one() {
    let f = Fixture::new().await;
    let leader = f.leader().await;
    let router = routes(leader.handle().clone());
    for prefix in ["/api/stormkeeper/v1", "/api/v1"] {
        let (status, cluster) = ask(&router, Method::GET, &format!("{prefix}/cluster/summary"), "").await;
        assert_eq!((status, &cluster["supervisors"]), (StatusCode::OK, &json!(1)), "{prefix}");
        let (status, error) = ask(&router, Method::GET, &format!("{prefix}/nothing"), "").await;
        let text = error["message"].as_str().expect("text");
        assert_eq!(status, StatusCode::NOT_FOUND);
        assert_eq!(text, format!("there is nothing at {prefix}/nothing"));
        let (status, error) = ask(&router, Method::DELETE, &format!("{prefix}/cluster/summary"), "").await;
        let text = error["message"].as_str().expect("text");
        assert_eq!(status, StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(text, format!("{prefix}/cluster/summary does not take DELETE"));
    }
    // Every 404 has the header by which a client tells this build from earlier ones.
    let request = Request::builder().uri("/nothing").header("host", "localhost").body(Body::empty());
    let response = router.oneshot(request.expect("a request")).await.expect("answered");
    assert_eq!(response.status(), StatusCode::NOT_FOUND);
    assert_eq!(response.headers()[HEADER], "/api/stormkeeper/v1");
}
