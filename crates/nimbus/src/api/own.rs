//! Routes of the own API, with their descriptions.

use axum::{http::StatusCode, middleware::from_fn};

use super::{
    Api, blobs, credentials,
    describe::{OF_CHANGE, OF_METRICS, OF_SUBMIT, OF_UPDATE, delete, get, post, put},
    ingest, live, logs, metrics, reads, recovery, session, settings, tree, writes,
};
use stormkeeper_api_types::message::{
    Accepted, ClusterSummary, Code, ConfigurationList, CopyRequest, CredentialList, CredentialsRequest,
    DrainRequest, EventList, HostAccepted, KillRequest, LogLevelRequest, LogLevels, MetricControlRequest,
    NimbusList, OwnerList, RebalanceRequest, Recovered, RecoveryRequest, RecoveryStatus, SampleList,
    SampleRequest, SignInRequest, SubmitRequest, SupervisorList, TopologyDetail, TopologyErrors,
    TopologyList, TopologySettings, TreeNode, UpdateRequest, WebSession,
    live::TopologyLive,
    logs::{LogChunk, TopologyLogLines, TopologyLogs},
};
use stormkeeper_metrics::protocol::{HistoryQuery, LogQuery, MSGPACK, MetaQuery, PointsQuery, TrackQuery};
use stormkeeper_serving::{
    openapi::{Content, Operation, Routes},
    query::refuse_parameters,
};

/// Bodies of MessagePack, between the builds of one project.
const MESSAGES: Content = Content::Other(&[MSGPACK]);

/// Bytes of a blob or of a file.
const BLOB: Content = Content::Other(&["application/octet-stream"]);

/// Returns the routes below the prefix of the own API.
pub(super) fn routes() -> Routes<Api> {
    let change = |path, summary| {
        post(path, summary).may_take::<writes::NoOptions>().answers::<Accepted>().may_fail(&OF_CHANGE)
    };
    Routes::new()
        .serve(
            get("/cluster/summary", "The cluster in numbers, and its leader").answers::<ClusterSummary>(),
            reads::cluster,
        )
        .serve(get("/nimbus/summary", "The nimbuses").answers::<NimbusList>(), reads::nimbuses)
        .serve(get("/supervisor/summary", "The supervisors").answers::<SupervisorList>(), reads::supervisors)
        .serve(
            get("/owner/summary", "The owners of topologies, what they have and their quotas")
                .answers::<OwnerList>(),
            reads::owners,
        )
        .serve(
            get("/topology/summary", "All topologies in short").answers::<TopologyList>(),
            reads::topologies,
        )
        .serve(
            of_topology(get("/topology/{topology}", "A topology with its workers, components and tasks"))
                .answers::<TopologyDetail>(),
            reads::topology,
        )
        .serve(change("/topology/{topology}/activate", "Lets the spouts of a topology run"), writes::activate)
        .serve(
            change("/topology/{topology}/deactivate", "Stops the spouts of a topology"),
            writes::deactivate,
        )
        .serve(
            of_topology(get("/topology/{topology}/metrics", "The metric switches of a topology"))
                .answers::<MetricControlRequest>(),
            metrics::control,
        )
        .serve(
            change("/topology/{topology}/metrics", "Replaces the metric switches of a topology")
                .may_take::<MetricControlRequest>(),
            writes::metrics,
        )
        .serve(
            of_topology(get(
                "/topology/{topology}/log-levels",
                "The log levels that were set for components",
            ))
            .answers::<LogLevels>(),
            reads::log_levels,
        )
        .serve(
            post("/topology/{topology}/log-levels", "Sets or ends the log level of components")
                .may_take::<LogLevelRequest>()
                .answers::<Accepted>()
                .may_fail(&OF_CHANGE),
            writes::log_level,
        )
        .serve(
            of_topology(get("/topology/{topology}/credentials", "Names of the credentials of a topology"))
                .answers::<CredentialList>(),
            credentials::list,
        )
        .serve(
            post("/topology/{topology}/credentials", "Changes credentials of a topology")
                .takes::<CredentialsRequest>()
                .answers::<Accepted>()
                .may_fail(&OF_CHANGE),
            credentials::change,
        )
        .merge(routes_of_pages().merge(routes_of_samples()))
        .with_router(|router| router.route_layer(from_fn(refuse_parameters)))
        .merge(routes_with_parameters())
}

/// Describes a read of a topology.
fn of_topology(operation: Operation) -> Operation {
    operation.may_fail(&[Code::UnknownTopology, Code::TreeUnavailable])
}

/// Returns the routes of samples of tuples; the tuples are read by the routes of the logs.
fn routes_of_samples() -> Routes<Api> {
    Routes::new()
        .serve(
            of_topology(get("/topology/{topology}/samples", "The samples of tuples that have not ended"))
                .answers::<SampleList>(),
            reads::samples,
        )
        .serve(
            post("/topology/{topology}/samples", "Begins or ends a sample of the tuples of a component")
                .takes::<SampleRequest>()
                .answers::<Accepted>()
                .may_fail(&OF_CHANGE),
            writes::sample,
        )
}

/// Returns the routes that refuse parameters themselves.
fn routes_with_parameters() -> Routes<Api> {
    routes_of_tree().merge(routes_of_logs()).merge(routes_apart_from_storm())
}

/// Returns the routes of signing in, and of settings with their sources.
fn routes_of_pages() -> Routes<Api> {
    routes_of_session()
        .serve(
            get("/configuration", "The keys of this nimbus, with their sources")
                .answers::<ConfigurationList>(),
            settings::configuration,
        )
        .serve(
            of_topology(get(
                "/topology/{topology}/settings",
                "The settings of a topology, with their sources",
            ))
            .answers::<TopologySettings>()
            .may_fail(&[Code::BlobMissing]),
            settings::of_topology,
        )
}

/// Returns the routes of looks into the tree.
fn routes_of_tree() -> Routes<Api> {
    Routes::new().serve(
        get(tree::ROUTE, "A znode of the tree, explained, with the names of its children")
            .query::<tree::TreeQuery>()
            .answers::<TreeNode>()
            .may_fail(&[Code::UnknownZnode, Code::UnreadableRecord, Code::TreeUnavailable]),
        tree::znode,
    )
}

/// Returns the routes of signing in.
fn routes_of_session() -> Routes<Api> {
    Routes::new()
        .serve(
            get(session::ROUTE, "Who the sender is, and whether a proof is required").answers::<WebSession>(),
            session::status,
        )
        .serve(
            post(session::ROUTE, "Signs a browser in: sets the token as a cookie")
                .takes::<SignInRequest>()
                .answers::<WebSession>(),
            session::sign_in,
        )
        .serve(
            delete(session::ROUTE, "Signs a browser out: removes the cookie").answers::<WebSession>(),
            session::sign_out,
        )
}

/// Returns the routes of the logs and of the live numbers of a topology.
fn routes_of_logs() -> Routes<Api> {
    Routes::new()
        .serve(
            of_topology(get("/topology/{topology}/logs", "The log files of the workers of a topology"))
                .query::<logs::ListQuery>()
                .answers::<TopologyLogs>(),
            logs::list,
        )
        .serve(
            of_topology(get("/topology/{topology}/logs/search", "Lines of the logs of a topology"))
                .query::<logs::SearchQuery>()
                .answers::<TopologyLogLines>()
                .may_fail(&[Code::UnknownHost]),
            logs::search,
        )
        .serve(
            of_topology(get("/topology/{topology}/logs/{supervisor}/{port}/{file}", "Part of a log file"))
                .query::<logs::ChunkQuery>()
                .answers::<LogChunk>()
                .may_fail(&[Code::UnknownHost, Code::UnknownLog, Code::AgentUnavailable]),
            logs::chunk,
        )
        .serve(
            of_topology(get("/topology/{topology}/logs/{supervisor}/{port}/{file}/download", "A log file"))
                .query::<logs::FileQuery>()
                .answers_content(BLOB)
                .in_ranges()
                .may_fail(&[Code::UnknownHost, Code::UnknownLog, Code::AgentUnavailable]),
            logs::download,
        )
        .merge(routes_of_live_numbers())
}

/// Returns the routes of live numbers.
fn routes_of_live_numbers() -> Routes<Api> {
    Routes::new()
        .serve(
            of_topology(get("/topology/{topology}/live", "Live numbers of a topology, a second old"))
                .query::<live::LiveQuery>()
                .answers::<TopologyLive>()
                .may_fail(&[Code::NotReady]),
            live::once,
        )
        .serve(
            of_topology(get(
                "/topology/{topology}/live/events",
                "Live numbers of a topology each second, as server-sent events; ends after 5 minutes",
            ))
            .answers_content(Content::Other(&[live::EVENTS]))
            .may_fail(&[Code::NotReady]),
            live::events,
        )
}

/// Returns the routes at paths that Storm's API does not have.
pub(super) fn routes_apart_from_storm() -> Routes<Api> {
    Routes::new()
        .serve(
            post("/topology/submit", "Runs the topology of a blob that was stored before")
                .takes::<SubmitRequest>()
                .answers::<Accepted>()
                .may_fail(&OF_SUBMIT),
            writes::submit,
        )
        .serve(
            get("/topology/{topology}/errors", "The recorded errors of the tasks of a topology")
                .answers::<TopologyErrors>()
                .may_fail(&[Code::UnknownTopology, Code::TreeUnavailable]),
            reads::errors,
        )
        .serve(
            post("/topology/{topology}/rebalance", "Places the tasks of a topology again after a wait")
                .may_take::<RebalanceRequest>()
                .answers::<Accepted>()
                .may_fail(&OF_CHANGE),
            writes::rebalance,
        )
        .serve(
            post("/topology/{topology}/update", "Runs another package in a topology, worker by worker")
                .takes::<UpdateRequest>()
                .answers::<Accepted>()
                .may_fail(&OF_UPDATE),
            writes::update,
        )
        .serve(
            post("/topology/{topology}/kill", "Removes a topology after a wait")
                .may_take::<KillRequest>()
                .answers::<Accepted>()
                .may_fail(&OF_CHANGE),
            writes::kill,
        )
        .merge(routes_of_hosts())
        .with_router(|router| router.route_layer(from_fn(refuse_parameters)))
        .serve(
            get("/cluster/events", "Elections, changes and moves with their reasons, newest first")
                .query::<reads::EventQuery>()
                .answers::<EventList>()
                .may_fail(&[Code::UnknownTopology]),
            reads::events,
        )
        .merge(routes_of_daemons())
        .merge(metrics::routes())
}

fn routes_of_hosts() -> Routes<Api> {
    Routes::new()
        .serve(
            post("/host/{host}/drain", "Moves the workers of a host to other hosts")
                .may_take::<DrainRequest>()
                .answers::<HostAccepted>()
                .may_fail(&[Code::UnknownHost, Code::Conflict]),
            writes::drain,
        )
        .serve(
            post("/host/{host}/undrain", "Lets a host have workers again")
                .may_take::<writes::NoOptions>()
                .answers::<HostAccepted>()
                .may_fail(&[Code::UnknownHost, Code::Conflict]),
            writes::undrain,
        )
        .serve(
            get(recovery::ROUTE, "The copy of a tree that ZooKeeper lost").answers::<RecoveryStatus>(),
            recovery::status,
        )
        .serve(
            post(recovery::ROUTE, "Brings back the tree that ZooKeeper lost")
                .takes::<RecoveryRequest>()
                .answers::<Recovered>()
                .may_fail(&[Code::NotRecoverable, Code::Conflict]),
            recovery::recover,
        )
}

/// Routes that daemons and commands use among themselves.
fn routes_of_daemons() -> Routes<Api> {
    let sync = |path, summary| get(path, summary).answers_content(MESSAGES).may_fail(&OF_METRICS);
    let message = |path, summary| {
        post(path, summary).takes_content(MESSAGES).answers_content(MESSAGES).may_fail(&OF_METRICS)
    };
    Routes::new()
        .serve(
            message("/metrics/register", "Registers metrics of a topology, on the leader"),
            ingest::register,
        )
        .serve(message("/metrics/ingest", "Takes values of metrics, on the leader"), ingest::ingest)
        .serve(
            sync("/metrics/sync/log", "Entries of the metric log")
                .query::<LogQuery>()
                .may_fail(&[Code::NoLeader, Code::Conflict]),
            ingest::log,
        )
        .serve(
            get("/metrics/sync/checkpoint", "Copy of the metric store, as a tar file")
                .answers_content(Content::Other(&["application/x-tar"]))
                .may_fail(&OF_METRICS),
            ingest::checkpoint,
        )
        .serve(sync("/metrics/sync/metas", "Names of metrics").query::<MetaQuery>(), ingest::metas)
        .serve(sync("/metrics/sync/points", "Points of metrics").query::<PointsQuery>(), ingest::points)
        .serve(sync("/metrics/sync/track", "Workers in which tasks ran").query::<TrackQuery>(), ingest::track)
        .serve(
            sync("/metrics/sync/history", "Topologies of the history").query::<HistoryQuery>(),
            ingest::history,
        )
        .serve(
            get("/blobs/{key}", "Bytes of a blob").answers_content(BLOB).may_fail(&[Code::BlobMissing]),
            blobs::get_blob,
        )
        .serve(
            put("/blobs/{key}", "Stores a blob")
                .takes_content(BLOB)
                .succeeds_with(StatusCode::CREATED)
                .may_fail(&[Code::BlobMismatch, Code::InsufficientStorage, Code::Conflict]),
            blobs::put_blob,
        )
        .serve(
            post("/blobs/{key}/copy", "Fetches a blob from another nimbus, for the leader")
                .takes::<CopyRequest>()
                .may_fail(&[
                    Code::BlobMissing,
                    Code::BlobMismatch,
                    Code::InsufficientStorage,
                    Code::Conflict,
                ]),
            blobs::copy_blob,
        )
}
