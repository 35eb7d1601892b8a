"""Tests of python/stormkeeper.py against a scripted parent.

Each test starts a component as its own process, as a worker does, and speaks the
multilang protocol with it by hand. Run: python3 integration/multilang_adapter_test.py
"""

import array
import fcntl
import json
import os
import pathlib
import select
import subprocess
import sys
import tempfile
import termios
import textwrap
import time
import unittest

ADAPTER = pathlib.Path(__file__).resolve().parent.parent / "python"
# Generous, so that only a hang can reach it.
DEADLINE_SECONDS = 30
CONTEXT = {
    "taskid": 4,
    "task->component": {"1": "lines", "4": "mine", "3": "mine", "12": "mine"},
    "source->stream->fields": {"lines": {"default": ["number", "text"]}},
}


BATCHES = "batch-1"


def packed(messages):
    """Yields the messages with tuples in batches, as a worker sends them to a component that takes batches."""
    groups = []
    for message in messages + (None,):
        is_tuple = isinstance(message, dict) and message.get("tuple") and message["task"] > 0
        if is_tuple:
            head = [message["comp"], message["stream"], message["task"], len(message["tuple"])]
            last = groups[-1] if groups else None
            if last and last[1:5] == head and last[0] + len(last[5]) // last[4] == int(message["id"]):
                last[5].extend(message["tuple"])
            else:
                groups.append([int(message["id"]), *head, list(message["tuple"])])
            continue
        if groups:
            yield {"batch": groups}
            groups = []
        if message is not None:
            yield message


def unpacked(batch):
    """Yields the messages that a batch of a component stands for."""
    for stream, arity, values, anchors, *ids in batch.get("emits", []):
        anchors = [anchor for anchor, n in zip(anchors[::2], anchors[1::2]) for _ in range(n)]
        assert len(anchors) * arity == len(values), batch
        for row, anchor in enumerate(anchors):
            emit = {"command": "emit", "tuple": values[row * arity : (row + 1) * arity], "need_task_ids": False}
            if stream is not None:
                emit["stream"] = stream
            if anchor is not None:
                emit["anchors"] = [str(id) for id in (anchor if isinstance(anchor, list) else [anchor])]
            if ids and ids[0][row] is not None:
                emit["id"] = ids[0][row]
            yield emit
    for command, done in batch.get("settled", []):
        for item in done:
            first, n = item if isinstance(item, list) else (item, 1)
            for number in range(n):
                yield {"command": command, "id": str(int(first) + number)}


class Parent:
    """The worker's side of the protocol, one message at a time."""

    # What the handshake offers.
    dialects = None

    def __init__(self, source, conf=None, context=None, variables=None):
        self.directory = tempfile.TemporaryDirectory()
        script = os.path.join(self.directory.name, "component.py")
        with open(script, "w") as file:
            file.write(textwrap.dedent(source))
        self.pid_dir = os.path.join(self.directory.name, "pids")
        os.mkdir(self.pid_dir)
        environment = {**os.environ, "PYTHONPATH": str(ADAPTER), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.update(variables or {})
        # Text printed before `run` is caught in Python's buffer, which this would turn off.
        environment.pop("PYTHONUNBUFFERED", None)
        self.process = subprocess.Popen(
            [sys.executable, script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
        )
        self.received = b""
        self.messages = []
        hello = {"conf": conf or {}, "pidDir": self.pid_dir, "context": context or CONTEXT}
        self.send({**hello, "dialects": self.dialects} if self.dialects else hello)

    def send_raw(self, data):
        self.process.stdin.write(data)
        self.process.stdin.flush()

    def wait_until_read(self):
        """Returns when the component has taken everything that was sent."""
        unread = array.array("i", [1])
        deadline = time.monotonic() + DEADLINE_SECONDS
        while unread[0]:
            if time.monotonic() > deadline:
                raise AssertionError("the component leaves %d bytes unread" % unread[0])
            time.sleep(0.001)
            fcntl.ioctl(self.process.stdin, termios.FIONREAD, unread)

    def send(self, *messages):
        if self.dialects:
            messages = tuple(packed(messages))
        self.send_raw(b"".join(json.dumps(message).encode() + b"\nend\n" for message in messages))

    def receive(self):
        """Returns the next message; those of a batch one by one."""
        while not self.messages:
            message = self.receive_whole()
            is_batch = isinstance(message, dict) and message.get("command") == "batch"
            if is_batch:
                assert self.dialects, "a batch was sent to a parent that does not take batches: %r" % message
            self.messages.extend(unpacked(message) if is_batch else [message])
        message = self.messages.pop(0)
        if self.dialects and isinstance(message, dict):
            message.pop("dialect", None)
            # Numbers and texts stand for the same ids.
            if "anchors" in message:
                message["anchors"] = [str(id) for id in message["anchors"]]
            if message.get("command") in ("ack", "fail"):
                message["id"] = str(message["id"])
        return message

    def receive_whole(self):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while b"\nend\n" not in self.received:
            ready, _, _ = select.select([self.process.stdout], [], [], deadline - time.monotonic())
            if not ready:
                raise AssertionError("the component sent no whole message; so far: %r" % self.received)
            chunk = os.read(self.process.stdout.fileno(), 65536)
            if not chunk:
                raise AssertionError("the component closed stdout: " + self.process.stderr.read().decode())
            self.received += chunk
        message, self.received = self.received.split(b"\nend\n", 1)
        return json.loads(message)

    def receive_until_sync(self):
        while True:
            message = self.receive()
            if message.get("command") == "sync":
                return message

    def receive_until(self, last):
        messages = []
        while not messages or messages[-1] != last:
            messages.append(self.receive())
        return messages

    def finish(self):
        """Closes the component's input; returns its exit status, unread stdout and stderr."""
        rest, errors = self.process.communicate(timeout=DEADLINE_SECONDS)
        return self.process.returncode, self.received + rest, errors.decode()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.kill()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            try:
                stream.close()
            except BrokenPipeError:
                pass
        self.process.wait()
        self.directory.cleanup()


def tuple_message(id, values, comp="lines", stream="default", task=1):
    return {"id": id, "comp": comp, "stream": stream, "task": task, "tuple": values}


SPLIT = """
    from stormkeeper import BasicBolt
    class Split(BasicBolt):
        def process(self, tup):
            for word in tup.values[0].split():
                self.emit([word])
    Split().run()
"""

SPOUT = """
    from stormkeeper import Spout
    class Source(Spout):
        def initialize(self, conf, context):
            self.left = conf["count"]
        def next_tuple(self):
            if self.left:
                self.left -= 1
                self.emit(["value"], id="id-%d" % self.left)
        def ack(self, id):
            self.log("ack " + id)
        def fail(self, id):
            self.log("fail " + id, "warn")
        def activate(self):
            self.log("on", "debug")
        def deactivate(self):
            self.log("off", 0)
    Source().run()
"""


class Handshake(unittest.TestCase):
    def test_answers_its_pid_and_leaves_a_pid_file(self):
        with Parent(SPLIT) as parent:
            pid = parent.receive()["pid"]
            self.assertEqual(pid, parent.process.pid)
            self.assertEqual(os.listdir(parent.pid_dir), [str(pid)])

    def test_context_tells_task_component_and_peers(self):
        source = """
            from stormkeeper import Bolt
            class Tell(Bolt):
                def initialize(self, conf, context):
                    self.log("%d %s %r %s" % (self.task_id, self.component_id, self.peers, conf["k"]))
            Tell().run()
        """
        with Parent(source, conf={"k": "v"}) as parent:
            parent.receive()
            self.assertEqual(parent.receive(), {"command": "log", "msg": "4 mine [3, 4, 12] v", "level": 2})

    def test_end_of_input_runs_cleanup_and_exits_with_0(self):
        source = """
            import sys
            from stormkeeper import Bolt
            class Last(Bolt):
                def cleanup(self):
                    print("cleaned up")
            Last().run()
        """
        with Parent(source) as parent:
            parent.receive()
            status, _, errors = parent.finish()
            self.assertEqual((status, errors), (0, "cleaned up\n"))


class Framing(unittest.TestCase):
    def test_one_message_in_many_pieces_and_many_in_one(self):
        with Parent(SPLIT) as parent:
            parent.receive()
            for byte in json.dumps(tuple_message("1", ["end of\nend\n"])).encode() + b"\nend\n":
                parent.send_raw(bytes([byte]))
                parent.wait_until_read()
            emits = parent.receive_until({"command": "ack", "id": "1"})[:-1]
            self.assertEqual([emit["tuple"] for emit in emits], [["end"], ["of"], ["end"]])
            parent.send(*[tuple_message(str(n), ["word"]) for n in range(500)])
            messages = parent.receive_until({"command": "ack", "id": "499"})
            self.assertEqual(len(messages), 1000)

    def test_json_over_several_lines(self):
        with Parent(SPLIT) as parent:
            parent.receive()
            parent.send_raw(json.dumps(tuple_message("1", ["a"]), indent=2).encode() + b"\nend\n")
            parent.receive_until({"command": "ack", "id": "1"})

    def test_text_outside_ascii_survives(self):
        with Parent(SPLIT) as parent:
            parent.receive()
            parent.send_raw(json.dumps(tuple_message("1", ["gr\u00fcn \U0001f30a"]), ensure_ascii=False).encode() + b"\nend\n")
            words = [message["tuple"] for message in parent.receive_until({"command": "ack", "id": "1"})[:-1]]
            self.assertEqual(words, [["gr\u00fcn"], ["\U0001f30a"]])

    def test_garbage_is_reported_with_its_bytes(self):
        with Parent(SPLIT) as parent:
            parent.receive()
            parent.send_raw(b"{nonsense\nend\n")
            report = parent.receive()
            self.assertEqual(report["command"], "error")
            self.assertIn("{nonsense", report["msg"])
            self.assertEqual(parent.finish()[0], 1)


class Spouts(unittest.TestCase):
    def test_every_command_ends_with_sync(self):
        sync = {"command": "sync"}
        with Parent(SPOUT, conf={"count": 1}) as parent:
            parent.receive()
            emit = {"command": "emit", "id": "id-0", "tuple": ["value"], "need_task_ids": False}
            expected = [
                ({"command": "activate", "id": ""}, [{"command": "log", "msg": "on", "level": 1}]),
                ({"command": "next", "id": ""}, [emit]),
                ({"command": "next", "id": ""}, []),
                ({"command": "ack", "id": "id-0"}, [{"command": "log", "msg": "ack id-0", "level": 2}]),
                ({"command": "fail", "id": "id-0"}, [{"command": "log", "msg": "fail id-0", "level": 3}]),
                ({"command": "deactivate", "id": ""}, [{"command": "log", "msg": "off", "level": 0}]),
            ]
            for command, answers in expected:
                parent.send(command)
                self.assertEqual(parent.receive_until(sync), answers + [sync], command)

    def test_an_unknown_command_is_an_error(self):
        with Parent(SPOUT, conf={"count": 0}) as parent:
            parent.receive()
            parent.send({"command": "dance"})
            self.assertIn("dance", parent.receive()["msg"])
            self.assertEqual(parent.finish()[0], 1)


class Bolts(unittest.TestCase):
    def test_basic_bolt_anchors_and_acks(self):
        with Parent(SPLIT) as parent:
            parent.receive()
            parent.send(tuple_message("77", ["two words"]))
            self.assertEqual(
                parent.receive_until({"command": "ack", "id": "77"})[:-1],
                [
                    {"command": "emit", "anchors": ["77"], "tuple": [word], "need_task_ids": False}
                    for word in ("two", "words")
                ],
            )

    def test_bolt_anchors_streams_tasks_ack_and_fail_as_told(self):
        source = """
            from stormkeeper import Bolt
            class Explicit(Bolt):
                def process(self, tup):
                    self.emit([1, None, {"k": 2.5}], stream="other", anchors=[tup, "9"])
                    self.emit((self.value(tup, "text"),), direct_task=12)
                    self.ack(tup) if tup.values[0] else self.fail(tup)
            Explicit().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("5", [1, "t"]))
            self.assertEqual(
                parent.receive_until({"command": "ack", "id": "5"})[:-1],
                [
                    {
                        "command": "emit",
                        "anchors": ["5", "9"],
                        "tuple": [1, None, {"k": 2.5}],
                        "stream": "other",
                        "need_task_ids": False,
                    },
                    {"command": "emit", "tuple": ["t"], "task": 12, "need_task_ids": False},
                ],
            )
            parent.send(tuple_message("6", [0, "u"]))
            parent.receive_until({"command": "fail", "id": "6"})

    def test_tuples_that_arrive_before_the_task_ids_are_kept_in_order(self):
        source = """
            from stormkeeper import Bolt
            class Ask(Bolt):
                def process(self, tup):
                    self.log("%s went to %r" % (tup.id, self.emit(tup.values, need_task_ids=True)))
            Ask().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", ["a"]), tuple_message("2", ["b"]))
            self.assertTrue(parent.receive()["need_task_ids"])
            parent.send(tuple_message("3", ["c"]), [3, 12], tuple_message("4", ["d"]))
            heard = []
            for answer in ([4], [5], [6]):
                heard += [parent.receive()["msg"], parent.receive()["tuple"]]
                parent.send(answer)
            heard.append(parent.receive()["msg"])
            self.assertEqual(
                heard,
                ["1 went to [3, 12]", ["b"], "2 went to [4]", ["c"], "3 went to [5]", ["d"], "4 went to [6]"],
            )

    def test_heartbeats_are_synced_and_never_acked(self):
        with Parent(SPLIT) as parent:
            parent.receive()
            parent.send(tuple_message("8", [], comp=None, stream="__heartbeat", task=-1), tuple_message("9", [""]))
            self.assertEqual([parent.receive(), parent.receive()], [{"command": "sync"}, {"command": "ack", "id": "9"}])

    def test_ticks_are_recognised(self):
        source = """
            from stormkeeper import BasicBolt, is_tick
            class Clock(BasicBolt):
                def process(self, tup):
                    self.log(is_tick(tup))
            Clock().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", [1], comp="__system", stream="__tick", task=-1), tuple_message("2", [""]))
            logs = [message["msg"] for message in parent.receive_until({"command": "ack", "id": "2"}) if "msg" in message]
            self.assertEqual(logs, ["True", "False"])

    def test_a_slow_bolt_shows_progress_while_tuples_are_pending(self):
        source = """
            import os, time
            from stormkeeper import BasicBolt
            class Slow(BasicBolt):
                def process(self, tup):
                    if tup.values[0] == "wait":
                        while not os.path.exists(tup.values[1]):
                            time.sleep(0.01)
                    else:
                        time.sleep(0.05)
            Slow().run()
        """
        with Parent(source) as parent:
            parent.receive()
            gate = os.path.join(parent.directory.name, "gate")
            parent.send(tuple_message("1", ["go"]), tuple_message("2", ["wait", gate]))
            self.assertEqual(parent.receive(), {"command": "ack", "id": "1"})
            open(gate, "w").close()
            self.assertEqual(parent.receive(), {"command": "ack", "id": "2"})

    def test_errors_are_reported_and_the_bolt_goes_on(self):
        source = """
            from stormkeeper import BasicBolt
            class Complain(BasicBolt):
                def process(self, tup):
                    self.report_error("cannot use %r" % tup.values)
            Complain().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", ["x"]))
            self.assertEqual(
                parent.receive_until({"command": "ack", "id": "1"})[0],
                {"command": "error", "msg": "cannot use ['x']"},
            )

    def test_metrics_are_counted_here_and_sent_together_at_the_end(self):
        source = """
            import stormkeeper
            lines = stormkeeper.counter("lines")
            lines.add(2)
            class Measure(stormkeeper.BasicBolt):
                def process(self, tup):
                    lines.add()
                    stormkeeper.meter("requests").mark(3)
                    stormkeeper.gauge("height").set(tup.values[0])
                    stormkeeper.histogram("sizes").update(tup.values[0])
                    stormkeeper.timer("lookups").update(tup.values[0])
                    with stormkeeper.timer("blocks").time():
                        pass
                    assert stormkeeper.counter("lines") is lines
            Measure().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", [7]), tuple_message("2", [8.5]))
            self.assertEqual(parent.receive(), {"command": "ack", "id": "1"})
            self.assertEqual(parent.receive(), {"command": "ack", "id": "2"})
            status, rest, _ = parent.finish()
            self.assertEqual(status, 0)
            messages = [json.loads(part) for part in rest.split(b"\nend\n")[:-1]]
            metrics = {message["name"]: message["params"] for message in messages}
            blocks = metrics.pop("blocks")["timer"]
            self.assertTrue(len(blocks) == 2 and all(0 <= micros < 1e6 for micros in blocks), blocks)
            self.assertEqual(
                metrics,
                {
                    "lookups": {"timer": [7e6, 8.5e6]},
                    "lines": {"counter": 4},
                    "requests": {"meter": 6},
                    "height": {"gauge": 8.5},
                    "sizes": {"histogram": [7.0, 8.5]},
                },
            )

    def test_metrics_are_sent_while_it_runs_and_many_values_at_once(self):
        source = """
            import stormkeeper, time
            class Measure(stormkeeper.BasicBolt):
                def process(self, tup):
                    for n in range(tup.values[0]):
                        stormkeeper.histogram("sizes").update(n)
                    time.sleep(1.1)
            Measure().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", [1001]))
            many = parent.receive()
            self.assertEqual(many["params"]["histogram"], list(range(1000)))
            self.assertEqual(parent.receive(), {"command": "ack", "id": "1"})
            parent.send(tuple_message("2", [0]))
            self.assertEqual(parent.receive()["params"], {"histogram": [1000]})

    def test_values_that_make_no_sense_are_refused(self):
        source = """
            import stormkeeper
            class Measure(stormkeeper.BasicBolt):
                def process(self, tup):
                    for wrong in [
                        lambda: stormkeeper.counter("n").add(-1),
                        lambda: stormkeeper.counter("n").add(0.5),
                        lambda: stormkeeper.gauge("g").set(float("nan")),
                        lambda: stormkeeper.histogram("h").update("high"),
                        lambda: stormkeeper.counter(""),
                    ]:
                        try:
                            wrong()
                        except (TypeError, ValueError):
                            continue
                        raise AssertionError("it was accepted")
            Measure().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", ["x"]))
            self.assertEqual(parent.receive(), {"command": "ack", "id": "1"})
            status, rest, _ = parent.finish()
            self.assertEqual((status, rest), (0, b""))

    def test_an_exception_is_reported_with_its_traceback_and_ends_the_process(self):
        source = """
            from stormkeeper import BasicBolt
            class Break(BasicBolt):
                def process(self, tup):
                    self.emit(["before"])
                    raise ValueError("no such lamp")
            Break().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", ["x"]))
            self.assertEqual(parent.receive()["tuple"], ["before"])
            report = parent.receive()
            self.assertEqual(report["command"], "error")
            self.assertIn("Traceback", report["msg"])
            self.assertIn("ValueError: no such lamp", report["msg"])
            status, rest, errors = parent.finish()
            self.assertEqual((status, rest), (1, b""))
            self.assertIn("ValueError: no such lamp", errors)

    def test_a_string_instead_of_a_list_is_refused(self):
        source = """
            from stormkeeper import BasicBolt
            class Sloppy(BasicBolt):
                def process(self, tup):
                    self.emit("word")
            Sloppy().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", ["x"]))
            self.assertIn("emit takes a list", parent.receive()["msg"])


RELIABLE = """
    from stormkeeper import Record, ReliableSpout
    class Source(ReliableSpout):
        attempts_max = 3
        retry_seconds = 0.05
        ahead_max = 4
        def initialize(self, conf, context):
            self.next = conf.get("from", 1)
            self.last = self.next + conf["count"] - 1
        def read(self):
            for _ in range(2):
                if self.next <= self.last:
                    yield Record(self.next, ["line %d" % self.next], stream=None if self.next % 2 else "even")
                    self.next += 1
        def save(self, id):
            self.log("saved %d, %d pending" % (id, self.n_pending))
    Source().run()
"""


class ReliableSpouts(unittest.TestCase):
    def turn(self, parent, *commands):
        """Sends commands; returns their answers: ids of emits, and texts of logs and errors."""
        heard = []
        for command in commands:
            parent.send(command)
            while True:
                message = parent.receive()
                if message["command"] == "sync":
                    break
                heard.append(message["id"] if message["command"] == "emit" else message["msg"])
        return heard

    def test_records_are_emitted_once_each_with_their_values_and_stream(self):
        with Parent(RELIABLE, conf={"count": 2}) as parent:
            parent.receive()
            parent.send({"command": "next", "id": ""})
            emits = [parent.receive(), parent.receive()]
            expected = [
                {"command": "emit", "id": 1, "tuple": ["line 1"], "need_task_ids": False},
                {"command": "emit", "id": 2, "tuple": ["line 2"], "stream": "even", "need_task_ids": False},
            ]
            self.assertEqual(emits, expected)
            self.assertEqual(parent.receive(), {"command": "sync"})
            self.assertEqual(self.turn(parent, {"command": "next", "id": ""}), [])

    def test_the_position_before_the_oldest_open_record_is_saved(self):
        next, ack = {"command": "next", "id": ""}, lambda id: {"command": "ack", "id": id}
        with Parent(RELIABLE, conf={"count": 10}) as parent:
            parent.receive()
            self.assertEqual(self.turn(parent, next, next, next), [1, 2, 3, 4], "ahead_max is 4")
            self.assertEqual(self.turn(parent, ack(2), ack(3)), [], "1 is open")
            self.assertEqual(self.turn(parent, next), [], "still 4 from the oldest to the newest")
            self.assertEqual(self.turn(parent, ack(1)), ["saved 3, 1 pending"])
            self.assertEqual(self.turn(parent, next, ack(3), ack("unknown")), [5, 6], "acks of closed records are nothing")
            self.assertEqual(self.turn(parent, ack(4)), ["saved 4, 2 pending"])

    def test_a_failed_record_is_emitted_again_later_each_time_and_given_up_at_last(self):
        next, fail = {"command": "next", "id": ""}, {"command": "fail", "id": 1}
        with Parent(RELIABLE, conf={"count": 1}) as parent:
            parent.receive()
            self.assertEqual(self.turn(parent, next), [1])
            for least in (0.05, 0.1):
                began = time.monotonic()
                self.assertEqual(self.turn(parent, fail), [])
                again = []
                while not again and time.monotonic() - began < DEADLINE_SECONDS:
                    again = self.turn(parent, next)
                self.assertEqual(again, [1])
                self.assertGreaterEqual(time.monotonic() - began, least)
            self.assertEqual(self.turn(parent, fail), ["gave up record 1 after 3 attempts", "saved 1, 0 pending"])
            self.assertEqual(self.turn(parent, fail, next), [])

    def test_an_id_that_is_pending_already_is_an_error(self):
        source = RELIABLE.replace("self.next += 1", "pass")
        with Parent(source, conf={"count": 1}) as parent:
            parent.receive()
            parent.send({"command": "next", "id": ""})
            parent.receive()
            self.assertIn("has the id of a record that is not done", parent.receive()["msg"])


class Stdout(unittest.TestCase):
    def test_what_a_component_prints_goes_to_stderr(self):
        source = """
            print("early")
            import os, subprocess, sys
            from stormkeeper import BasicBolt
            class Chatty(BasicBolt):
                def process(self, tup):
                    print("printed")
                    os.write(1, b"written\\n")
                    subprocess.run(["sh", "-c", "echo from a child; cat"], check=True)
            Chatty().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", ["x"]))
            self.assertEqual(parent.receive(), {"command": "ack", "id": "1"})
            status, rest, errors = parent.finish()
            self.assertEqual((status, rest), (0, b""))
            self.assertEqual(errors.splitlines(), ["early", "printed", "written", "from a child"])

    def test_a_component_reserves_stdio_when_the_module_is_imported(self):
        # Text without Python's buffer, and a child that would read the handshake.
        source = """
            import stormkeeper, os, subprocess, sys
            os.write(1, b"written before run\\n")
            subprocess.run(["cat"], check=True)
            subprocess.run([sys.executable, "-c", "import stormkeeper; print('printed by a child')"], check=True)
            class Quiet(stormkeeper.BasicBolt):
                def process(self, tup):
                    pass
            Quiet().run()
        """
        with Parent(source, variables={"STORMKEEPER_COMPONENT": "quiet"}) as parent:
            self.assertIn("pid", parent.receive())
            parent.send(tuple_message("1", ["x"]))
            self.assertEqual(parent.receive(), {"command": "ack", "id": "1"})
            status, rest, errors = parent.finish()
            self.assertEqual((status, rest), (0, b""))
            self.assertEqual(errors.splitlines(), ["written before run", "printed by a child"])

    def test_a_program_that_imports_the_module_keeps_its_stdout(self):
        environment = {**os.environ, "PYTHONPATH": str(ADAPTER), "PYTHONDONTWRITEBYTECODE": "1"}
        environment.pop("STORMKEEPER_COMPONENT", None)
        script = "import stormkeeper; print('kept')"
        printed = subprocess.run([sys.executable, "-c", script], env=environment, stdout=subprocess.PIPE, check=True)
        self.assertEqual(printed.stdout, b"kept\n")


class InBatches:
    """Repeats tests with a worker that offers batches: a component behaves as without."""

    def setUp(self):
        Parent.dialects = [BATCHES]

    def tearDown(self):
        Parent.dialects = None


class HandshakeInBatches(InBatches, Handshake):
    pass


class FramingInBatches(InBatches, Framing):
    pass


class SpoutsInBatches(InBatches, Spouts):
    pass


class BoltsInBatches(InBatches, Bolts):
    pass


class ReliableSpoutsInBatches(InBatches, ReliableSpouts):
    pass


class StdoutInBatches(InBatches, Stdout):
    pass


class Batches(InBatches, unittest.TestCase):
    def test_batches_are_accepted_only_if_they_are_offered(self):
        for dialects, expected in [([BATCHES, "other"], BATCHES), (["other"], None), (None, None)]:
            Parent.dialects = dialects
            with Parent(SPLIT) as parent:
                self.assertEqual(parent.receive_whole().get("dialect"), expected, dialects)

    def test_many_tuples_share_a_message(self):
        with Parent(SPLIT) as parent:
            parent.receive()
            parent.send(*[tuple_message(str(n), ["a b" if n % 2 else ""]) for n in range(100)])
            wholes, messages = [], []
            while {"command": "ack", "id": "99"} not in messages:
                wholes.append(parent.receive_whole())
                messages += unpacked(wholes[-1])
            # One, unless this machine is so busy that the tuples take longer than output may wait.
            self.assertLess(len(wholes), 20, wholes)
            self.assertEqual([run[:2] for run in wholes[0]["emits"]], [[None, 1]])
            self.assertEqual(wholes[0]["settled"][0][1][0][0], 0, "acks are ranges")
            emits = [(message["anchors"], message["tuple"]) for message in messages if "tuple" in message]
            self.assertEqual(emits, [([str(n)], [word]) for n in range(1, 100, 2) for word in "ab"])
            acks = [message["id"] for message in messages if message["command"] == "ack"]
            self.assertEqual(acks, [str(n) for n in range(100)])

    def test_emits_keep_their_order_over_streams_and_kinds_of_values(self):
        source = """
            from stormkeeper import BasicBolt
            class Mixed(BasicBolt):
                def process(self, tup):
                    row = [tup.values[0]]
                    shared = {"n": [1]}
                    self.emit(row)
                    row[0] = "changed later"
                    self.emit([2], stream="other")
                    self.emit([3, 3.5])
                    self.emit([4, shared])
                    shared["n"].append("changed later")
                    self.emit([])
                    self.emit([5], direct_task=12)
                    self.emit([6], anchors=[])
                    self.emit((7,))
                    self.log("logged")
                    self.emit([10 ** 30])
                    self.emit(["\\U0001f600 \\u00fc"])
            Mixed().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("5", ["x"]), tuple_message("6", ["y"]))
            for id, first in [("5", "x"), ("6", "y")]:
                emit = lambda *values, **more: {"command": "emit", "anchors": [id], "tuple": list(values), "need_task_ids": False, **more}
                expected = [
                    emit(first),
                    emit(2, stream="other"),
                    emit(3, 3.5),
                    emit(4, {"n": [1]}),
                    emit(),
                    emit(5, task=12),
                    {"command": "emit", "tuple": [6], "need_task_ids": False},
                    emit(7),
                    {"command": "log", "msg": "logged", "level": 2},
                    emit(10**30),
                    emit("\U0001f600 \u00fc"),
                ]
                heard = []
                while len(heard) < len(expected):
                    message = parent.receive()
                    heard += [message] if message != {"command": "ack", "id": "5"} else []
                self.assertEqual(heard, expected)
            self.assertEqual(parent.receive(), {"command": "ack", "id": "6"})

    def test_a_value_that_is_not_json_is_an_error_where_it_is_emitted(self):
        source = """
            from stormkeeper import BasicBolt
            class Odd(BasicBolt):
                def process(self, tup):
                    for odd in (float("nan"), float("inf"), {"k": object()}, b"bytes"):
                        try:
                            self.emit([odd])
                        except (TypeError, ValueError) as error:
                            self.emit([type(error).__name__])
            Odd().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(tuple_message("1", ["x"]))
            emits = parent.receive_until({"command": "ack", "id": "1"})[:-1]
            names = ["ValueError", "ValueError", "TypeError", "TypeError"]
            self.assertEqual([emit["tuple"] for emit in emits], [[name] for name in names])

    def test_values_that_nest_deeply_and_large_batches_are_sent_as_single_messages(self):
        source = """
            from stormkeeper import BasicBolt
            class Deep(BasicBolt):
                def process(self, tup):
                    value = 1
                    for _ in range(tup.values[0]):
                        value = [value]
                    self.emit(["x" * tup.values[1], value])
                    self.emit(["second"])
            Deep().run()
        """
        for n_lists, n_bytes in [(3, 1), (100, 1), (0, 5 << 20)]:
            with Parent(source) as parent:
                parent.receive()
                parent.send(tuple_message("1", [n_lists, n_bytes]))
                whole = parent.receive_whole()
                self.assertEqual(whole["command"], "batch" if n_lists == 3 else "emit", (n_lists, n_bytes))
                parent.messages.extend(unpacked(whole) if whole["command"] == "batch" else [whole])
                first, second, ack = parent.receive_until({"command": "ack", "id": "1"})
                self.assertEqual((len(first["tuple"][0]), json.dumps(first["tuple"][1]).count("[")), (n_bytes, n_lists))
                self.assertEqual((second["tuple"], second["anchors"], first["anchors"]), (["second"], ["1"], ["1"]))

    def test_a_bolt_that_fails_has_acked_what_it_processed_and_no_more(self):
        source = """
            from stormkeeper import BasicBolt
            class Break(BasicBolt):
                def process(self, tup):
                    self.emit(tup.values)
                    if tup.values[0] == "bad":
                        raise ValueError("no such lamp")
            Break().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(*[tuple_message(str(n), [value]) for n, value in enumerate(["a", "b", "bad", "c"])])
            heard = [parent.receive() for _ in range(6)]
            of = lambda command, key: [message[key] for message in heard if message["command"] == command]
            self.assertEqual(of("emit", "tuple"), [["a"], ["b"], ["bad"]])
            self.assertEqual((of("ack", "id"), heard[5]["command"]), (["0", "1"], "error"))
            self.assertIn("no such lamp", heard[5]["msg"])
            self.assertEqual(parent.finish()[0], 1)

    def test_acks_are_not_delayed_by_a_slow_tuple_behind_them_in_the_batch(self):
        source = """
            import os, time
            from stormkeeper import BasicBolt
            class Slow(BasicBolt):
                def process(self, tup):
                    if tup.values[0] == "wait":
                        self.heartbeat()
                        while not os.path.exists(tup.values[1]):
                            time.sleep(0.01)
                    else:
                        self.emit(tup.values)
            Slow().run()
        """
        with Parent(source) as parent:
            parent.receive()
            gate = os.path.join(parent.directory.name, "gate")
            parent.send(tuple_message("1", ["go", ""]), tuple_message("2", ["wait", gate]), tuple_message("3", ["go", ""]))
            self.assertEqual(parent.receive()["tuple"], ["go", ""])
            self.assertEqual([parent.receive(), parent.receive()], [{"command": "ack", "id": "1"}, {"command": "sync"}])
            open(gate, "w").close()
            parent.receive_until({"command": "ack", "id": "3"})

    def test_a_silent_bolt_shows_between_two_tuples_of_a_batch_that_it_is_alive(self):
        source = """
            import time
            from stormkeeper import Bolt
            class Silent(Bolt):
                def process(self, tup):
                    time.sleep(0.3)
            Silent().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send(*[tuple_message(str(n), ["x"]) for n in range(100)])
            self.assertEqual(parent.receive_whole(), {"command": "batch"})
            self.assertEqual(parent.receive_whole(), {"command": "batch"})

    def test_outcomes_of_a_spout_come_together_and_in_order(self):
        with Parent(SPOUT, conf={"count": 0}) as parent:
            parent.receive()
            parent.send({"command": "batch", "outcomes": [["ack", ["a", "b"]], ["fail", ["c"]], ["ack", ["d"]]]})
            heard = parent.receive_until({"command": "sync"})
            self.assertEqual([message["msg"] for message in heard[:-1]], ["ack a", "ack b", "fail c", "ack d"])

    def test_a_spout_emits_with_and_without_ids_in_one_message(self):
        source = """
            from stormkeeper import Spout
            class Source(Spout):
                def next_tuple(self):
                    state = {"n": 1}
                    self.emit(["a"], id=7)
                    self.emit(["b"])
                    self.emit(["c"], id=state)
                    self.emit(["e"], id="y")
                    state["n"] = 2
                    self.emit(["d"], stream="s", id="x")
            Source().run()
        """
        with Parent(source) as parent:
            parent.receive()
            parent.send({"command": "next", "id": ""})
            emits = [["a", "b", "c", "e"], [None, 4], [7, None, {"n": 1}, "y"]], [["d"], [None, 1], ["x"]]
            self.assertEqual(
                parent.receive_whole(),
                {
                    "command": "batch",
                    "emits": [[stream, 1, *emit] for stream, emit in zip([None, "s"], emits)],
                    "settled": [],
                },
            )
            self.assertEqual(parent.receive(), {"command": "sync"})

    def test_a_spout_is_called_until_it_emits_nothing_or_has_no_room(self):
        source = """
            from stormkeeper import Spout
            class Source(Spout):
                left = 8
                def next_tuple(self):
                    if self.left:
                        self.left -= 1
                        self.emit([self.left])
            Source().run()
        """
        with Parent(source) as parent:
            parent.receive()
            heard, rooms, message = [], [3, 1], {"empty": False}
            while not message["empty"]:
                room = rooms.pop(0) if rooms else 100
                parent.send({"command": "next", "room": room})
                n_before, message = len(heard), parent.receive()
                while message["command"] == "emit":
                    heard.append(message["tuple"][0])
                    message = parent.receive()
                n_emits = len(heard) - n_before
                self.assertEqual(message["calls"], n_emits + message["empty"], message)
                self.assertTrue(0 < message["calls"] and n_emits <= room, message)
            self.assertEqual(heard, [7, 6, 5, 4, 3, 2, 1, 0])

    def test_a_spout_whose_calls_take_long_is_called_once_for_each_next(self):
        source = """
            import time
            from stormkeeper import Spout
            class Source(Spout):
                n = 0
                def next_tuple(self):
                    self.n += 1
                    if self.n == 2:
                        time.sleep(0.03)
                    self.emit([self.n])
            Source().run()
        """
        with Parent(source) as parent:
            parent.receive()
            n_calls = []
            for _ in range(6):
                parent.send({"command": "next", "room": 1000})
                n_calls.append(parent.receive_until_sync()["calls"])
            self.assertEqual(n_calls[2:], [1, 1, 1, 1], n_calls)

    def test_tuples_look_the_same_in_batches(self):
        source = """
            import copy, pickle
            from stormkeeper import Bolt
            class Look(Bolt):
                def process(self, tup):
                    assert {tup: 1}[tup] == 1 and tup.values is tup.values
                    for one in (tup, copy.copy(tup), pickle.loads(pickle.dumps(tup))):
                        self.emit([repr(one), type(one).__name__, self.value(one, "text")], anchors=[one])
                    self.ack(tup)
            Look().run()
        """
        shown = "Tuple(id='5', component='lines', stream='default', task=1, values=[1, 't'])"
        for dialects in (None, [BATCHES]):
            Parent.dialects = dialects
            with Parent(source) as parent:
                parent.receive()
                parent.send(tuple_message("5", [1, "t"]))
                emits = parent.receive_until({"command": "ack", "id": "5"})[:-1]
                self.assertEqual([(emit["tuple"], emit["anchors"]) for emit in emits], [([shown, "Tuple", "t"], ["5"])] * 3)


if __name__ == "__main__":
    unittest.main()
