#!/usr/bin/env python3
"""Measures a cluster started by `scripts/cluster up`; prints one line per figure.

    scripts/cluster up
    python3 benches/cluster.py

It submits its own topologies, kills workers, and cleans up. It is not a test: no figure is a
failure. The figures of docs/benchmarks.md come from it.
"""

import glob
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time

HOME = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
SK = os.path.join(HOME, "scripts", "sk")

# A component that starts in a millisecond and does nothing but respond to the handshake and to
# every `next`.
CHILD = r"""#!/bin/sh
printf '{"pid": %s}\nend\n' $$
while read -r line; do
  case $line in
    *'"next"'*|*'"activate"'*|*'"deactivate"'*|*'"ack"'*|*__heartbeat*) answer=1 ;;
    end) [ "${answer:-0}" = 1 ] && printf '{"command":"sync"}\nend\n'; answer=0 ;;
  esac
done
"""


def sk(*args):
    done = subprocess.run([SK, *args], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(f"stormkeeper {' '.join(args)}: {done.stderr}")
    return done.stdout


def show(name):
    return json.loads(sk("show", name, "--json"))


def wait(what, check, timeout=60.0, pause=0.002):
    start = time.monotonic()
    while time.monotonic() - start < timeout:
        found = check()
        if found:
            return found
        time.sleep(pause)
    sys.exit(f"timed out after {timeout} s waiting until {what}")


def workers(topology_id):
    """Returns the pids of the topology's workers by port."""
    found = {}
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            args = open(path, "rb").read().split(b"\0")
            if b"--spec" not in args:
                continue
            spec = json.load(open(args[args.index(b"--spec") + 1]))
        except (OSError, ValueError, IndexError):
            continue
        if spec["topology"] == topology_id:
            found[spec["slot"]["port"]] = int(path.split("/")[2])
    return found


def write_topology(folder, name, tasks):
    os.makedirs(os.path.join(folder, "resources"), exist_ok=True)
    child = os.path.join(folder, "resources", "child.sh")
    with open(child, "w") as out:
        out.write(CHILD)
    os.chmod(child, 0o755)
    path = os.path.join(folder, f"{name}.yaml")
    with open(path, "w") as out:
        out.write(f"""name: {name}
config: {{topology.workers: 2}}
spouts:
  - {{id: sentences, parallelism: 2, command: ["sh", "child.sh"], output: [sentence]}}
bolts:
  - {{id: split, parallelism: {tasks // 2 - 2}, command: ["sh", "child.sh"], output: [word]}}
  - {{id: count, parallelism: {tasks // 2}, command: ["sh", "child.sh"], output: []}}
streams:
  - {{from: sentences, to: split, grouping: {{type: SHUFFLE}}}}
  - {{from: split, to: count, grouping: {{type: FIELDS, args: [word]}}}}
""")
    return path


def print_times(what, seconds):
    values = sorted(1000 * value for value in seconds)
    middle = statistics.median(values)
    print(f"{what}: median {middle:.0f} ms, {values[0]:.0f} to {values[-1]:.0f} ms in {len(values)} runs")


def cpu_ticks(pid):
    fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def daemons():
    found = {}
    for path in glob.glob("/proc/[0-9]*/cmdline"):
        try:
            args = open(path, "rb").read().split(b"\0")
        except OSError:
            continue
        for kind in ("nimbus", "supervisor"):
            if os.path.basename(args[0]) == b"stormkeeper" and kind.encode() in args[1:3]:
                found[int(path.split("/")[2])] = kind
    return found


def main():
    folder = tempfile.mkdtemp(prefix="stormkeeper-bench-")

    hertz, before = os.sysconf("SC_CLK_TCK"), {pid: cpu_ticks(pid) for pid in daemons()}
    time.sleep(20)
    for pid, kind in daemons().items():
        if pid in before:
            print(f"idle {kind} {pid}: {100 * (cpu_ticks(pid) - before[pid]) / hertz / 20:.2f} % of a core over 20 s")

    path, runs = write_topology(folder, "bench-submit", 20), []
    for _ in range(5):
        start = time.monotonic()
        sk("submit", path, "--wait")
        runs.append(time.monotonic() - start)
        sk("kill", "bench-submit", "-w", "0s")
        wait("the topology is gone", lambda: "bench-submit" not in sk("list"), pause=0.05)
    print_times("submit --wait to all 20 tasks running in 2 workers (children in sh)", runs)

    sk("submit", path, "--wait")
    topology_id, restarts, recoveries = show("bench-submit")["id"], [], []
    for _ in range(7):
        # Repeated crashes cause a backoff; a worker that ran for a while is restarted at once.
        time.sleep(11)
        port, victim = sorted(workers(topology_id).items())[0]
        start = time.monotonic()
        os.kill(victim, signal.SIGKILL)
        wait("the worker has a successor", lambda: workers(topology_id).get(port, victim) != victim)
        restarts.append(time.monotonic() - start)
        wait("every task sends heartbeats", lambda: (lambda s: s["tasksAlive"] == 20 and all(
            t.get("status") == "running" for t in s["tasks"]))(show("bench-submit")), pause=0.02)
        recoveries.append(time.monotonic() - start)
    print_times("a worker killed with -9: until its successor's process", restarts)
    print_times("a worker killed with -9: until all of its tasks run again", recoveries)
    sk("kill", "bench-submit", "-w", "0s")


if __name__ == "__main__":
    main()
