#!/usr/bin/env python3
"""Measures the share of comment lines that begin with a clause instead of a noun or a verb.

  scripts/prose.py               the share; fails above the limit, with the worst files and lines
  scripts/prose.py --list        every such line
  scripts/prose.py --self-test   proves that the check finds what it looks for

A comment line begins with a clause if its first word is What, Who, Whoever, Which, How, Where,
Whether, Those, That or "Up to": "What is kept until when" instead of "Retention clock".
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FOLDERS = ("src", "crates", "testing", "integration", "benches", "scripts", "examples")
LIMIT_PERCENT = 1.5

RUST_COMMENT = re.compile(r"\s*//[/!]?(.*)")
HASH_COMMENT = re.compile(r"\s*#(?!!)(.*)")
CLAUSE = re.compile(r"(?:[-*] |\d+\. )?(?:What|Who|Whoever|Which|How|Where|Whether|Those|That|Up to)\b")

N_FILES_SHOWN = 10
N_LINES_SHOWN = 30


def comment_pattern(path):
    """The pattern of a comment line in this file; None for a file that is not checked."""
    if path.suffix == ".rs":
        return RUST_COMMENT
    if path.suffix in (".py", ".sh"):
        return HASH_COMMENT
    if path.suffix == "":
        with path.open("rb") as file:
            first = file.readline(100)
        if first.startswith(b"#!") and (b"bash" in first or b"python" in first):
            return HASH_COMMENT
    return None


def comments(text, pattern):
    """The number and the text of each comment line that is not empty."""
    for number, line in enumerate(text.splitlines(), 1):
        match = pattern.match(line)
        if match and match.group(1).strip():
            yield number, match.group(1).strip()


def measure(root, folders):
    """The count of comment lines, and the lines that begin with a clause, by file."""
    n_comments, found = 0, {}
    for path in sorted(path for folder in folders for path in (root / folder).rglob("*")):
        if not path.is_file() or "__pycache__" in path.parts:
            continue
        pattern = comment_pattern(path)
        if pattern is None:
            continue
        for number, comment in comments(path.read_text(encoding="utf-8"), pattern):
            n_comments += 1
            if CLAUSE.match(comment):
                found.setdefault(str(path.relative_to(root)), []).append((number, comment))
    return n_comments, found


def percent(found, n_comments):
    return 100 * sum(map(len, found.values())) / max(n_comments, 1)


def show(found, n_files, n_lines):
    worst = sorted(found.items(), key=lambda entry: (-len(entry[1]), entry[0]))
    for name, lines in worst[:n_files]:
        print(f"{len(lines):5} in {name}")
    every_line = [(name, number, comment) for name, lines in worst for number, comment in lines]
    for name, number, comment in every_line[:n_lines]:
        print(f"{name}:{number}: {comment}")
    if len(every_line) > n_lines:
        print(f"… and {len(every_line) - n_lines} more: scripts/prose.py --list")


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if arguments not in ([], ["--list"]):
        print(__doc__, file=sys.stderr)
        return 2
    n_comments, found = measure(ROOT, FOLDERS)
    if n_comments < 1000:
        print(f"only {n_comments} comment lines were found: the search is wrong")
        return 1
    share = percent(found, n_comments)
    n_found = sum(map(len, found.values()))
    failed = share > LIMIT_PERCENT
    if arguments == ["--list"]:
        show(found, len(found), n_found)
    elif failed:
        show(found, N_FILES_SHOWN, N_LINES_SHOWN)
    print(f"{n_found} of {n_comments} comment lines begin with a clause: {share:.2f} %, at most {LIMIT_PERCENT} %")
    if failed:
        print("Begin these with a noun or a verb: \"Retention clock.\", \"Returns the committed position.\"")
    return int(failed)


def self_test():
    """Good and bad samples in a folder of their own."""
    import tempfile

    samples = {
        "src/good.rs": "//! Retention clock.\n/// Returns whether it is full.\n//\nlet x = 1; // What\n",
        "src/bad.rs": "//! What is kept.\n    /// - Whether it is full.\n// Up to here.\n// Whatever.\n",
        "scripts/tool": "#!/usr/bin/env bash\n# Those that remain.\necho '# not a comment line'\n",
        "scripts/tool.py": "# Which of them.\n# which is fine in the middle of a sentence\n",
        "scripts/notes.txt": "# What is not code is not read.\n",
    }
    expected = {
        "scripts/tool": [(2, "Those that remain.")],
        "scripts/tool.py": [(1, "Which of them.")],
        "src/bad.rs": [(1, "What is kept."), (2, "- Whether it is full."), (3, "Up to here.")],
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        for name, text in samples.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_text(text, encoding="utf-8")
        n_comments, found = measure(root, ("src", "scripts"))
    if (n_comments, found) != (9, expected):
        print(f"the self-test of scripts/prose.py failed: {n_comments} comment lines, {found}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
