"""Emits each line of lines.txt until it is processed. Read your own source here."""

from stormkeeper import Record, ReliableSpout


class Lines(ReliableSpout):
    def initialize(self, conf, context):
        # Each task of this spout reads its share.
        index, n_tasks = self.peers.index(self.task_id), len(self.peers)
        with open("lines.txt", encoding="utf-8") as file:
            lines = [line.rstrip("\n") for line in file]
        self.unread = [Record(number, [line]) for number, line in enumerate(lines) if number % n_tasks == index]

    def read(self):
        records, self.unread = self.unread[:100], self.unread[100:]
        return records


if __name__ == "__main__":
    Lines().run()
