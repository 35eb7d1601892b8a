"""Spouts and bolts in Python, without anything to install.

A stormkeeper worker adds this file to the PYTHONPATH of every shell component, so
`import stormkeeper` works there. The module speaks Storm's multilang protocol over
stdin and stdout, and needs only the standard library.

    from stormkeeper import BasicBolt

    class Split(BasicBolt):
        def process(self, tup):
            for word in tup.values[0].split():
                self.emit([word])

    if __name__ == "__main__":
        Split().run()

Guarantees and rules:

* stdin and stdout belong to the protocol. In a component, importing this module
  redirects them: the output of `print`, of libraries and of subprocesses goes to
  stderr, which the worker logs. Import it before modules that print when they are
  imported. Elsewhere, as in a test, `run` redirects them.
* Messages are sent in the order in which they were produced. They are buffered
  and written together, at the latest before this process waits for input.
* User metrics are aggregated here and sent together, at most once a second, when a
  spout is deactivated, and at the end: `stormkeeper.counter("lines").add(1)`. A
  process that is killed loses the updates since the last send.
* An exception that a component's method does not catch is reported as a task error with
  its traceback, and the process exits with status 1. The worker starts it again.
* When the worker closes the input, the process exits with status 0.
"""

import contextlib
import json
import os
import sys
import time
import traceback
from collections import deque

__all__ = [
    "BasicBolt",
    "Bolt",
    "ProtocolError",
    "Spout",
    "Tuple",
    "counter",
    "gauge",
    "histogram",
    "is_heartbeat",
    "is_tick",
    "meter",
    "timer",
]

_DELIMITER = b"\nend\n"
_READ_BYTES = 256 * 1024
# Output that waits longer or grows larger than this is written although input is pending:
# a slow bolt must show progress, and buffered output must not fill memory.
_FLUSH_SECONDS = 0.02
_FLUSH_MESSAGES = 1024

# Metrics are sent at most this often, or when one metric has this many unsent updates.
_METRIC_SECONDS = 1.0
_METRIC_UPDATES = 1000

_LEVELS = {"trace": 0, "debug": 1, "info": 2, "warn": 3, "warning": 3, "error": 4}

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode


class ProtocolError(Exception):
    """The parent sent something that the multilang protocol does not allow."""


class _Metrics:
    """The metrics of this process and their unsent updates."""

    def __init__(self):
        self._known = {}
        self._changed = {}
        self._last_send = time.monotonic()
        # The function that sends a message; None until the component runs. Earlier updates wait.
        self._send = None

    def of(self, kind, name):
        """Returns the metric of this kind and name, the same object each time."""
        if not isinstance(name, str) or not name:
            raise TypeError("the name of a metric must be a non-empty string, not %r" % (name,))
        found = self._known.get((kind, name))
        if found is None:
            found = self._known[kind, name] = kind(self, name)
        return found

    def changed(self, metric, is_urgent):
        """Records that `metric` has unsent updates; sends at once if `is_urgent`."""
        self._changed[metric] = None
        if is_urgent and self._send is not None:
            self.send()

    def begin(self, send):
        """Sets the function that sends messages."""
        self._send = send

    def send_if_due(self):
        """Sends all updates if the last send was long enough ago."""
        if self._changed and time.monotonic() - self._last_send >= _METRIC_SECONDS:
            self.send()

    def send(self):
        """Sends all unsent updates."""
        for metric in self._changed:
            params = _encode({metric.kind: metric._take()})
            self._send('{"command":"metrics","name":%s,"params":%s}' % (_encode(metric.name), params))
        self._changed.clear()
        self._last_send = time.monotonic()


class _Metric:
    """A metric of one kind and name."""

    kind = None
    __slots__ = ("name", "_metrics", "_waiting", "_updates")

    def __init__(self, metrics, name):
        self.name = name
        self._metrics = metrics
        self._waiting = self._empty()
        self._updates = 0

    def _empty(self):
        return 0

    def _take(self):
        waiting, self._waiting, self._updates = self._waiting, self._empty(), 0
        return waiting

    def _changed(self):
        self._updates += 1
        if self._updates == 1 or self._updates >= _METRIC_UPDATES:
            self._metrics.changed(self, self._updates >= _METRIC_UPDATES)


def _whole(n):
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError("a count must be an integer of 0 or more, not %r" % (n,))
    return n


def _finite(value):
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("a value must be a finite number, not %r" % (value,))
    return value


class _Counter(_Metric):
    """Number of events."""

    kind = "counter"
    __slots__ = ()

    def add(self, n=1):
        """Adds `n` to the count."""
        self._waiting += _whole(n)
        self._changed()


class _Meter(_Metric):
    """Rate of events per second."""

    kind = "meter"
    __slots__ = ()

    def mark(self, n=1):
        """Records `n` events."""
        self._waiting += _whole(n)
        self._changed()


class _Gauge(_Metric):
    """Current value of a quantity."""

    kind = "gauge"
    __slots__ = ()

    def set(self, value):
        """Sets the current value."""
        self._waiting = _finite(value)
        # Only the last value is sent, so many updates are no reason to send early.
        self._updates = 0
        self._changed()


class _Histogram(_Metric):
    """Distribution of values."""

    kind = "histogram"
    __slots__ = ()

    def _empty(self):
        return []

    def update(self, value):
        """Adds one value."""
        self._waiting.append(_finite(value))
        self._changed()


class _Timer(_Histogram):
    """Distribution of times, and their rate."""

    kind = "timer"
    __slots__ = ()

    def update(self, seconds):
        """Adds one time in seconds."""
        super().update(_finite(seconds) * 1e6)

    @contextlib.contextmanager
    def time(self):
        """Measures a block: `with timer("lookup").time(): …`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.update(time.perf_counter() - began)


_metrics = _Metrics()


def counter(name):
    """Returns the counter `name` of this task: `counter("lines").add(1)`."""
    return _metrics.of(_Counter, name)


def gauge(name):
    """Returns the gauge `name` of this task: `gauge("open_files").set(7)`."""
    return _metrics.of(_Gauge, name)


def histogram(name):
    """Returns the histogram `name` of this task: `histogram("bytes").update(120)`."""
    return _metrics.of(_Histogram, name)


def meter(name):
    """Returns the meter `name` of this task: `meter("requests").mark()`."""
    return _metrics.of(_Meter, name)


def timer(name):
    """Returns the timer `name` of this task: `with timer("lookup").time(): …`."""
    return _metrics.of(_Timer, name)


class _EndOfInput(Exception):
    """The parent closed our stdin."""


class Tuple:
    """A tuple that a bolt received.

    `values` is the list of values; `component`, `stream` and `task` identify the
    source; `id` is the id that ack, fail and anchors use.
    """

    __slots__ = ("id", "component", "stream", "task", "values")

    def __init__(self, id, component, stream, task, values):
        self.id = id
        self.component = component
        self.stream = stream
        self.task = task
        self.values = values

    def __repr__(self):
        return "Tuple(id=%r, component=%r, stream=%r, task=%r, values=%r)" % (
            self.id,
            self.component,
            self.stream,
            self.task,
            self.values,
        )


def is_tick(tup):
    """Returns whether `tup` is a tick tuple (`topology.tick.tuple.freq.secs`)."""
    return tup.stream == "__tick" and tup.component == "__system"


def is_heartbeat(tup):
    """Returns whether `tup` is a heartbeat request; `Bolt` replies to heartbeats itself."""
    return tup.stream == "__heartbeat" and tup.task == -1


class _Channel:
    """JSON messages over two file descriptors, read and written in large pieces."""

    def __init__(self, read_fd, write_fd):
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._input = bytearray()
        self._messages = deque()
        self._output = []
        self._last_flush = time.monotonic()

    def receive(self):
        """Returns the next message; writes pending output before it waits."""
        if not self._messages:
            self.flush()
            self._messages.extend(self._read_some())
        return self._messages.popleft()

    def receive_task_ids(self):
        """Returns the reply to an emit; tuples that arrive before the reply stay queued."""
        self.flush()
        while True:
            messages = self._read_some()
            for position, message in enumerate(messages):
                if isinstance(message, list):
                    del messages[position]
                    self._messages.extend(messages)
                    return message
            self._messages.extend(messages)

    def send(self, text):
        """Queues one message, which is already encoded as JSON."""
        self._output.append(text)
        if len(self._output) >= _FLUSH_MESSAGES:
            self.flush()

    def flush_if_due(self):
        """Writes queued output that has waited long enough, although input is pending."""
        if self._output and time.monotonic() - self._last_flush >= _FLUSH_SECONDS:
            self.flush()

    def flush(self):
        """Writes all queued output."""
        if self._output:
            self._output.append("")
            data = memoryview("\nend\n".join(self._output).encode("ascii"))
            self._output.clear()
            while data:
                data = data[os.write(self._write_fd, data) :]
        self._last_flush = time.monotonic()

    def _read_some(self):
        """Blocks until at least one complete message has arrived; returns all complete messages."""
        data = self._input
        while True:
            chunk = os.read(self._read_fd, _READ_BYTES)
            if not chunk:
                raise _EndOfInput()
            # The delimiter may straddle two chunks.
            search_from = max(0, len(data) - len(_DELIMITER) + 1)
            data += chunk
            end = data.rfind(_DELIMITER, search_from)
            if end >= 0:
                break
        whole = bytes(data[:end])
        del data[: end + len(_DELIMITER)]
        return _decode(whole)


def _decode(whole):
    """Decodes messages that are separated by the delimiter.

    All messages are decoded by one call: a JSON text cannot contain a line `end`,
    so the delimiters can become the commas of one array.
    """
    try:
        return json.loads(b"[" + whole.replace(_DELIMITER, b",") + b"]")
    except ValueError:
        pass
    messages = []
    for part in whole.split(_DELIMITER):
        try:
            messages.append(json.loads(part))
        except ValueError as error:
            raise ProtocolError("not JSON (%s): %r" % (error, part[:200])) from None
    return messages


class _Component:
    """Common part of spouts and bolts: handshake, context, log, errors, main loop."""

    def __init__(self):
        self.conf = {}
        self.context = {}
        self._channel = None

    def initialize(self, conf, context):
        """Called once before the first tuple; the place to open files and connections."""

    def cleanup(self):
        """Called when the worker closes the input; not called if the process is killed."""

    @property
    def task_id(self):
        """The number of this task in its topology."""
        return self.context["taskid"]

    @property
    def component_id(self):
        """The name of this component in the topology file."""
        return self.context["task->component"][str(self.task_id)]

    @property
    def peers(self):
        """The task ids of this component, this one included, in ascending order."""
        mine = self.component_id
        return sorted(int(task) for task, name in self.context["task->component"].items() if name == mine)

    def log(self, message, level="info"):
        """Writes to the worker's log. Levels: trace, debug, info, warn, error."""
        number = _LEVELS[level] if isinstance(level, str) else level
        self._channel.send(_encode({"command": "log", "msg": str(message), "level": number}))

    def report_error(self, message):
        """Reports a task error, which `get-errors` shows; the component continues."""
        self._channel.send(_encode({"command": "error", "msg": str(message)}))

    def metric(self, name, params):
        """Sends a metric at once: a number for a counter, or an object such as `{"gauge": 0.5}`.

        `counter`, `gauge`, `histogram` and `meter` of this module are cheaper.
        """
        self._channel.send(_encode({"command": "metrics", "name": name, "params": params}))

    def run(self):
        """Runs the component until the worker closes the input. Exits with status 1 on an error."""
        self._channel = _Channel(*(_stdio or _take_stdio()))
        try:
            self._handshake()
            _metrics.begin(self._channel.send)
            self.initialize(self.conf, self.context)
            while True:
                self._step(self._channel.receive())
                _metrics.send_if_due()
        except _EndOfInput:
            self.cleanup()
            self._send_last_metrics()
        except (BrokenPipeError, KeyboardInterrupt):
            # The worker is gone or stops this process: nothing is left to report to.
            pass
        except Exception:
            self._report_crash(traceback.format_exc())
            sys.exit(1)

    def _send_last_metrics(self):
        try:
            _metrics.send()
            self._channel.flush()
        except OSError:
            # The worker is gone.
            pass

    def _handshake(self):
        hello = self._channel.receive()
        self.conf = hello["conf"]
        self.context = hello["context"]
        pid = os.getpid()
        with open(os.path.join(hello["pidDir"], str(pid)), "w"):
            pass
        self._channel.send(_encode({"pid": pid}))
        self._channel.flush()

    def _report_crash(self, text):
        sys.stderr.write(text)
        try:
            _metrics.send()
            self.report_error(text)
            self._channel.flush()
        except OSError:
            pass

    def _step(self, message):
        raise NotImplementedError("derive from Spout, Bolt or BasicBolt")

    def _emit(self, head, values, stream, direct_task, need_task_ids):
        """Sends an emit whose JSON starts with `head`; returns the task ids if requested."""
        if isinstance(values, (str, bytes)):
            raise TypeError("emit takes a list of values, not %r" % (values,))
        # Assembled as text: encoding a whole dict would cost a split bolt a third of its speed.
        text = head + ',"tuple":' + _encode(values if isinstance(values, (list, tuple)) else list(values))
        if stream is not None:
            text += ',"stream":' + _encode(stream)
        if direct_task is not None:
            # The protocol has no reply to a direct emit: the caller named the task.
            self._channel.send(text + ',"task":%d,"need_task_ids":false}' % direct_task)
            return [direct_task] if need_task_ids else None
        if not need_task_ids:
            self._channel.send(text + ',"need_task_ids":false}')
            return None
        self._channel.send(text + ',"need_task_ids":true}')
        return self._channel.receive_task_ids()


class Spout(_Component):
    """A source of tuples: derive from it, define `next_tuple`, call `run`."""

    def next_tuple(self):
        """Emits some tuples, or none if there are none. Must not block for long."""
        raise NotImplementedError

    def ack(self, id):
        """Called when the tuple that was emitted with `id`, and every tuple anchored to it, was acked."""

    def fail(self, id):
        """Called when the tuple that was emitted with `id` failed or timed out: emit it again.

        What was pending when this process ended is neither acked nor failed. A spout that must lose
        nothing stores the position of its oldest pending tuple and goes on from there in `initialize`.
        """

    def activate(self):
        """Called when the topology is activated; `next_tuple` calls follow."""

    def deactivate(self):
        """Called when the topology is deactivated; no `next_tuple` until `activate`."""

    def emit(self, values, stream=None, direct_task=None, need_task_ids=False, id=None):
        """Emits a tuple. `ack` or `fail` is called once for a tuple with an `id`, any JSON value."""
        head = '{"command":"emit"'
        if id is not None:
            head += ',"id":' + _encode(id)
        return self._emit(head, values, stream, direct_task, need_task_ids)

    def _step(self, message):
        command = message.get("command") if isinstance(message, dict) else None
        if command == "next":
            self.next_tuple()
        elif command == "ack":
            self.ack(message["id"])
        elif command == "fail":
            self.fail(message["id"])
        elif command == "activate":
            self.activate()
        elif command == "deactivate":
            self.deactivate()
            # Nothing may follow for a long time.
            _metrics.send()
        else:
            raise ProtocolError("a spout cannot handle %r" % (message,))
        self._channel.send('{"command":"sync"}')


class Bolt(_Component):
    """A processing step: derive from it, define `process`, ack or fail each tuple, call `run`."""

    def process(self, tup):
        """Processes one tuple (`Tuple`)."""
        raise NotImplementedError

    def emit(self, values, stream=None, anchors=None, direct_task=None, need_task_ids=False):
        """Emits a tuple, anchored to the tuples in `anchors` (a list of `Tuple` or of ids).

        The spout's tuple behind an anchor is acked only when this tuple was acked too. Emit before
        acking the anchors; a tuple without anchors is not tracked.
        """
        head = '{"command":"emit"'
        if anchors:
            ids = [anchor.id if isinstance(anchor, Tuple) else anchor for anchor in anchors]
            head += ',"anchors":' + _encode(ids)
        return self._emit(head, values, stream, direct_task, need_task_ids)

    def ack(self, tup):
        """Acknowledges `tup` as processed."""
        self._channel.send('{"command":"ack","id":' + _encode(tup.id) + "}")

    def fail(self, tup):
        """Reports that this bolt could not process `tup`, so that its spout may retry."""
        self._channel.send('{"command":"fail","id":' + _encode(tup.id) + "}")

    def reset_timeout(self, tup):
        """Starts the message timeout of the spout's tuples behind `tup` again, for work that takes long."""
        self._channel.send('{"command":"reset_timeout","id":' + _encode(tup.id) + "}")
        self._channel.flush()

    def heartbeat(self):
        """Sends a heartbeat to the worker now; call this inside work that takes many seconds."""
        self._channel.send('{"command":"sync"}')
        self._channel.flush()

    def value(self, tup, field):
        """Returns the value of `tup` for a field that its source declared in the topology file."""
        fields = self.context["source->stream->fields"][tup.component][tup.stream]
        return tup.values[fields.index(field)]

    def _step(self, message):
        if not isinstance(message, dict) or "tuple" not in message:
            raise ProtocolError("a bolt cannot handle %r" % (message,))
        tup = Tuple(message["id"], message["comp"], message["stream"], message["task"], message["tuple"])
        if is_heartbeat(tup):
            self.heartbeat()
        else:
            self._handle(tup)
            self._channel.flush_if_due()

    def _handle(self, tup):
        self.process(tup)


class BasicBolt(Bolt):
    """A bolt whose tuples are anchored to the input and acked after `process` returns."""

    def __init__(self):
        super().__init__()
        self._emit_head = None

    def emit(self, values, stream=None, anchors=None, direct_task=None, need_task_ids=False):
        """Emits a tuple, anchored to the current input unless `anchors` says otherwise."""
        if anchors is None and self._emit_head is not None:
            return self._emit(self._emit_head, values, stream, direct_task, need_task_ids)
        return super().emit(values, stream, anchors, direct_task, need_task_ids)

    def _handle(self, tup):
        id = _encode(tup.id)
        self._emit_head = '{"command":"emit","anchors":[' + id + "]"
        self.process(tup)
        self._emit_head = None
        self._channel.send('{"command":"ack","id":' + id + "}")


def _take_stdio():
    """Reserves stdin and stdout for the protocol; returns their private descriptors.

    Descriptor 1 becomes stderr and descriptor 0 becomes empty before Python's own
    buffer is flushed, so text printed earlier also goes to stderr. Subprocesses do
    not inherit the descriptors created here.
    """
    read_fd = os.dup(0)
    write_fd = os.dup(1)
    empty = os.open(os.devnull, os.O_RDONLY)
    os.dup2(empty, 0)
    os.close(empty)
    os.dup2(2, 1)
    sys.stdout.flush()
    sys.stdout = sys.stderr
    return read_fd, write_fd


# A worker names its component in this variable. Subprocesses, which may import this module too, must
# not find it.
_stdio = _take_stdio() if os.environ.pop("STORMKEEPER_COMPONENT", None) else None
