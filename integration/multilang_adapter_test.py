"""Tests of crates/worker/src/multilang/stormkeeper.py against a scripted parent.

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

ADAPTER = pathlib.Path(__file__).resolve().parent.parent / "crates" / "worker" / "src" / "multilang"
# Generous, so that only a hang can reach it.
DEADLINE_SECONDS = 30
CONTEXT = {
    "taskid": 4,
    "task->component": {"1": "lines", "4": "mine", "3": "mine", "12": "mine"},
    "source->stream->fields": {"lines": {"default": ["number", "text"]}},
}


class Parent:
    """The worker's side of the protocol, one message at a time."""

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
        self.send({"conf": conf or {}, "pidDir": self.pid_dir, "context": context or CONTEXT})

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
        self.send_raw(b"".join(json.dumps(message).encode() + b"\nend\n" for message in messages))

    def receive(self):
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
            parent.send(tuple_message("5", [1, "t"]), tuple_message("6", [0, "u"]))
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


if __name__ == "__main__":
    unittest.main()
