"""Every read of flink-rest-client against a nimbus, as one JSON object; the test compares the values.

  python3 flink_client.py HOST PORT
  python3 flink_client.py HOST PORT cancel    # cancels all jobs
"""

import json
import sys

import requests
from flink_rest_client import FlinkRestClient
from flink_rest_client.common import RestException


def refused(call):
    """Message of a call that this API does not serve."""
    try:
        return "not refused: %r" % (call(),)
    except RestException as error:
        return str(error)


def status_of_query(client, n_bytes):
    """Status of a query of this length, for metrics that do not exist."""
    names = "sys.Nothing," * (n_bytes // 12)
    return requests.get(client.api_url + "/jobmanager/metrics?get=" + names).status_code


def log_of(client, worker, path):
    """Status and number of bytes of a log, which the client only lists."""
    response = requests.get("%s/taskmanagers/%s/%s" % (client.api_url, worker, path))
    return response.status_code, len(response.content)


def cancel(jobs):
    """Cancels all jobs."""
    cancelled = [jobs.terminate(job_id) for job_id in jobs.job_ids()]
    return {"cancelled": cancelled, "after": jobs.all()}


def vertex_of(jobs, job_id, vertex_id):
    vertex = jobs.get_vertex(job_id, vertex_id)
    subtasks = vertex.subtasks
    numbers = subtasks.subtask_ids()
    return {
        "details": vertex.details(),
        "backpressure": vertex.backpressure(),
        "metric_names": vertex.metric_names(),
        "metrics": vertex.metrics(),
        "subtasktimes": vertex.subtasktimes(),
        "taskmanagers": vertex.taskmanagers(),
        "watermarks": vertex.watermarks(),
        "subtask_ids": numbers,
        "accumulators": subtasks.accumulators(),
        "subtask_metric_names": subtasks.metric_names(),
        "subtask_metrics": subtasks.metrics(),
        "subtasks": [subtasks.get(number) for number in numbers],
        "attempts": [subtasks.get_attempt(number, 0) for number in numbers],
        "attempt_accumulators": [subtasks.get_attempt_accumulators(number) for number in numbers],
    }


def job_of(jobs, job_id):
    return {
        "details": jobs.get(job_id),
        "config": jobs.get_config(job_id),
        "exceptions": jobs.get_exceptions(job_id),
        "execution_result": jobs.get_execution_result(job_id),
        "metrics": jobs.get_metrics(job_id),
        "plan": jobs.get_plan(job_id),
        "accumulators": jobs.get_accumulators(job_id),
        "accumulators_serialized": jobs.get_accumulators(job_id, include_serialized_value=True),
        "checkpointing": jobs.get_checkpointing_configuration(job_id),
        "checkpoints": jobs.get_checkpoints(job_id),
        "checkpoint_ids": jobs.get_checkpoint_ids(job_id),
        "no_checkpoint": refused(lambda: jobs.get_checkpoint_details(job_id, 1)),
        "savepoint": refused(lambda: jobs.create_savepoint(job_id, "/tmp")),
        "stop": refused(lambda: jobs.stop(job_id, "/tmp")),
        "rescale": refused(lambda: jobs.rescale(job_id, 2)),
        "vertices": {vertex_id: vertex_of(jobs, job_id, vertex_id) for vertex_id in jobs.get_vertex_ids(job_id)},
    }


def main():
    client = FlinkRestClient.get(sys.argv[1], int(sys.argv[2]))
    manager, workers, jobs = client.jobmanager, client.taskmanagers, client.jobs
    if sys.argv[3:] == ["cancel"]:
        json.dump(cancel(jobs), sys.stdout)
        return
    answers = {
        "overview": client.overview(),
        "config": client.config(),
        "datasets": client.datasets(),
        "jars": client.jars.all(),
        "delete_cluster": refused(client.delete_cluster),
        "status_of_60000_bytes": status_of_query(client, 60000),
        "status_of_66000_bytes": status_of_query(client, 66000),
        "jobmanager": {
            "config": manager.config(),
            "logs": manager.logs(),
            "no_log": refused(lambda: manager.get_log("nimbus.log")),
            "metric_names": manager.metric_names(),
            "metrics": manager.metrics(),
        },
        "taskmanagers": {
            "all": workers.all(),
            "ids": workers.taskmanager_ids(),
            "metric_names": workers.metric_names(),
            "metrics": workers.metrics(),
            "each": {
                worker: {
                    "details": workers.get(worker),
                    "logs": workers.get_logs(worker),
                    "log": log_of(client, worker, "log")[1],
                    "no_log": log_of(client, worker, "logs/nothing.log")[0],
                    "metrics": workers.get_metrics(worker),
                    "threads": workers.get_thread_dump(worker),
                }
                for worker in workers.taskmanager_ids()
            },
        },
        "jobs": {
            "all": jobs.all(),
            "ids": jobs.job_ids(),
            "overview": jobs.overview(),
            "metric_names": jobs.metric_names(),
            "metrics": jobs.metrics(),
            "each": {job_id: job_of(jobs, job_id) for job_id in jobs.job_ids()},
        },
    }
    json.dump(answers, sys.stdout)


main()
