"""Passes words on with their lengths, in MessagePack, with an encoder and a decoder of its own."""

import os
import struct
import sys


def pack(value):
    if value is None:
        return b"\xc0"
    if value is True or value is False:
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, int):
        return bytes([value]) if 0 <= value < 128 else b"\xd3" + struct.pack(">q", value)
    if isinstance(value, float):
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, str):
        data = value.encode("utf-8")
        return b"\xdb" + struct.pack(">I", len(data)) + data
    if isinstance(value, list):
        return b"\xdd" + struct.pack(">I", len(value)) + b"".join(map(pack, value))
    return b"\xdf" + struct.pack(">I", len(value)) + b"".join(pack(k) + pack(v) for k, v in value.items())


class Reader:
    def bytes(self, n):
        data = b""
        while len(data) < n:
            piece = sys.stdin.buffer.read(n - len(data))
            if not piece:
                sys.exit(0)
            data += piece
        return data

    def number(self, code):
        return struct.unpack(">" + code, self.bytes(struct.calcsize(code)))[0]

    def text(self, n):
        return self.bytes(n).decode("utf-8")

    def list(self, n):
        return [self.value() for _ in range(n)]

    def map(self, n):
        return {self.value(): self.value() for _ in range(n)}

    def value(self):
        head = self.bytes(1)[0]
        if head < 0x80:
            return head
        if head >= 0xE0:
            return head - 0x100
        for least, read, mask in ((0xA0, self.text, 0x1F), (0x90, self.list, 0x0F), (0x80, self.map, 0x0F)):
            if least <= head <= least + mask:
                return read(head & mask)
        if head in (0xC0, 0xC2, 0xC3):
            return {0xC0: None, 0xC2: False, 0xC3: True}[head]
        numbers = dict(zip(range(0xCA, 0xD4), "fdBHIQbhiq"))
        if head in numbers:
            return self.number(numbers[head])
        read, code = {
            0xD9: (self.text, "B"),
            0xDA: (self.text, "H"),
            0xDB: (self.text, "I"),
            0xDC: (self.list, "H"),
            0xDD: (self.list, "I"),
            0xDE: (self.map, "H"),
            0xDF: (self.map, "I"),
        }[head]
        return read(self.number(code))


def send(message):
    sys.stdout.buffer.write(pack(message))
    sys.stdout.buffer.flush()


reader = Reader()
setup = reader.value()
assert setup["conf"]["topology.multilang.serializer"] == "msgpack", setup["conf"]
pid = os.getpid()
open(os.path.join(setup["pidDir"], str(pid)), "w").close()
send({"pid": pid})
early = []
while True:
    tup = early.pop(0) if early else reader.value()
    if tup["stream"] == "__heartbeat":
        send({"command": "sync"})
        continue
    word = tup["tuple"][0]
    send({"command": "emit", "anchors": [tup["id"]], "tuple": [word, len(word)]})
    reply = reader.value()
    while not isinstance(reply, list):
        # A tuple that was on its way before the reply.
        early.append(reply)
        reply = reader.value()
    send({"command": "ack", "id": tup["id"]})
