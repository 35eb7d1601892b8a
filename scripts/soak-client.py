"""A hostile client of a cluster on this machine: soak-client.py SECONDS "API PORTS" "WORKER PORTS".

Sends what no honest client sends, a few times per second, until SECONDS are over. Prints one line
per attack. What it sends is drawn with a fixed seed.
"""

import http.client
import random
import socket
import struct
import sys
import time

PAUSE = 0.2
TIMEOUT = 3


def request(port, method, path, body=None, headers=None):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT)
    try:
        connection.request(method, path, body, headers or {})
        return connection.getresponse().status
    finally:
        connection.close()


def raw(port, data):
    with socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT) as connection:
        connection.sendall(data)
        connection.settimeout(0.2)
        try:
            return len(connection.recv(4096))
        except socket.timeout:
            return 0


held = []


def hold(port):
    """Keeps up to 50 half requests open."""
    connection = socket.create_connection(("127.0.0.1", port), timeout=TIMEOUT)
    connection.sendall(b"POST /api/stormkeeper/v1/topology/submit HTTP/1.1\r\nHost: localhost\r\nX: ")
    held.append(connection)
    if len(held) > 50:
        held.pop(0).close()
    return len(held)


def attacks(rng, api, workers):
    noise = rng.randbytes(rng.choice([1, 100, 10_000]))
    kill = "/api/stormkeeper/v1/topology/word-count/kill"
    return [
        ("form from a foreign page", lambda: request(
            api, "POST", kill, "waitSecs=0",
            {"Content-Type": "application/x-www-form-urlencoded", "Origin": "http://evil.example"})),
        ("foreign host", lambda: request(api, "POST", kill, "{}", {"Host": "evil.example"})),
        ("kill without sense", lambda: request(api, "POST", kill, '{"waitSecs": -1}')),
        ("submit of nothing", lambda: request(api, "POST", "/api/stormkeeper/v1/topology/submit", '{"blob": "' + "0" * 64 + '", "owner": "x"}')),
        ("blob of another name", lambda: request(api, "PUT", "/api/stormkeeper/v1/blobs/" + "0" * 64, noise)),
        ("copy from a stranger", lambda: request(api, "POST", "/api/stormkeeper/v1/blobs/" + "0" * 64 + "/copy", '{"from": "127.0.0.1:1"}')),
        ("deep JSON", lambda: request(api, "POST", kill, "[" * 5000)),
        ("no HTTP", lambda: raw(api, noise)),
        ("long head", lambda: raw(api, b"GET / HTTP/1.1\r\nX: " + b"a" * 100_000 + b"\r\n\r\n")),
        ("half request", lambda: hold(api)),
        ("noise for a worker", lambda: raw(workers, noise)),
        ("long frame for a worker", lambda: raw(workers, struct.pack(">I", 2**31) + noise)),
    ]


def main():
    seconds, api_ports, worker_ports = float(sys.argv[1]), sys.argv[2].split(), sys.argv[3].split()
    rng = random.Random(20)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        api, worker = int(rng.choice(api_ports)), int(rng.choice(worker_ports))
        name, attack = rng.choice(attacks(rng, api, worker))
        try:
            result = attack()
        except (OSError, http.client.HTTPException) as error:
            # A daemon that is being restarted, or that has closed the connection.
            result = type(error).__name__
        print(name, result, flush=True)
        time.sleep(PAUSE)


main()
