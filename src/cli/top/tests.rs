use super::{
    keys::Key,
    live,
    screen::Size,
    state::{Data, Effect, Level, State},
    view::{self, Line, Style},
};
use stormkeeper_api_types::message::{ClusterSummary, TopologyDetail, TopologyList};
use stormkeeper_model::clock::Monotonic;

const SIZE: Size = Size { columns: 120, rows: 12 };

fn at(secs: u64) -> Monotonic {
    Monotonic::from_nanos(secs * 1_000_000_000)
}

/// A topology with a spout of one task and a bolt of two, whose first task has executed this many tuples.
fn detail(executed: u64) -> Data {
    let component = |id: &str, kind: &str, n: usize| {
        serde_json::json!({
            "id": id, "kind": kind, "parallelism": n, "tasksAlive": n, "emitted": 0, "transferred": 0,
            "executed": 0, "acked": 0, "failed": 0, "pending": 3
        })
    };
    let task = |task: u32, component: &str, executed: u64| {
        serde_json::json!({
            "task": task, "component": component, "host": "h", "port": 6700, "liveness": "alive",
            "status": "running", "uptimeSeconds": 3, "emitted": 7, "transferred": 0, "executed": executed,
            "acked": 0, "failed": 0, "pending": 0
        })
    };
    let detail = serde_json::json!({
        "id": "wc-1-1", "name": "wc", "owner": "o", "status": "active", "launchedMs": 1, "uptimeSeconds": 65,
        "tasksTotal": 3, "tasksAssigned": 3, "tasksAlive": 3, "workersTotal": 1, "workersWanted": 1,
        "executorsTotal": 3, "replicationCount": 1, "blob": "0".repeat(64), "msgTimeout": 30, "workers": [],
        "viewAgeMs": 0, "problem": "a task\u{1b}[2J fails",
        "components": [component("lines", "spout", 1), component("split", "bolt", 2)],
        "tasks": [task(1, "lines", 0), task(2, "split", executed), task(10, "split", 5)]
    });
    Data::Topology(Box::new(serde_json::from_value::<TopologyDetail>(detail).expect("a topology")), None)
}

fn screen(state: &mut State, now: u64) -> Vec<Line> {
    view::lines(state, SIZE, at(now))
}

fn text(lines: &[Line]) -> String {
    lines.iter().map(|line| line.text.trim_end().to_owned() + "\n").collect()
}

fn selected(lines: &[Line]) -> String {
    let bars: Vec<&Line> = lines.iter().filter(|line| line.style == Style::Reverse).collect();
    assert_eq!(bars.len(), 1, "{}", text(lines));
    bars[0].text.split_whitespace().next().unwrap_or_default().to_owned()
}

#[test]
fn rates_are_measured_between_reports_and_begin_anew_with_a_task() {
    let mut state = State::new(Some("wc".to_owned()));
    let mut shown = |executed: Option<u64>, secs: u64| {
        if let Some(executed) = executed {
            state.take(detail(executed), at(secs));
        }
        text(&screen(&mut state, secs))
    };
    assert!(!shown(Some(1000), 0).contains("/s"), "one reading has no rate");
    // A report in the first seconds, whose time of counting is unknown.
    assert!(shown(Some(1100), 4).contains("25/s"));
    assert!(shown(Some(1100), 10).contains("25/s"), "there is no other report");
    let after = shown(Some(1200), 14);
    assert!(after.contains("10/s") && !after.contains("20/s"), "the first reading does not count: {after}");
    assert!(shown(Some(1500), 24).contains("20/s"), "400 in 20 s");
    assert!(shown(Some(1700), 44).contains("10/s"), "200 since the report before the span");
    assert!(!shown(Some(40), 54).contains("10/s"), "it has started again");
    assert!(shown(Some(60), 64).contains("2/s"));
    assert!(shown(Some(60), 84).contains("2/s") && !shown(Some(60), 85).contains("2/s"));
    assert!(shown(None, 85).contains("0/s"), "nothing was counted for longer than the span");
}

#[test]
fn live_numbers_take_the_place_of_those_between_reports_for_the_tasks_that_have_them() {
    let mut state = State::new(Some("wc".to_owned()));
    state.take(detail(1000), at(0));
    state.take(detail(1100), at(4));
    assert!(text(&screen(&mut state, 4)).contains("25/s"));
    let Data::Topology(of_reports, _) = detail(1100) else { unreachable!("it is a topology") };
    state.take(Data::Topology(of_reports, Some(Box::new(live::tests::live(2, 1100)))), at(6));
    let shown = text(&screen(&mut state, 6));
    assert!(shown.contains("12.5/s") && shown.contains("25 %") && !shown.contains("25/s"), "{shown}");
    assert!(shown.contains("live, 0.4 s old"), "{shown}");
}

#[test]
fn enter_opens_what_is_selected_and_esc_returns_to_it() {
    let mut state = State::new(Some("wc".to_owned()));
    state.take(detail(0), at(0));
    let lines = screen(&mut state, 0);
    assert_eq!(selected(&lines), "lines");
    assert!(
        text(&lines)
            .starts_with("wc is active  3 of 3 tasks alive  1 of 1 workers  up 1m 5s\n! a task\\u{1b}[2J")
    );
    assert_eq!(state.press(Key::Down), Effect::Redraw);
    assert_eq!(selected(&screen(&mut state, 0)), "split");
    state.press(Key::Down);
    assert_eq!(selected(&screen(&mut state, 0)), "split", "it is the last one");
    assert_eq!(state.press(Key::Enter), Effect::Fetch);
    assert_eq!(state.level, Level::Component("wc".to_owned(), "split".to_owned()));
    let lines = screen(&mut state, 0);
    assert_eq!(selected(&lines), "2", "tasks in the order of their numbers: {}", text(&lines));
    assert!(text(&lines).contains(" h:6700 ") && text(&lines).contains(" running "), "{}", text(&lines));
    state.press(Key::Back);
    assert_eq!(selected(&screen(&mut state, 0)), "split");
    assert_eq!(state.press(Key::Back), Effect::Fetch);
    assert_eq!(state.level, Level::Cluster);
    assert!(
        text(&screen(&mut state, 0)).starts_with("waiting for a nimbus"),
        "nothing of the topology stays"
    );
    let cluster = serde_json::json!({
        "version": "1", "nimbuses": 0, "supervisors": 0, "topologies": 0, "slotsTotal": 0, "slotsUsed": 0,
        "slotsFree": 0, "tasksTotal": 0, "executorsTotal": 0, "viewAgeMs": 0
    });
    let cluster: ClusterSummary = serde_json::from_value(cluster).expect("a cluster");
    state.take(Data::Cluster(Box::new((cluster, TopologyList::default()))), at(1));
    assert!(text(&screen(&mut state, 1)).starts_with("! no leader"));
    assert_eq!(state.press(Key::Enter), Effect::Redraw, "there is no row");
    assert_eq!(state.press(Key::Quit), Effect::Quit);
}

#[test]
fn rows_are_sorted_by_any_column_and_the_selected_one_is_followed() {
    let mut state = State::new(Some("wc".to_owned()));
    state.take(detail(0), at(0));
    let order = |state: &mut State| {
        screen(state, 0);
        state.rows.clone()
    };
    assert_eq!(order(&mut state), ["lines", "split"]);
    state.press(Key::Down);
    state.press(Key::Right);
    state.press(Key::Right);
    assert_eq!(order(&mut state), ["split", "lines"], "most tasks first");
    assert_eq!(selected(&screen(&mut state, 0)), "split");
    state.press(Key::Reverse);
    assert_eq!(order(&mut state), ["lines", "split"]);
    assert!(text(&screen(&mut state, 0)).contains("TASKS^"));
    state.press(Key::Left);
    state.press(Key::Left);
    assert!(text(&screen(&mut state, 0)).contains("COMPONENTv"));
    state.press(Key::Left);
    assert!(text(&screen(&mut state, 0)).contains(concat!("LAST ERROR", "v")), "from the first to the last");
}

#[test]
fn screen_is_filled_exactly_at_every_size_and_old_numbers_are_called_old() {
    let mut state = State::new(Some("wc".to_owned()));
    state.take(detail(0), at(0));
    for rows in 1..15 {
        for columns in [1, 20, 200] {
            let lines = view::lines(&mut state, Size { columns, rows }, at(0));
            assert_eq!(lines.len(), rows.max(2), "{rows} rows");
            assert!(lines.iter().all(|line| line.text.chars().count() <= columns));
        }
    }
    assert!(text(&screen(&mut state, 16)).starts_with("! the numbers are 16s old"));
    state.problem = Some("no\u{7} answer".to_owned());
    assert!(text(&screen(&mut state, 0)).starts_with("! the numbers are old: no\\u{7} answer"));
    state.take(detail(0), at(17));
    assert!(!text(&screen(&mut state, 17)).contains("the numbers are"));
}
