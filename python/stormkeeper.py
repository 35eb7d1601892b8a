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
* A worker of Stormkeeper and this module exchange many tuples in one message
  (docs/multilang.md, "Batches"). Nothing changes for a component, except for its speed.
* User metrics are aggregated here and sent together, at most once a second, when a
  spout is deactivated, and at the end: `stormkeeper.counter("lines").add(1)`. A
  process that is killed loses the updates since the last send.
* The methods of a component belong to the thread that calls `run`: hand results of other
  threads to it, and emit them there.
* An exception that a component's method does not catch is reported as a task error with
  its traceback, and the process exits with status 1. The worker starts it again.
* When the worker closes the input, the process exits with status 0.
"""

import contextlib
import heapq
import json
import math
import os
import sys
import time
import traceback
from collections import deque
from typing import (
    Any,
    Callable,
    Deque,
    Dict,
    Iterable,
    Iterator,
    List,
    Optional,
    Sequence,
    Type,
    TypeVar,
    Union,
)

__all__ = [
    "BasicBolt",
    "Bolt",
    "ProtocolError",
    "Record",
    "ReliableSpout",
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

# The dialect in which many tuples share a message, as the handshake names it.
_BATCHES = "batch-1"
# Values of emits that wait for their batch.
_BATCH_VALUES = 4096
# A spout is called again for one `next` if the calls so far took no longer and emitted no more.
_CALLS_SECONDS = 0.001
_CALLS_TUPLES = 1024
# After a call that took longer than output may wait, calls are answered one by one for so long.
_SINGLE_SECONDS = 60.0
# A batch whose JSON is longer is sent as single messages: a worker takes messages of up to 16 MiB.
_BATCH_CHARACTERS = 4 << 20
# Nested values with as many brackets are sent as single messages: a worker reads 125 levels.
_BATCH_BRACKETS = 64
# A component that has sent nothing for so long shows between two tuples that it is alive.
_SILENCE_SECONDS = 1.0

_Values = Sequence[Any]
_Id = Union[int, str]
_Message = Any

# Metrics are sent at most this often, or when one metric has this many unsent updates.
_METRIC_SECONDS = 1.0
_METRIC_UPDATES = 1000

_LEVELS = {"trace": 0, "debug": 1, "info": 2, "warn": 3, "warning": 3, "error": 4}

_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False, allow_nan=False).encode


class ProtocolError(Exception):
    """The parent sent something that the multilang protocol does not allow."""


class _Metrics:
    """The metrics of this process and their unsent updates."""

    def __init__(self) -> None:
        self._known: Dict[Any, _Metric] = {}
        self._changed: Dict[_Metric, None] = {}
        self._last_send = time.monotonic()
        # The function that sends a message; None until the component runs. Earlier updates wait.
        self._send: Optional[Callable[[str], None]] = None

    def of(self, kind: "Type[_M]", name: str) -> "_M":
        """Returns the metric of this kind and name, the same object each time."""
        if not isinstance(name, str) or not name:
            raise TypeError("the name of a metric must be a non-empty string, not %r" % (name,))
        found = self._known.get((kind, name))
        if found is None:
            found = self._known[kind, name] = kind(self, name)
        return found  # type: ignore[return-value]

    def changed(self, metric: "_Metric", is_urgent: bool) -> None:
        """Records that `metric` has unsent updates; sends at once if `is_urgent`."""
        self._changed[metric] = None
        if is_urgent and self._send is not None:
            self.send()

    def begin(self, send: Callable[[str], None]) -> None:
        """Sets the function that sends messages."""
        self._send = send

    def send_if_due(self) -> None:
        """Sends all updates if the last send was long enough ago."""
        if self._changed and time.monotonic() - self._last_send >= _METRIC_SECONDS:
            self.send()

    def send(self) -> None:
        """Sends all unsent updates."""
        if self._send is None:
            return
        for metric in self._changed:
            params = _encode({metric.kind: metric._take()})
            self._send('{"command":"metrics","name":%s,"params":%s}' % (_encode(metric.name), params))
        self._changed.clear()
        self._last_send = time.monotonic()


class _Metric:
    """A metric of one kind and name."""

    kind = ""
    __slots__ = ("name", "_metrics", "_waiting", "_updates")

    def __init__(self, metrics: _Metrics, name: str) -> None:
        self.name = name
        self._metrics = metrics
        self._waiting: Any = self._empty()
        self._updates = 0

    def _empty(self) -> Any:
        return 0

    def _take(self) -> Any:
        waiting, self._waiting, self._updates = self._waiting, self._empty(), 0
        return waiting

    def _changed(self) -> None:
        self._updates += 1
        if self._updates == 1 or self._updates >= _METRIC_UPDATES:
            self._metrics.changed(self, self._updates >= _METRIC_UPDATES)


_M = TypeVar("_M", bound=_Metric)


def _whole(n: int) -> int:
    if isinstance(n, bool) or not isinstance(n, int) or n < 0:
        raise ValueError("a count must be an integer of 0 or more, not %r" % (n,))
    return n


def _finite(value: float) -> float:
    value = float(value)
    if value != value or value in (float("inf"), float("-inf")):
        raise ValueError("a value must be a finite number, not %r" % (value,))
    return value


class _Counter(_Metric):
    """Number of events."""

    kind = "counter"
    __slots__ = ()

    def add(self, n: int = 1) -> None:
        """Adds `n` to the count."""
        self._waiting += _whole(n)
        self._changed()


class _Meter(_Metric):
    """Rate of events per second."""

    kind = "meter"
    __slots__ = ()

    def mark(self, n: int = 1) -> None:
        """Records `n` events."""
        self._waiting += _whole(n)
        self._changed()


class _Gauge(_Metric):
    """Current value of a quantity."""

    kind = "gauge"
    __slots__ = ()

    def set(self, value: float) -> None:
        """Sets the current value."""
        self._waiting = _finite(value)
        # Only the last value is sent, so many updates are no reason to send early.
        self._updates = 0
        self._changed()


class _Histogram(_Metric):
    """Distribution of values."""

    kind = "histogram"
    __slots__ = ()

    def _empty(self) -> Any:
        return []

    def update(self, value: float) -> None:
        """Adds one value."""
        self._waiting.append(_finite(value))
        self._changed()


class _Timer(_Histogram):
    """Distribution of times, and their rate."""

    kind = "timer"
    __slots__ = ()

    def update(self, seconds: float) -> None:
        """Adds one time in seconds."""
        super().update(_finite(seconds) * 1e6)

    @contextlib.contextmanager
    def time(self) -> Iterator[None]:
        """Measures a block: `with timer("lookup").time(): …`."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.update(time.perf_counter() - began)


_metrics = _Metrics()


def counter(name: str) -> _Counter:
    """Returns the counter `name` of this task: `counter("lines").add(1)`."""
    return _metrics.of(_Counter, name)


def gauge(name: str) -> _Gauge:
    """Returns the gauge `name` of this task: `gauge("open_files").set(7)`."""
    return _metrics.of(_Gauge, name)


def histogram(name: str) -> _Histogram:
    """Returns the histogram `name` of this task: `histogram("bytes").update(120)`."""
    return _metrics.of(_Histogram, name)


def meter(name: str) -> _Meter:
    """Returns the meter `name` of this task: `meter("requests").mark()`."""
    return _metrics.of(_Meter, name)


def timer(name: str) -> _Timer:
    """Returns the timer `name` of this task: `with timer("lookup").time(): …`."""
    return _metrics.of(_Timer, name)


class _EndOfInput(Exception):
    """The parent closed our stdin."""


class Tuple:
    """A tuple that a bolt received.

    `values` is the list of values; `component`, `stream` and `task` identify the
    source; `id` is the id that ack, fail and anchors use.
    """

    __slots__ = ("_id", "component", "stream", "task", "values")

    component: str
    stream: str
    task: int
    values: List[Any]

    def __init__(self, id: _Id, component: str, stream: str, task: int, values: List[Any]) -> None:
        self._id = id
        self.component = component
        self.stream = stream
        self.task = task
        self.values = values

    @property
    def id(self) -> str:
        """The id that ack, fail and anchors use."""
        return str(self._id)

    def __repr__(self) -> str:
        return "Tuple(id=%r, component=%r, stream=%r, task=%r, values=%r)" % (
            self.id,
            self.component,
            self.stream,
            self.task,
            self.values,
        )

    def __reduce__(self) -> Any:
        return (Tuple, (self._id, self.component, self.stream, self.task, self.values))


def is_tick(tup: Tuple) -> bool:
    """Returns whether `tup` is a tick tuple (`topology.tick.tuple.freq.secs`)."""
    return tup.stream == "__tick" and tup.component == "__system"


def is_heartbeat(tup: Tuple) -> bool:
    """Returns whether `tup` is a heartbeat request; `Bolt` replies to heartbeats itself."""
    return tup.stream == "__heartbeat" and tup.task == -1


# Whether values of these types cannot change after they were emitted, and are valid in JSON.
_PLAIN = frozenset((str, int, bool, type(None)))
_are_plain = _PLAIN.issuperset
_are_plain_or_floats = frozenset((str, int, bool, type(None), float)).issuperset
_ID_TYPES = frozenset((str, int, type(None)))


def _frozen(value: Any) -> Any:
    """Returns `value` as JSON has it, which later changes of the author's lists and maps do not reach.

    Raises what its encoding raises: an emit must fail where it is written.
    """
    return json.loads(_encode(value))


class _Batch:
    """Emits, acks and fails that wait to be sent as one message.

    Emits are kept in runs: tuples that follow one another on one stream, with equally many values.
    The values of a run are in one list, which costs less than a list for each tuple, here and in JSON.
    """

    __slots__ = ("values", "mark", "arity", "fast_arity", "stream", "anchors", "anchor", "ids", "first", "_runs", "_settled")

    def __init__(self) -> None:
        # The open run: its values, how many a tuple has (0: no run is open), and its stream.
        self.values: List[Any] = []
        self.arity = 0
        self.stream: Optional[str] = None
        # The same as `arity` if the stream is the default one, else -1, so that one look is enough.
        self.fast_arity = -1
        # An anchor and the number of tuples in a row that have it, for the values before `mark`.
        self.anchors: List[Any] = []
        self.mark = 0
        # Anchor of the tuples behind `mark`.
        self.anchor: Any = None
        # Message ids of a spout's tuples.
        self.ids: List[Any] = []
        # First of the inputs that a `BasicBolt` has processed, up to `anchor`, and not acked.
        self.first: Optional[int] = None
        self._runs: List[Any] = []
        self._settled: List[Any] = []

    def add(self, values: _Values, stream: Optional[str], anchor: Any, id: Any = None) -> bool:
        """Adds an emit. Returns False if it must be sent as a message of its own."""
        if not isinstance(values, list):
            values = list(values)
        if not _are_plain(map(type, values)):
            if not _are_plain_or_floats(map(type, values)):
                text = _encode(values)
                if text.count("[") + text.count("{") > _BATCH_BRACKETS:
                    return False
                values = json.loads(text)
            elif not all(math.isfinite(value) for value in values if type(value) is float):
                # Raises the error that a single message raises.
                _encode(values)
        arity = len(values)
        if not arity:
            return False
        self.note()
        if arity != self.arity or stream != self.stream:
            self._close()
            self.arity, self.stream = arity, stream
            self.fast_arity = arity if stream is None else -1
        self.values += values
        self.mark = len(self.values)
        self._add_anchor(anchor, 1)
        self.ids.append(id if type(id) in _ID_TYPES else _frozen(id))
        return True

    def note(self) -> None:
        """Gives the current anchor to the tuples that have none."""
        n_values = len(self.values) - self.mark
        if n_values:
            self._add_anchor(self.anchor, n_values // self.arity)
            self.mark += n_values

    def _add_anchor(self, anchor: Any, n: int) -> None:
        anchors = self.anchors
        if anchors and anchors[-2] == anchor:
            anchors[-1] += n
        else:
            anchors += (anchor, n)

    def settle(self, command: str, id: Any) -> None:
        """Adds an `ack` or a `fail`; `id` is an id, or a list of the first of many and their number."""
        if not self._settled or self._settled[-1][0] != command:
            self._settled.append([command, []])
        self._settled[-1][1].append(id)

    def settle_processed(self) -> None:
        """Acks what a `BasicBolt` has processed."""
        if self.first is not None and self.first < self.anchor:
            self.settle("ack", [self.first, self.anchor - self.first])
            self.first = self.anchor

    def _close(self) -> None:
        """Closes the open run."""
        if self.values:
            run = [self.stream, self.arity, self.values, self.anchors]
            if any(id is not None for id in self.ids):
                run.append(self.ids)
            self._runs.append(run)
            self.values, self.anchors = [], []
        self.ids = []
        self.mark = self.arity = 0
        self.fast_arity = -1

    def is_empty(self) -> bool:
        """Returns whether there is nothing to send."""
        is_acked = self.first is None or self.first >= self.anchor
        return is_acked and not (self.values or self._runs or self._settled)

    def take(self) -> Optional[str]:
        """Returns what is to be sent, as one message or many; None if there is nothing."""
        self.note()
        self.settle_processed()
        self._close()
        runs, settled = self._runs, self._settled
        if not runs and not settled:
            return None
        # Before they are encoded: values that cannot be must not fail a second time.
        self._runs, self._settled = [], []
        text = '{"command":"batch","emits":%s,"settled":%s}' % (_encode(runs), _encode(settled))
        if len(text) > _BATCH_CHARACTERS:
            text = "\nend\n".join(_single_messages(runs, settled))
        return text


def _single_messages(runs: List[Any], settled: List[Any]) -> Iterator[str]:
    """Yields the messages that say the same as a batch."""
    for stream, arity, values, anchors, *ids in runs:
        each_anchor = [anchor for anchor, n in zip(anchors[::2], anchors[1::2]) for _ in range(n)]
        for row, anchor in enumerate(each_anchor):
            message = {"command": "emit", "tuple": values[row * arity : (row + 1) * arity], "need_task_ids": False}
            if stream is not None:
                message["stream"] = stream
            if anchor is not None:
                message["anchors"] = anchor if isinstance(anchor, list) else [anchor]
            if ids and ids[0][row] is not None:
                message["id"] = ids[0][row]
            yield _encode(message)
    for command, done in settled:
        for item in done:
            first, n = item if isinstance(item, list) else (item, 1)
            for id in range(first, first + n) if n > 1 else [first]:
                yield _encode({"command": command, "id": id})


class _Channel:
    """JSON messages over two file descriptors, read and written in large pieces."""

    def __init__(self, read_fd: int, write_fd: int) -> None:
        self._read_fd = read_fd
        self._write_fd = write_fd
        self._input = bytearray()
        self._messages: Deque[Any] = deque()
        self._output: List[str] = []
        self._last_flush = self._last_write = time.monotonic()
        # Time at which queued output is written although input is pending.
        self.due = self._last_flush + _FLUSH_SECONDS
        # The batch being filled, if the worker takes batches.
        self.batch: Optional[_Batch] = None

    def receive(self) -> _Message:
        """Returns the next message; writes pending output before it waits."""
        if not self._messages:
            self.flush()
            self._messages.extend(self._read_some())
        return self._messages.popleft()

    def receive_task_ids(self) -> List[int]:
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

    def send(self, text: str) -> None:
        """Queues one message, which is already encoded as JSON, behind what is in the batch."""
        if self.batch is not None:
            self._close_batch()
        self._output.append(text)
        if len(self._output) >= _FLUSH_MESSAGES:
            self.flush()

    def flush_if_due(self) -> None:
        """Writes queued output that has waited long enough, although input is pending."""
        now = time.monotonic()
        if now < self.due:
            return
        _metrics.send_if_due()
        if self._output or (self.batch is not None and not self.batch.is_empty()):
            self.flush()
        elif self.batch is not None and now - self._last_write >= _SILENCE_SECONDS:
            self._output.append('{"command":"batch"}')
            self.flush()
        else:
            self.due = now + _FLUSH_SECONDS

    def flush(self) -> None:
        """Writes all queued output."""
        if self.batch is not None:
            self._close_batch()
        if self._output:
            self._output.append("")
            data = memoryview("\nend\n".join(self._output).encode("ascii"))
            self._output.clear()
            while data:
                data = data[os.write(self._write_fd, data) :]
            self._last_write = time.monotonic()
        self._last_flush = time.monotonic()
        self.due = self._last_flush + _FLUSH_SECONDS

    def _close_batch(self) -> None:
        text = self.batch.take() if self.batch is not None else None
        if text is not None:
            self._output.append(text)

    def _read_some(self) -> List[_Message]:
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


def _decode(whole: bytes) -> List[_Message]:
    """Decodes messages that are separated by the delimiter.

    All messages are decoded by one call: a JSON text cannot contain a line `end`,
    so the delimiters can become the commas of one array.
    """
    try:
        decoded: List[_Message] = json.loads(b"[" + whole.replace(_DELIMITER, b",") + b"]")
        return decoded
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

    def __init__(self) -> None:
        self.conf: Dict[str, Any] = {}
        self.context: Dict[str, Any] = {}
        self._channel: _Channel = None  # type: ignore[assignment]

    def initialize(self, conf: Dict[str, Any], context: Dict[str, Any]) -> None:
        """Called once before the first tuple; the place to open files and connections."""

    def cleanup(self) -> None:
        """Called when the worker closes the input; not called if the process is killed."""

    @property
    def task_id(self) -> int:
        """The number of this task in its topology."""
        return int(self.context["taskid"])

    @property
    def component_id(self) -> str:
        """The name of this component in the topology file."""
        return str(self.context["task->component"][str(self.task_id)])

    @property
    def peers(self) -> List[int]:
        """The task ids of this component, this one included, in ascending order."""
        mine = self.component_id
        return sorted(int(task) for task, name in self.context["task->component"].items() if name == mine)

    def log(self, message: Any, level: Union[str, int] = "info") -> None:
        """Writes to the worker's log. Levels: trace, debug, info, warn, error."""
        number = _LEVELS[level] if isinstance(level, str) else level
        self._channel.send(_encode({"command": "log", "msg": str(message), "level": number}))

    def report_error(self, message: Any) -> None:
        """Reports a task error, which `get-errors` shows; the component continues."""
        self._channel.send(_encode({"command": "error", "msg": str(message)}))

    def metric(self, name: str, params: Any) -> None:
        """Sends a metric at once: a number for a counter, or an object such as `{"gauge": 0.5}`.

        `counter`, `gauge`, `histogram`, `meter` and `timer` of this module are cheaper.
        """
        self._channel.send(_encode({"command": "metrics", "name": name, "params": params}))

    def run(self) -> None:
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

    def _send_last_metrics(self) -> None:
        try:
            _metrics.send()
            self._channel.flush()
        except OSError:
            # The worker is gone.
            pass

    def _handshake(self) -> None:
        hello = self._channel.receive()
        self.conf = hello["conf"]
        self.context = hello["context"]
        pid = os.getpid()
        with open(os.path.join(hello["pidDir"], str(pid)), "w"):
            pass
        answer: Dict[str, Any] = {"pid": pid}
        if _BATCHES in hello.get("dialects", ()):
            answer["dialect"] = _BATCHES
        self._channel.send(_encode(answer))
        self._channel.flush()
        if "dialect" in answer:
            self._channel.batch = _Batch()

    def _report_crash(self, text: str) -> None:
        sys.stderr.write(text)
        try:
            _metrics.send()
            self.report_error(text)
            self._channel.flush()
        except OSError:
            pass

    def _step(self, message: _Message) -> None:
        raise NotImplementedError("derive from Spout, Bolt or BasicBolt")

    def _emit_in_batch(
        self,
        values: _Values,
        stream: Optional[str],
        anchor: Any,
        id: Any = None,
    ) -> bool:
        """Adds an emit to the batch, if there is one and it takes the emit; returns whether it did."""
        batch = self._channel.batch
        if batch is None:
            return False
        _check(values)
        if not batch.add(values, stream, anchor, id):
            return False
        if len(batch.values) >= _BATCH_VALUES:
            self._channel.flush()
        return True

    def _emit(
        self,
        head: str,
        values: _Values,
        stream: Optional[str],
        direct_task: Optional[int],
        need_task_ids: bool,
    ) -> Optional[List[int]]:
        """Sends an emit whose JSON starts with `head`; returns the task ids if requested."""
        _check(values)
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


def _check(values: Any) -> None:
    if isinstance(values, (str, bytes)):
        raise TypeError("emit takes a list of values, not %r" % (values,))


class Spout(_Component):
    """A source of tuples: derive from it, define `next_tuple`, call `run`."""

    _n_emitted = 0
    # Until then, each call is answered on its own.
    _single_until = 0.0

    def next_tuple(self) -> None:
        """Emits some tuples, or none if there are none. Must not block for long."""
        raise NotImplementedError

    def ack(self, id: Any) -> None:
        """Called when the tuple that was emitted with `id`, and every tuple anchored to it, was acked."""

    def fail(self, id: Any) -> None:
        """Called when the tuple that was emitted with `id` failed or timed out: emit it again.

        What was pending when this process ended is neither acked nor failed. A spout that must lose
        nothing stores the position of its oldest pending tuple and goes on from there in `initialize`:
        `ReliableSpout` does all of that.
        """

    def activate(self) -> None:
        """Called when the topology is activated; `next_tuple` calls follow."""

    def deactivate(self) -> None:
        """Called when the topology is deactivated; no `next_tuple` until `activate`."""

    def emit(
        self,
        values: _Values,
        stream: Optional[str] = None,
        direct_task: Optional[int] = None,
        need_task_ids: bool = False,
        id: Any = None,
    ) -> Optional[List[int]]:
        """Emits a tuple. `ack` or `fail` is called once for a tuple with an `id`, any JSON value."""
        self._n_emitted += 1
        batch = self._channel.batch
        # The common case, without the calls that `add` needs for all others.
        if (
            batch is not None
            and stream is None
            and direct_task is None
            and not need_task_ids
            and type(values) is list
            and len(values) == batch.fast_arity
            and _are_plain(map(type, values))
            and type(id) in _ID_TYPES
        ):
            batch.values += values
            batch.ids.append(id)
            if len(batch.values) >= _BATCH_VALUES:
                self._channel.flush()
            return None
        if direct_task is None and not need_task_ids and self._emit_in_batch(values, stream, None, id):
            return None
        head = '{"command":"emit"'
        if id is not None:
            head += ',"id":' + _encode(id)
        return self._emit(head, values, stream, direct_task, need_task_ids)

    def _step(self, message: _Message) -> None:
        command = message.get("command") if isinstance(message, dict) else None
        if command == "next" and "room" in message:
            n_calls, is_empty = self._call(message["room"])
            self._channel.send('{"command":"sync","calls":%d,"empty":%s}' % (n_calls, "true" if is_empty else "false"))
            return
        if command == "next":
            self.next_tuple()
        elif command == "batch":
            channel, monotonic = self._channel, time.monotonic
            for outcome, ids in message["outcomes"]:
                tell = self.ack if outcome == "ack" else self.fail
                for id in ids:
                    tell(id)
                    if monotonic() >= channel.due:
                        channel.flush_if_due()
            self._told()
        elif command == "ack":
            self.ack(message["id"])
            self._told()
        elif command == "fail":
            self.fail(message["id"])
            self._told()
        elif command == "activate":
            self.activate()
        elif command == "deactivate":
            self.deactivate()
            # Nothing may follow for a long time.
            _metrics.send()
        else:
            raise ProtocolError("a spout cannot handle %r" % (message,))
        self._channel.send('{"command":"sync"}')

    def _call(self, room: int) -> Any:
        """Calls `next_tuple` until it has emitted nothing, `room` tuples, or enough for one message.

        Returns the number of calls, and whether the last one emitted nothing.
        """
        first = self._n_emitted
        began = last = time.monotonic()
        n_calls = 0
        while True:
            n_before = self._n_emitted
            self.next_tuple()
            n_calls += 1
            now = time.monotonic()
            if now - last >= _FLUSH_SECONDS:
                # A spout that waits within a call must not hold back what calls before it emitted.
                self._single_until = now + _SINGLE_SECONDS
            last = now
            n_emitted = self._n_emitted - first
            is_empty = self._n_emitted == n_before
            is_enough = n_emitted >= min(room, _CALLS_TUPLES) or now - began >= _CALLS_SECONDS
            if is_empty or is_enough or now < self._single_until:
                return n_calls, is_empty

    def _told(self) -> None:
        """Called after each message with acks and fails."""


class Record:
    """A record of a `ReliableSpout`: an id, the values of its tuple, and its stream."""

    __slots__ = ("id", "values", "stream", "attempts", "is_done")

    def __init__(self, id: Any, values: _Values, stream: Optional[str] = None) -> None:
        self.id = id
        self.values = values
        self.stream = stream
        # How often the record was emitted.
        self.attempts = 0
        self.is_done = False

    def __repr__(self) -> str:
        return "Record(id=%r, values=%r, stream=%r)" % (self.id, self.values, self.stream)


class ReliableSpout(Spout):
    """A spout that emits each record until it is acked: derive from it, define `read` and `save`.

        class Lines(ReliableSpout):
            def initialize(self, conf, context):
                self.file = open(conf["lines.file"], "rb")
                self.file.seek(load_position())      # where the last process stopped

            def read(self):
                line = self.file.readline()
                if line:
                    yield Record(self.file.tell(), [line.decode().rstrip()])

            def save(self, id):
                store_position(id)                   # every line that ends up to here is done

    A record that fails is emitted again after `retry_seconds`, then after twice that, up to
    `retry_seconds_max`. After `attempts_max` attempts `give_up` is called, and the record is done.

    Between the oldest record that is not done and the newest are at most `ahead_max` records: with as
    many, `read` is not called. That bounds the memory of this process, and what is emitted a second
    time after it was killed. `topology.max.spout.pending` bounds what is in flight besides.
    """

    #: Attempts to process a record; 0 is no limit.
    attempts_max: int = 0
    #: Seconds before a record is emitted again after its first failure.
    retry_seconds: float = 0.1
    #: Longest time before a record is emitted again.
    retry_seconds_max: float = 30.0
    #: Records from the oldest that is not done to the newest.
    ahead_max: int = 10_000

    def __init__(self) -> None:
        super().__init__()
        # Records from the oldest that is not done to the newest, in the order in which they were read.
        self._ahead: Deque[Record] = deque()
        self._by_id: Dict[Any, Record] = {}
        # Failed records, by the time at which they are emitted again, and a number that orders equal times.
        self._retries: List[Any] = []
        self._n_failed = 0
        self._saved_all = True
        self._done: Any = None

    def read(self) -> Iterable[Record]:
        """Returns the next records of the source, some hundreds at most; none if there are none now.

        Ids are unique among the records that are not done. Must not block for long.
        """
        raise NotImplementedError

    def save(self, id: Any) -> None:
        """Called when the record `id` and all that were read before it are done: store that position.

        It is called at most once for each message of the worker, before more records are read.
        """

    def give_up(self, record: Record) -> None:
        """Called for a record that failed `attempts_max` times, which is done then."""
        self.report_error("gave up record %r after %d attempts" % (record.id, record.attempts))

    @property
    def n_pending(self) -> int:
        """The number of records that are not done."""
        return len(self._by_id)

    def next_tuple(self) -> None:
        """Emits records that failed and are due, and new ones."""
        now = time.monotonic()
        while self._retries and self._retries[0][0] <= now:
            self._emit_record(heapq.heappop(self._retries)[2])
        if len(self._ahead) >= self.ahead_max:
            return
        for record in self.read() or ():
            key = _key(record.id)
            if key in self._by_id:
                raise ValueError("%r has the id of a record that is not done" % (record,))
            self._by_id[key] = record
            self._ahead.append(record)
            self._emit_record(record)

    def ack(self, id: Any) -> None:
        """Takes a record as done."""
        record = self._by_id.get(_key(id))
        if record is not None:
            self._finish(record)

    def fail(self, id: Any) -> None:
        """Emits a record again after a while, or gives it up."""
        record = self._by_id.get(_key(id))
        if record is None:
            return
        if 0 < self.attempts_max <= record.attempts:
            self.give_up(record)
            self._finish(record)
            return
        # The exponent is bounded, as a float is.
        wait = min(self.retry_seconds * 2.0 ** min(record.attempts - 1, 60), self.retry_seconds_max)
        self._n_failed += 1
        heapq.heappush(self._retries, (time.monotonic() + wait, self._n_failed, record))

    def _emit_record(self, record: Record) -> None:
        record.attempts += 1
        self.emit(record.values, stream=record.stream, id=record.id)

    def _finish(self, record: Record) -> None:
        record.is_done = True
        del self._by_id[_key(record.id)]
        while self._ahead and self._ahead[0].is_done:
            self._done = self._ahead.popleft().id
            self._saved_all = False

    def _told(self) -> None:
        if not self._saved_all:
            self.save(self._done)
            self._saved_all = True


def _key(id: Any) -> Any:
    """Returns a key for an id, which may be a list or a map."""
    return id if isinstance(id, (int, str)) else _encode(id)


# Types of the tuples of batches, by component, stream and task.
_tuple_types: Dict[Any, Type[Tuple]] = {}


def _tuple_type(component: str, stream: str, task: int) -> Type[Tuple]:
    """Returns a type whose tuples have their source in common, which makes each of them cheaper."""
    found = _tuple_types.get((component, stream, task))
    if found is None:
        source = {"__slots__": (), "component": component, "stream": stream, "task": task}
        found = _tuple_types[component, stream, task] = type("Tuple", (Tuple,), source)
    return found


class Bolt(_Component):
    """A processing step: derive from it, define `process`, ack or fail each tuple, call `run`."""

    def process(self, tup: Tuple) -> None:
        """Processes one tuple (`Tuple`)."""
        raise NotImplementedError

    def emit(
        self,
        values: _Values,
        stream: Optional[str] = None,
        anchors: Optional[Iterable[Union[Tuple, _Id]]] = None,
        direct_task: Optional[int] = None,
        need_task_ids: bool = False,
    ) -> Optional[List[int]]:
        """Emits a tuple, anchored to the tuples in `anchors` (a list of `Tuple` or of ids).

        The spout's tuple behind an anchor is acked only when this tuple was acked too. Emit before
        acking the anchors; a tuple without anchors is not tracked.
        """
        ids = [anchor._id if isinstance(anchor, Tuple) else anchor for anchor in anchors or ()]
        if direct_task is None and not need_task_ids:
            anchor = ids[0] if len(ids) == 1 else ids or None
            if self._emit_in_batch(values, stream, anchor):
                return None
        head = '{"command":"emit"'
        if ids:
            head += ',"anchors":' + _encode(ids)
        return self._emit(head, values, stream, direct_task, need_task_ids)

    def ack(self, tup: Tuple) -> None:
        """Acknowledges `tup` as processed."""
        self._settle("ack", tup)

    def fail(self, tup: Tuple) -> None:
        """Reports that this bolt could not process `tup`, so that its spout may retry."""
        self._settle("fail", tup)

    def _settle(self, command: str, tup: Tuple) -> None:
        if self._channel.batch is not None:
            self._channel.batch.settle(command, tup._id)
        else:
            self._channel.send('{"command":"%s","id":%s}' % (command, _encode(tup._id)))

    def reset_timeout(self, tup: Tuple) -> None:
        """Starts the message timeout of the spout's tuples behind `tup` again, for work that takes long."""
        self._channel.send('{"command":"reset_timeout","id":' + _encode(tup._id) + "}")
        self._channel.flush()

    def heartbeat(self) -> None:
        """Sends a heartbeat to the worker now; call this inside work that takes many seconds."""
        self._channel.send('{"command":"sync"}')
        self._channel.flush()

    def value(self, tup: Tuple, field: str) -> Any:
        """Returns the value of `tup` for a field that its source declared in the topology file."""
        fields = self.context["source->stream->fields"][tup.component][tup.stream]
        return tup.values[fields.index(field)]

    def _step(self, message: _Message) -> None:
        if isinstance(message, dict) and "batch" in message:
            for first, component, stream, task, arity, values in message["batch"]:
                # Each list is made when its tuple is processed, and so is dropped with it.
                rows = map(list, zip(*[iter(values)] * arity))
                self._handle_rows(_tuple_type(component, stream, task), first, rows)
            return
        if not isinstance(message, dict) or "tuple" not in message:
            raise ProtocolError("a bolt cannot handle %r" % (message,))
        tup = Tuple(message["id"], message["comp"], message["stream"], message["task"], message["tuple"])
        if is_heartbeat(tup):
            self.heartbeat()
        else:
            self._handle(tup)
            self._channel.flush_if_due()

    def _handle(self, tup: Tuple) -> None:
        self.process(tup)

    def _handle_rows(self, kind: Type[Tuple], first: int, rows: Iterable[List[Any]]) -> None:
        """Processes tuples with ascending ids."""
        channel, new, monotonic = self._channel, object.__new__, time.monotonic
        for number, values in enumerate(rows, first):
            tup = new(kind)
            tup._id = number
            tup.values = values
            self.process(tup)
            if monotonic() >= channel.due:
                channel.flush_if_due()


class BasicBolt(Bolt):
    """A bolt whose tuples are anchored to the input and acked after `process` returns."""

    def __init__(self) -> None:
        super().__init__()
        self._emit_head: Optional[str] = None
        # The same as the batch of the channel, while an input is processed.
        self._batch: Optional[_Batch] = None

    def emit(
        self,
        values: _Values,
        stream: Optional[str] = None,
        anchors: Optional[Iterable[Union[Tuple, _Id]]] = None,
        direct_task: Optional[int] = None,
        need_task_ids: bool = False,
    ) -> Optional[List[int]]:
        """Emits a tuple, anchored to the current input unless `anchors` says otherwise."""
        batch = self._batch
        # The common case, in as few steps as possible: a topology runs this for each tuple.
        if (
            batch is not None
            and stream is None
            and anchors is None
            and direct_task is None
            and not need_task_ids
            and type(values) is list
        ):
            n_values = len(values)
            if n_values == batch.fast_arity and (
                type(values[0]) in _PLAIN if n_values == 1 else _are_plain(map(type, values))
            ):
                waiting = batch.values
                waiting += values
                if len(waiting) >= _BATCH_VALUES:
                    self._channel.flush()
                return None
        if anchors is not None:
            return super().emit(values, stream, anchors, direct_task, need_task_ids)
        if batch is not None:
            if direct_task is None and not need_task_ids and self._emit_in_batch(values, stream, batch.anchor):
                return None
            return super().emit(values, stream, [batch.anchor], direct_task, need_task_ids)
        if self._emit_head is None:
            return super().emit(values, stream, None, direct_task, need_task_ids)
        return self._emit(self._emit_head, values, stream, direct_task, need_task_ids)

    def _handle(self, tup: Tuple) -> None:
        batch = self._channel.batch
        if batch is not None:
            self._batch, batch.anchor = batch, tup._id
            self.process(tup)
            batch.note()
            self._batch = batch.anchor = None
            batch.settle("ack", tup._id)
            return
        id = _encode(tup._id)
        self._emit_head = '{"command":"emit","anchors":[' + id + "]"
        self.process(tup)
        self._emit_head = None
        self._channel.send('{"command":"ack","id":' + id + "}")

    def _handle_rows(self, kind: Type[Tuple], first: int, rows: Iterable[List[Any]]) -> None:
        channel, new, monotonic = self._channel, object.__new__, time.monotonic
        batch = self._batch = channel.batch
        assert batch is not None
        # An exception leaves `anchor` at the input that was not processed: those before it are acked.
        batch.first, number = first, first - 1
        for number, values in enumerate(rows, first):
            tup = new(kind)
            tup._id = number
            tup.values = values
            batch.anchor = number
            self.process(tup)
            if batch.values and len(batch.values) != batch.mark:
                batch.note()
            if monotonic() >= channel.due:
                batch.anchor = number + 1
                channel.flush_if_due()
        batch.anchor = number + 1
        batch.settle_processed()
        self._batch = batch.first = batch.anchor = None


def _take_stdio() -> Any:
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
