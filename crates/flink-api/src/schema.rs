//! Schemas of the bodies, for the OpenAPI document.
//!
//! The bodies are functions from plain values to JSON, so their schemas are inferred from what these
//! functions return for examples: a running topology, one that has ended, and so on. A field that not
//! all examples have is optional, and so is every field of an object whose names depend on the topology.

use std::{borrow::Cow, collections::BTreeMap};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use crate::{
    FlinkId, Job, JobState, PlanInput, RecordCounts, Subtask, TaskState, Vertex, WorkerAddress, backpressure,
    body::{self, ClusterCounts, ExceptionEntry, WorkerDetails},
};

macro_rules! bodies {
    ($($function:ident, $name:literal, $examples:expr;)*) => {
        $(
            #[doc = concat!("Returns the schema of `", $name, "`.")]
            pub fn $function(generator: &mut SchemaGenerator) -> Schema {
                struct Body;
                impl JsonSchema for Body {
                    fn schema_name() -> Cow<'static, str> {
                        $name.into()
                    }

                    fn json_schema(_: &mut SchemaGenerator) -> Schema {
                        let examples: Vec<Value> = $examples;
                        inferred(&examples)
                    }
                }
                generator.subschema_for::<Body>()
            }
        )*
    };
}

bodies! {
    overview, "FlinkOverview", vec![body::overview(ClusterCounts::default(), [])];
    config, "FlinkConfig", vec![body::config(true)];
    datasets, "FlinkDatasets", vec![body::datasets()];
    jars, "FlinkJars", vec![body::jars("nimbus:8080", false)];
    applications, "FlinkApplications", vec![body::applications(&jobs())];
    application, "FlinkApplication", jobs().iter().map(body::application).collect();
    job_manager_config, "FlinkJobManagerConfig",
        vec![body::job_manager_configuration(&[("key", String::new())])];
    environment, "FlinkEnvironment", vec![body::environment()];
    logs, "FlinkLogs", vec![body::logs([("worker.log".to_owned(), 1, 2)])];
    thread_dump, "FlinkThreadDump", vec![body::thread_dump()];
    task_managers, "FlinkTaskManagers", vec![body::task_managers(&[worker()])];
    task_manager, "FlinkTaskManager", vec![body::task_manager(&worker())];
    jobs_in_short, "FlinkJobs", vec![body::job_list(&[(id(0), JobState::Running)])];
    job_overview, "FlinkJobOverview", vec![body::job_overview(&jobs())];
    job, "FlinkJob", jobs().iter().map(body::job_details).collect();
    status, "FlinkJobStatus", jobs().iter().map(body::status).collect();
    plan, "FlinkPlan", jobs().iter().map(body::plan).collect();
    job_config, "FlinkJobConfig",
        ["a", "b"].map(|key| body::job_config(&running(), &[(key.to_owned(), String::new())])).into();
    exceptions, "FlinkExceptions",
        vec![body::exceptions(vec![exception()], 1, false), body::exceptions(Vec::new(), 1, false)];
    job_accumulators, "FlinkJobAccumulators", vec![body::job_accumulators()];
    execution_result, "FlinkExecutionResult", jobs().iter().map(body::execution_result).collect();
    checkpoints, "FlinkCheckpoints", vec![body::checkpoints()];
    checkpoint_config, "FlinkCheckpointConfig", vec![body::checkpoint_config()];
    vertex, "FlinkVertex", of_vertices(body::vertex_details);
    vertex_accumulators, "FlinkVertexAccumulators", vec![body::vertex_accumulators(id(1))];
    vertex_backpressure, "FlinkBackpressure",
        of_vertices(backpressure::body).into_iter().chain([backpressure::unknown(&running())]).collect();
    subtask_times, "FlinkSubtaskTimes", of_vertices(body::subtask_times);
    vertex_task_managers, "FlinkVertexTaskManagers", of_vertices(body::task_managers_of_vertex);
    watermarks, "FlinkWatermarks", vec![json!([])];
    subtask_accumulators, "FlinkSubtaskAccumulators",
        of_vertices(|_, vertex| body::subtask_accumulators(vertex));
    subtask, "FlinkSubtask", of_vertices(|job, vertex| body::subtask(job, 0, &vertex.subtasks[0]));
    attempt_accumulators, "FlinkAttemptAccumulators", vec![body::attempt_accumulators(id(1), 0)];
}

/// Returns the schema of a body that never is.
pub fn never(_: &mut SchemaGenerator) -> Schema {
    json_schema!(false)
}

/// Returns the schema of the answer to the end of a job: an object without fields.
pub fn cancelled(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "maxProperties": 0 })
}

/// Returns the schema of metrics: all names, or the values of some.
pub fn values(_: &mut SchemaGenerator) -> Schema {
    let string = json!({ "type": "string" });
    json_schema!({
        "type": "array",
        "items": { "type": "object", "properties": { "id": string, "value": string }, "required": ["id"] },
    })
}

/// Returns the schema of aggregates of metrics: all names, or the aggregates of some.
pub fn aggregates(_: &mut SchemaGenerator) -> Schema {
    let number = json!({ "type": "number" });
    json_schema!({
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "id": { "type": "string" },
                "min": number, "max": number, "avg": number, "sum": number, "skew": number,
            },
            "required": ["id"],
        },
    })
}

/// Body of an error: Flink's field, and those of the own API beside it.
struct ErrorBody;

impl JsonSchema for ErrorBody {
    fn schema_name() -> Cow<'static, str> {
        "FlinkError".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let string = json!({ "type": "string" });
        json_schema!({
            "type": "object",
            "properties": {
                "errors": { "type": "array", "items": string },
                "code": { "type": "string", "description": "Kind of the error; stable." },
                "message": string,
                "hint": { "type": "string", "description": "Advice for the user." },
            },
            "required": ["errors", "code", "message"],
        })
    }
}

/// Returns the schema of errors.
pub fn error(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<ErrorBody>()
}

fn id(n: u8) -> FlinkId {
    format!("{n:032x}").parse().expect("32 digits")
}

fn worker_address() -> WorkerAddress {
    WorkerAddress { host: "host".to_owned(), port: 6700 }
}

fn worker() -> WorkerDetails {
    let (cores, memory, memory_used) = (4.0, 1 << 30, 1 << 20);
    WorkerDetails { address: worker_address(), job: id(0), tasks: 1, now_ms: 1, cores, memory, memory_used }
}

fn exception() -> ExceptionEntry {
    let text = || "text".to_owned();
    ExceptionEntry { message: text(), stack: text(), at_ms: 1, task: text(), worker: text() }
}

fn running() -> Job {
    let subtask = |worker: Option<WorkerAddress>| Subtask {
        task: 1,
        state: if worker.is_some() { TaskState::Running } else { TaskState::Scheduled },
        start_ms: worker.as_ref().map(|_| 1),
        worker,
        records: RecordCounts { read: Some(1), written: Some(1) },
        busy: Some(0.5),
        queue: Some(0.5),
    };
    let vertex = |n: u8, inputs: Vec<PlanInput>| Vertex {
        id: id(n),
        name: "component".to_owned(),
        inputs,
        subtasks: vec![subtask(Some(worker_address())), subtask(None)],
    };
    let input = PlanInput { from: id(1), strategy: "SHUFFLE".to_owned() };
    let vertices = vec![vertex(1, Vec::new()), vertex(2, vec![input])];
    let state = JobState::Running;
    Job { id: id(0), name: "topology".to_owned(), state, start_ms: 1, end_ms: None, now_ms: 2, vertices }
}

fn jobs() -> [Job; 2] {
    [running(), Job { state: JobState::Canceled, end_ms: Some(2), ..running() }]
}

fn of_vertices(body: impl Fn(&Job, &Vertex) -> Value) -> Vec<Value> {
    jobs()
        .iter()
        .flat_map(|job| job.vertices.iter().map(|vertex| body(job, vertex)).collect::<Vec<_>>())
        .collect()
}

/// Returns the schema that all examples fit.
fn inferred(examples: &[Value]) -> Schema {
    shape(&examples.iter().collect::<Vec<_>>()).try_into().expect("an object is a schema")
}

/// Returns what is common to values at one place.
fn shape(values: &[&Value]) -> Value {
    let mut types: Vec<&str> = values.iter().map(|value| type_of(value)).collect();
    types.sort_unstable();
    types.dedup();
    if types.contains(&"number") {
        types.retain(|of| *of != "integer");
    }
    let mut schema = Map::new();
    schema.insert("type".to_owned(), if let [one] = types[..] { one.into() } else { types.clone().into() });
    let objects: Vec<&Map<String, Value>> = values.iter().filter_map(|value| value.as_object()).collect();
    if !objects.is_empty() {
        let mut fields: BTreeMap<&String, Vec<&Value>> = BTreeMap::new();
        for (name, value) in objects.iter().copied().flatten() {
            fields.entry(name).or_default().push(value);
        }
        let required = fields.iter().filter(|(_, values)| values.len() == objects.len());
        let required: Vec<&str> = required.map(|(name, _)| name.as_str()).collect();
        let properties: Map<String, Value> =
            fields.iter().map(|(name, values)| ((*name).clone(), shape(values))).collect();
        schema.insert("properties".to_owned(), properties.into());
        schema.insert("required".to_owned(), required.into());
    }
    let items: Vec<&Value> = values.iter().filter_map(|value| value.as_array()).flatten().collect();
    if !items.is_empty() {
        schema.insert("items".to_owned(), shape(&items));
    }
    schema.into()
}

fn type_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_that_an_example_lacks_is_optional_and_types_are_joined() {
        let schema = inferred(&[json!({"a": 1, "b": [null, "x"]}), json!({"a": 1.5, "c": true})]);
        let expected = json!({
            "type": "object",
            "properties": {
                "a": {"type": "number"},
                "b": {"type": "array", "items": {"type": ["null", "string"]}},
                "c": {"type": "boolean"},
            },
            "required": ["a"],
        });
        assert_eq!(schema.to_value(), expected);
    }

    #[test]
    fn settings_of_one_topology_are_not_required_of_another() {
        let mut generator = SchemaGenerator::default();
        job_config(&mut generator);
        let schema = generator.definitions()["FlinkJobConfig"].clone();
        let of = &schema["properties"]["execution-config"]["properties"]["user-config"];
        assert_eq!(of["required"], json!([]), "{schema}");
    }
}
