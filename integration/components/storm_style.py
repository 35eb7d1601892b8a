"""A small multilang library in the style of Storm's own: one message at a time, replies to every emit.

It reads line by line and waits for the task ids of each emit, so tuples that arrive meanwhile are
kept. It knows nothing of dialects and other extensions.
"""

import json
import os
import sys

tuples = []
replies = []


def read():
    lines = []
    while True:
        line = sys.stdin.readline()
        if not line:
            sys.exit(0)
        if line.strip() == "end":
            return json.loads("".join(lines))
        lines.append(line)


def send(message):
    sys.stdout.write(json.dumps(message) + "\nend\n")
    sys.stdout.flush()


def read_task_ids():
    if replies:
        return replies.pop(0)
    while True:
        message = read()
        if isinstance(message, list):
            return message
        tuples.append(message)


def read_tuple():
    if tuples:
        return tuples.pop(0)
    while True:
        message = read()
        if not isinstance(message, list):
            return message
        replies.append(message)


def emit(values, anchor):
    send({"command": "emit", "anchors": [anchor["id"]], "tuple": values})
    return read_task_ids()


def run(process):
    setup = read()
    pid = os.getpid()
    send({"pid": pid})
    open(os.path.join(setup["pidDir"], str(pid)), "w").close()
    while True:
        tup = read_tuple()
        if tup["task"] == -1 and tup["stream"] == "__heartbeat":
            send({"command": "sync"})
            continue
        try:
            process(tup, setup["conf"])
            send({"command": "ack", "id": tup["id"]})
        except Exception as error:
            send({"command": "error", "msg": repr(error)})
            send({"command": "fail", "id": tup["id"]})
