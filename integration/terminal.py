"""Runs a command at a terminal, for integration/terminal.rs.

Reads JSON from stdin: the command, and steps. A step waits until the output since the last step has a text, and
then sends keys or a signal. Prints JSON: the output, the status, the seconds that it took, those of the
processor, and whether the terminal is as it was.
"""

import fcntl
import json
import os
import pty
import resource
import select
import struct
import subprocess
import sys
import termios
import time

plan = json.load(sys.stdin)
master, slave = pty.openpty()
fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 120, 0, 0))
before = termios.tcgetattr(slave)
process = subprocess.Popen(plan["command"], stdin=slave, stdout=slave, stderr=slave, start_new_session=True)
began = time.monotonic()
deadline = began + plan["timeout"]
output = b""
step_began = 0


def read():
    """Reads what there is, and returns False at the end."""
    global output
    ready, _, _ = select.select([master], [], [], 0.1)
    if ready:
        output += os.read(master, 65536)
    if time.monotonic() > deadline:
        process.kill()
        sys.exit("no end within the timeout; the output so far: %r" % output[-4000:])


for step in plan["steps"]:
    wanted, times = step["until"].encode(), step.get("times", 1)
    while output.count(wanted, step_began) < times:
        read()
        if process.poll() is not None and not select.select([master], [], [], 0)[0]:
            sys.exit("it ended before %r: %r" % (step["until"], output[-4000:]))
    step_began = len(output)
    if "signal" in step:
        process.send_signal(step["signal"])
    else:
        os.write(master, step["send"].encode())
while process.poll() is None or select.select([master], [], [], 0)[0]:
    read()
usage = resource.getrusage(resource.RUSAGE_CHILDREN)
print(
    json.dumps(
        {
            "output": output.decode("utf-8", "replace"),
            "status": process.returncode,
            "cpu": usage.ru_utime + usage.ru_stime,
            "seconds": time.monotonic() - began,
            "restored": termios.tcgetattr(slave) == before,
        }
    )
)
