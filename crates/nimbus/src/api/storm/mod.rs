//! Storm's UI REST API v1: `docs/storm-api.md` has every path and the deliberate differences.
//!
//! The bodies are made in `stormkeeper_storm_api`; these files read what they are made of: the cluster
//! view, the heartbeats and errors of one topology, and sums of the metric store. `either.rs` has the
//! paths that builds before the prefix of the own API use for their own.

mod absent;
mod answer;
mod cluster;
mod cors;
pub(super) mod either;
mod loaded;
mod params;
mod places;
mod submit;
mod topology;
mod totals;
mod writes;

use axum::{extract::DefaultBodyLimit, http::Method};
use schemars::JsonSchema;

use super::{
    Api,
    describe::{OF_CHANGE, OF_SUBMIT},
};
pub(super) use absent::absent;
pub(super) use answer::StormError;
pub(super) use cors::{allow_origin, is_open, is_storm_path};
pub(super) use params::is_for_own_api;
pub(super) use places::Submits;
use stormkeeper_api_types::{message::Code, routes::OLD_PREFIX};
use stormkeeper_serving::openapi::{Content, Dialect, MakeSchema, Operation, Routes, schema_of};
use stormkeeper_storm_api::{self as storm_api, Failure, schema};
pub(super) use totals::TotalsOfView;

/// Path at which a topology is submitted in parts.
pub(super) const SUBMIT: &str = "/api/v1/topology";

static STORM: Dialect = Dialect {
    name: "Storm",
    description: "Storm's UI REST API v1. A request with a header `x-stormkeeper-…`, except \
                  `x-stormkeeper-request`, is answered as by builds in which the own API had these paths.",
    prefix: OLD_PREFIX,
    id: "storm",
    json: "application/json",
    error: schema_of::<Failure<Code>>,
};

/// Parameters of every read.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only described: unknown parameters are ignored, as by Storm")]
struct ReadQuery {
    /// Name of a function in JavaScript that the answer calls, if `ui.jsonp.enabled` allows that.
    callback: Option<String>,
}

/// Parameters of the pages of a topology.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only described: unknown parameters are ignored, as by Storm")]
struct PageQuery {
    /// Time over which the page counts: seconds, or `:all-time`.
    window: Option<String>,
    /// `1` or `true` to show components and streams of the system.
    sys: Option<String>,
    /// Name of a function in JavaScript that the answer calls, if `ui.jsonp.enabled` allows that.
    callback: Option<String>,
}

/// Parameters that choose supervisors.
#[derive(Debug, JsonSchema)]
#[expect(dead_code, reason = "only described: unknown parameters are ignored, as by Storm")]
struct SupervisorQuery {
    /// Id of a supervisor.
    id: Option<String>,
    /// Host of supervisors.
    host: Option<String>,
    /// Name of a function in JavaScript that the answer calls, if `ui.jsonp.enabled` allows that.
    callback: Option<String>,
}

fn read(path: &str, summary: &'static str, answer: MakeSchema) -> Operation {
    let read = Operation::new(&STORM, Method::GET, path, summary).query::<ReadQuery>();
    read.answers_content(Content::Json(answer))
}

fn page(path: &str, summary: &'static str, answer: MakeSchema) -> Operation {
    read(path, summary, answer).query::<PageQuery>().may_fail(&[Code::UnknownTopology, Code::TreeUnavailable])
}

fn change(path: &str, summary: &'static str) -> Operation {
    let change = Operation::new(&STORM, Method::POST, path, summary).answers::<storm_api::Operation>();
    change.may_fail(&OF_CHANGE)
}

/// Returns the routes, below `/api/v1`, that the own API of earlier builds does not have.
pub(super) fn routes() -> Routes<Api> {
    let submit = Routes::new()
        .serve(
            Operation::new(&STORM, Method::POST, "/topology", "Submits a topology in parts")
                .takes_content(Content::Parts(schema_of::<submit::PartsOfSubmit>))
                .answers::<storm_api::Operation>()
                .may_fail(&OF_SUBMIT),
            submit::submit,
        )
        .with_router(|router| router.layer(DefaultBodyLimit::disable()));
    let supervisor = read("/supervisor", "The supervisors with an id or a host", schema::supervisor);
    Routes::new()
        .serve(
            read("/cluster/configuration", "The configuration of the cluster", schema::configuration),
            cluster::configuration,
        )
        .serve(supervisor.query::<SupervisorQuery>().may_fail(&[Code::UnknownHost]), cluster::supervisor)
        .serve(read("/owner-resources", "Sums of each owner", schema::owners), cluster::owners)
        .serve(
            read("/owner-resources/{owner}", "Sums of an owner, and its topologies", schema::owner),
            cluster::owner,
        )
        .serve(
            read("/history/summary", "Ids of current and past topologies", schema::history)
                .may_fail(&[Code::NoMetricStore]),
            cluster::history,
        )
        .merge(submit)
        .serve(
            page("/topology-workers/{topology}", "The slots of a topology", schema::topology_workers),
            topology::workers,
        )
        .serve(
            page("/topology/{topology}/component/{component}", "A component", schema::component),
            topology::component,
        )
        .serve(page("/topology/{topology}/lag", "Empty: no spout has a lag", schema::lag), topology::lag)
        .serve(
            page("/topology/{topology}/logconfig", "Levels of loggers: none is set", schema::log_config),
            topology::log_config,
        )
        .serve(
            page("/topology/{topology}/visualization", "The graph of a topology", schema::visualization),
            topology::visualization,
        )
        .serve(
            page(
                "/topology/{topology}/visualization-init",
                "The streams of a topology",
                schema::visualization_init,
            ),
            topology::visualization_init,
        )
        .serve(
            change(
                "/topology/{topology}/rebalance/{wait}",
                "Places the tasks of a topology again after a wait",
            )
            .may_take::<storm_api::Rebalance>(),
            writes::rebalance,
        )
        .serve(change("/topology/{topology}/kill/{wait}", "Removes a topology after a wait"), writes::kill)
}
