//! Backpressure of a vertex.
//!
//! A task cannot emit when the queue of a receiving task is full. So the backpressure of a vertex
//! is the fill of the fullest queue among the tasks of the components that receive from it.

use serde_json::{Value, json};

use crate::{FlinkId, Job, Vertex};

/// Greatest ratio of the level `ok`, as in Flink.
const OK_MAX: f64 = 0.10;

/// Greatest ratio of the level `low`, as in Flink.
const LOW_MAX: f64 = 0.50;

fn level(ratio: f64) -> &'static str {
    match ratio {
        _ if ratio <= OK_MAX => "ok",
        _ if ratio <= LOW_MAX => "low",
        _ => "high",
    }
}

/// Returns the fill of the fullest queue that receives from a vertex.
fn ratio(job: &Job, vertex: FlinkId) -> f64 {
    let receives = |other: &&Vertex| other.inputs.iter().any(|input| input.from == vertex);
    let queues = job.vertices.iter().filter(receives).flat_map(|other| &other.subtasks);
    queues.filter_map(|subtask| subtask.queue).fold(0.0, f64::max).clamp(0.0, 1.0)
}

/// Returns the body of `/jobs/:jobid/vertices/:vertexid/backpressure`.
pub fn body(job: &Job, vertex: &Vertex) -> Value {
    let ratio = ratio(job, vertex.id);
    let level = level(ratio);
    let subtask = |(n, subtask): (usize, &crate::Subtask)| {
        let busy = subtask.busy.unwrap_or_default().clamp(0.0, 1.0 - ratio);
        json!({
            "subtask": n,
            "backpressureLevel": level,
            "ratio": ratio,
            "idleRatio": (1.0 - ratio - busy).max(0.0),
            "busyRatio": busy,
            "backpressure-level": level,
        })
    };
    json!({
        "status": "ok",
        "backpressureLevel": level,
        "end-timestamp": job.now_ms,
        "subtasks": vertex.subtasks.iter().enumerate().map(subtask).collect::<Vec<_>>(),
        "backpressure-level": level,
    })
}

/// Returns the body for a vertex of which nobody knows what receives from it: Flink's word for an answer
/// without content.
pub fn unknown(job: &Job) -> Value {
    json!({
        "status": "deprecated",
        "backpressureLevel": "ok",
        "end-timestamp": job.now_ms,
        "subtasks": [],
        "backpressure-level": "ok",
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::job::tests::{id, job};

    #[test]
    fn vertex_has_the_backpressure_of_the_fullest_queue_behind_it() {
        let mut job = job();
        let of = |job: &Job, name: &str| body(job, job.vertex(id(name)).expect("known"));
        assert_eq!(of(&job, "a")["backpressureLevel"], json!("ok"));
        job.vertices[1].subtasks[1].queue = Some(0.3);
        assert_eq!(of(&job, "a")["backpressure-level"], json!("low"));
        job.vertices[1].subtasks[0].queue = Some(0.9);
        let spout = of(&job, "a");
        assert_eq!(
            (&spout["backpressureLevel"], &spout["subtasks"][0]["ratio"]),
            (&json!("high"), &json!(0.9))
        );
        let busy = spout["subtasks"][0]["busyRatio"].as_f64().expect("a number");
        assert!((busy - 0.1).abs() < 1e-9, "the three ratios add up to one: {spout}");
        let bolt = of(&job, "b");
        assert_eq!(
            (&bolt["backpressureLevel"], &bolt["subtasks"][1]["busyRatio"]),
            (&json!("ok"), &json!(0.25))
        );
        assert_eq!(bolt["subtasks"][1]["idleRatio"], json!(0.75));
    }
}
