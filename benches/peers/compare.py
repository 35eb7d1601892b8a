#!/usr/bin/env python3
"""Runs the same job on Apache Storm and on Stormkeeper, in turn, on one machine and one ZooKeeper.

    benches/peers/compare.py [--rounds N] [--seconds S] [JOB ...]

The job: a spout of fresh numbers and texts of 20 bytes, a bolt that emits each anew, and a bolt that sums
the numbers; throughput.rs for Stormkeeper, storm/Throughput.java for Storm. Each component is one task. The
sum is checked. Storm comes from the package registry that Maven is set up for; without Maven and a JDK,
only Stormkeeper is measured, and a line says so.

It is not a test: no figure is a failure. The figures of docs/benchmarks.md come from it.
"""

import argparse
import json
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time

HOME = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PEERS = os.path.join(HOME, "benches", "peers")
CACHE = os.path.join(os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache")), "stormkeeper")
STORM_VERSION = "2.8.4"
STORM = os.path.join(CACHE, f"storm-{STORM_VERSION}")

# Seconds at the begin that do not count: the compiler of the Java machine is at work.
WARM_UP = 6
STORM_TUNED = {
    "topology.spout.recvq.skips": 8,
    "topology.producer.batch.size": 500,
    "topology.executor.receive.buffer.size": 50000,
    "topology.disable.loadaware.messaging": "true",
    "topology.stats.sample.rate": 0.0005,
}
STORM_TUNED_TWO = {"topology.producer.batch.size": 100, "topology.transfer.batch.size": 100}
# name: workers, tracked, rate (0 for as much as it can), settings of Storm, settings of Stormkeeper
JOBS = {
    "one": (1, False, 0, {}, {}),
    "one-tuned": (1, False, 0, STORM_TUNED, {}),
    "one-tracked": (1, True, 0, {}, {}),
    "one-tracked-tuned": (1, True, 0, {**STORM_TUNED, "topology.max.spout.pending": 50000},
                          {"topology.max.spout.pending": 50000}),
    "two": (2, False, 0, {}, {}),
    "two-tuned": (2, False, 0, STORM_TUNED_TWO, {}),
    "two-tracked": (2, True, 0, {}, {}),
    "two-tracked-tuned": (2, True, 0, {**STORM_TUNED_TWO, "topology.max.spout.pending": 5000},
                          {"topology.max.spout.pending": 50000}),
    "one-latency": (1, False, 20000, {}, {}),
    "two-latency": (2, False, 20000, {}, {}),
    "one-latency-tracked": (1, True, 20000, {}, {}),
    "two-latency-tracked": (2, True, 20000, {}, {}),
}


def say(text):
    print(text, flush=True)


def run(*command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def wait(what, check, timeout=120.0, pause=0.2):
    start = time.monotonic()
    while time.monotonic() - start < timeout:
        found = check()
        if found:
            return found
        time.sleep(pause)
    sys.exit(f"timed out after {timeout} s waiting until {what}")


def free_port():
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        return bound.getsockname()[1]


def numbers(path):
    try:
        with open(path, encoding="utf-8") as file:
            lines = file.read().split("\n")[:-1]
    except FileNotFoundError:
        return []
    return [[int(word) for word in line.split()] for line in lines]


class Stormkeeper:
    """A cluster of scripts/cluster with a directory of its own: one nimbus, one supervisor."""

    name = "Stormkeeper"

    def __init__(self, work):
        self.environment = {**os.environ, "STORMKEEPER_CLUSTER_DIR": os.path.join(work, "cluster")}
        self.program = os.path.join(work, "throughput")
        target = os.environ.get("CARGO_TARGET_DIR", os.path.join(HOME, "target"))
        lib = "source scripts/lib.sh; set_rocksdb_environment; use_pinned_toolchain; "
        build = "cargo build --release --locked -p stormkeeper-topology --example throughput >&2; " \
            "cargo metadata --format-version 1 --no-deps --locked"
        built = run("bash", "-c", lib + build, cwd=HOME)
        target = json.loads(built)["target_directory"]
        shutil.copy(os.path.join(target, "release", "examples", "throughput"), self.program)
        self.cluster("up", "--nimbus", "1", "--supervisors", "1")
        with open(os.path.join(work, "cluster", "nimbus-1", "storm.yaml"), encoding="utf-8") as file:
            lines = dict(line.split(": ", 1) for line in file.read().splitlines() if ": " in line)
        self.zookeeper_port = int(lines["storm.zookeeper.port"])

    def cluster(self, *args):
        run(os.path.join(HOME, "scripts", "cluster"), *args, env=self.environment)

    def sk(self, *args):
        return run(os.path.join(HOME, "scripts", "sk"), *args, env=self.environment)

    def start(self, name, settings):
        options = [part for key, value in settings.items() for part in ("-c", f"{key}={value}")]
        self.sk("submit", self.program, "--name", name, "--wait", *options)

    def stop(self, name):
        self.sk("kill", name, "-w", "0s")
        wait("the topology is gone", lambda: name not in self.sk("list"))

    def end(self):
        self.cluster("down", "--purge")


class Storm:
    """Daemons of Storm as processes of this program, beside the ZooKeeper of the other cluster."""

    name = "Storm"

    def __init__(self, work, zookeeper_port):
        assemble_storm()
        self.home, self.processes = os.path.join(work, "storm"), []
        os.makedirs(os.path.join(self.home, "logs"))
        for name in ("lib", "lib-worker"):
            os.symlink(os.path.join(STORM, "lib"), os.path.join(self.home, name))
        for name in ("conf", "log4j2", "extlib", "extlib-daemon"):
            os.makedirs(os.path.join(self.home, name))
        for name in ("cluster", "worker"):
            with open(os.path.join(self.home, "log4j2", name + ".xml"), "w", encoding="utf-8") as file:
                file.write('<configuration><appenders><Console name="A"/></appenders>'
                           '<loggers><root level="warn"><appender-ref ref="A"/></root></loggers></configuration>')
        nimbus, slots = free_port(), [free_port() for _ in range(4)]
        with open(os.path.join(self.home, "conf", "storm.yaml"), "w", encoding="utf-8") as file:
            json.dump({
                "storm.zookeeper.servers": ["127.0.0.1"], "storm.zookeeper.port": zookeeper_port,
                "storm.zookeeper.root": "/storm-peer", "storm.local.dir": os.path.join(self.home, "local"),
                "storm.local.hostname": "127.0.0.1", "nimbus.seeds": ["127.0.0.1"], "nimbus.thrift.port": nimbus,
                "supervisor.slots.ports": slots, "storm.log4j2.conf.dir": os.path.join(self.home, "log4j2"),
                "supervisor.thrift.port": free_port(),
                "worker.heap.memory.mb": 1024,
            }, file)
        self.jar = os.path.join(self.home, "throughput.jar")
        classes = os.path.join(self.home, "classes")
        run("javac", "-cp", os.path.join(STORM, "lib", "*"), "-d", classes,
            os.path.join(PEERS, "storm", "Throughput.java"))
        run("jar", "cf", self.jar, "-C", classes, ".")
        self.launch("org.apache.storm.daemon.nimbus.Nimbus")
        self.launch("org.apache.storm.daemon.supervisor.Supervisor")
        wait("Storm's nimbus listens", lambda: is_open(nimbus))

    def java(self, *last):
        path = f"{STORM}/lib/*:{self.home}/conf"
        return ["java", "-server", f"-Dstorm.home={self.home}", f"-Dstorm.log.dir={self.home}/logs",
                "-Dstorm.conf.file=", f"-Dlog4j.configurationFile={self.home}/log4j2/cluster.xml", "-cp", path, *last]

    def launch(self, daemon):
        with open(os.path.join(self.home, "logs", daemon.rsplit(".", 1)[1] + ".out"), "wb") as log:
            self.processes.append(subprocess.Popen(self.java(daemon), stdout=log, stderr=log, cwd=self.home))

    def start(self, name, settings):
        command = self.java("Throughput", name, *(f"{key}={value}" for key, value in settings.items()))
        at = command.index("-cp") + 1
        command[at] += ":" + self.jar
        command.insert(1, f"-Dstorm.jar={self.jar}")
        run(*command, cwd=self.home)

    def stop(self, name):
        command = self.java("org.apache.storm.command.KillTopology", name, "-w", "0")
        run(*command, cwd=self.home)
        wait("Storm's workers are gone", lambda: not self.workers())

    def workers(self):
        return [pid for pid in map(int, filter(str.isdigit, os.listdir("/proc"))) if self.is_worker(pid)]

    def is_worker(self, pid):
        try:
            with open(f"/proc/{pid}/cmdline", "rb") as file:
                line = file.read()
        except OSError:
            return False
        return self.home.encode() in line and b"org.apache.storm.daemon.worker.Worker" in line

    def end(self):
        for process in reversed(self.processes):
            process.kill()
            process.wait()
        for pid in self.workers():
            os.kill(pid, signal.SIGKILL)


def is_open(port):
    with socket.socket() as connection:
        return connection.connect_ex(("127.0.0.1", port)) == 0


def assemble_storm():
    """Has Maven copy the jars that the daemons and workers of Storm need."""
    if os.path.isdir(os.path.join(STORM, "lib")):
        return
    with tempfile.TemporaryDirectory() as work:
        repository = f"-Dmaven.repo.local={os.path.join(CACHE, 'maven')}"
        # The parent of Storm's own files is not published beside them; nothing in it is needed here.
        parent = os.path.join(PEERS, "storm", "parent.xml")
        run("mvn", "-q", "-B", repository, "install:install-file", f"-Dfile={parent}", f"-DpomFile={parent}",
            "-Dpackaging=pom", cwd=work)
        shutil.copy(os.path.join(PEERS, "storm", "pom.xml"), work)
        run("mvn", "-q", "-B", repository, "dependency:copy", cwd=work)
        os.makedirs(STORM)
        shutil.move(os.path.join(work, "lib"), os.path.join(STORM, "lib"))


def measure(cluster, job, seconds):
    """Returns the rate, or the quantiles of the time, of one run; checks its sum."""
    workers, tracked, rate, of_storm, of_stormkeeper = JOBS[job]
    settings = {"topology.workers": workers, "bench.rate": rate, "bench.tracked": str(tracked).lower(),
                "bench.seconds": seconds + WARM_UP}
    if not tracked:
        settings["topology.acker.executors"] = 0
    settings.update(of_storm if cluster.name == "Storm" else of_stormkeeper)
    with tempfile.TemporaryDirectory() as directory:
        settings["bench.dir"] = directory
        emitted, received = (os.path.join(directory, name) for name in ("emitted", "received"))
        cluster.start("throughput", settings)
        (n_emitted, total), *_ = wait("the spout is done", lambda: numbers(emitted), seconds + WARM_UP + 180)
        lines = wait("everything has arrived", lambda: [line for line in numbers(received) if line[1] == n_emitted],
                     300)
        everything = numbers(received)
        cluster.stop("throughput")
    if rate == 0 and lines[0][2] != total:
        sys.exit(f"{cluster.name}, {job}: the sum is {lines[0][2]} and should be {total}")
    moving = [line for before, line in zip([None, *everything], everything) if before and line[1] > before[1]]
    counted = [line for line in moving if line[0] >= moving[0][0] + WARM_UP * 10**9]
    if rate:
        return [statistics.median(line[at] for line in counted[:-1]) for at in (3, 4)]
    first, last = counted[0], counted[-2]
    return [(last[1] - first[1]) / (last[0] - first[0]) * 1e9]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("jobs", nargs="*", metavar="JOB", help=", ".join(JOBS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=10)
    options = parser.parse_args()
    for job in options.jobs:
        if job not in JOBS:
            parser.error(f"{job} is none of {', '.join(JOBS)}")
    with tempfile.TemporaryDirectory(prefix="peers-") as work:
        own = Stormkeeper(work)
        clusters = [own]
        try:
            if all(map(shutil.which, ("mvn", "javac", "java"))):
                clusters.append(Storm(work, own.zookeeper_port))
            else:
                say("skipped Storm: it needs Maven (mvn) and a JDK (javac)")
            for job in options.jobs or JOBS:
                results = {cluster.name: [] for cluster in clusters}
                for _ in range(options.rounds):
                    for cluster in clusters:
                        results[cluster.name].append(measure(cluster, job, options.seconds))
                say(line_of(job, results))
        finally:
            for cluster in reversed(clusters):
                cluster.end()


def line_of(job, results):
    def shown(values):
        if len(values[0]) == 1:
            rates = sorted(value[0] for value in values)
            return f"{statistics.median(rates):,.0f}/s ({rates[0]:,.0f} to {rates[-1]:,.0f})"
        p50, p99 = ([value[at] for value in values] for at in (0, 1))
        return f"p50 {statistics.median(p50):,.0f} µs, p99 {statistics.median(p99):,.0f} µs"

    text = f"{job}: " + "; ".join(f"{name} {shown(values)}" for name, values in results.items())
    if len(results) == 2 and len(results["Storm"][0]) == 1:
        own, storm = (statistics.median(value[0] for value in results[name]) for name in ("Stormkeeper", "Storm"))
        text += f"; ratio {own / storm:.1f}"
    return text


if __name__ == "__main__":
    main()
