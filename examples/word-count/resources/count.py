"""Counts words in memory and writes them to a table in a file.

The file is `count-<task>.tsv` in the directory `word.count.out`, with one `word<TAB>count`
per line, unordered. It is replaced atomically (written under another name, then renamed), so
a reader never sees an incomplete table. It is updated on every tick (once a second), and when
the worker shuts this process down.
"""

import os
import pwd
from collections import Counter

from stormkeeper import BasicBolt, is_tick


def user():
    """Name of the user that runs this process: two users of a host must not share a directory."""
    try:
        return pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return "uid-%d" % os.getuid()


class Count(BasicBolt):
    def initialize(self, conf, context):
        self.directory = os.path.expanduser(conf["word.count.out"].replace("{user}", user()))
        self.counts = Counter()
        os.makedirs(self.directory, exist_ok=True)
        self.remove_tables_of_other_runs()
        self.write_table()

    def process(self, tup):
        if is_tick(tup):
            self.write_table_if_changed()
        else:
            self.counts[tup.values[0]] += 1
            self.changed = True

    def cleanup(self):
        self.write_table_if_changed()

    def write_table_if_changed(self):
        if self.changed:
            self.write_table()

    def write_table(self):
        path = self.table_of(self.task_id)
        with open(path + ".new", "w", encoding="utf-8") as file:
            file.writelines("%s\t%d\n" % item for item in self.counts.items())
        os.replace(path + ".new", path)
        self.changed = False

    def table_of(self, task):
        return os.path.join(self.directory, "count-%d.tsv" % task)

    def remove_tables_of_other_runs(self):
        """Removes tables of an earlier run with other task ids, which would falsify the result."""
        ours = {os.path.basename(self.table_of(task)) for task in self.peers}
        for name in os.listdir(self.directory):
            if name.startswith("count-") and name.endswith(".tsv") and name not in ours:
                try:
                    os.remove(os.path.join(self.directory, name))
                except FileNotFoundError:
                    # Another task of this run was faster.
                    pass


if __name__ == "__main__":
    Count().run()
