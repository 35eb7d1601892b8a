#!/usr/bin/env python3
"""Checks the relative links of all Markdown files: the file exists, and has the anchor.

  scripts/links.py               fails with each broken link
  scripts/links.py --self-test   proves that the check finds what it looks for

Addresses with a scheme (https:, mailto:) are not checked: the check needs no network.
"""

import re
import sys
from pathlib import Path
from urllib.parse import unquote

ROOT = Path(__file__).resolve().parent.parent
SKIPPED_FOLDERS = {".git", "target", "node_modules", "__pycache__"}

FENCE = re.compile(r"\s*(```+|~~~+)")
CODE = re.compile(r"(`+)(?!`).*?(?<!`)\1(?!`)")
COMMENT = re.compile(r"<!--.*?-->")
# The text of a link may hold an image, so only its end is looked for.
INLINE_LINK = re.compile(r"\]\(\s*(?:<([^>]*)>|([^()\s]*(?:\([^()\s]*\)[^()\s]*)*))(?:\s+[\"'(][^)]*)?\s*\)")
DEFINITION = re.compile(r"\s{0,3}\[([^\]]+)\]:\s*<?([^\s>]+)>?")
REFERENCE = re.compile(r"(?<!!)\[([^\]\[]+)\]\[([^\]\[]*)\]")
HEADING = re.compile(r"\s{0,3}(#{1,6})\s+(.*?)\s*#*\s*$")
HTML_ANCHOR = re.compile(r"<[a-z]+\s[^>]*?\b(?:id|name)=[\"']([^\"']+)[\"']", re.IGNORECASE)
SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)


def prose(text):
    """The number and the text of each line that is not in a code block or a comment."""
    text = re.sub(COMMENT.pattern, lambda match: "\n" * match.group().count("\n"), text, flags=re.DOTALL)
    fence = None
    for number, line in enumerate(text.splitlines(), 1):
        match = FENCE.match(line)
        if fence is None and match:
            fence = match.group(1)
        elif fence is not None:
            if match and match.group(1).startswith(fence) and line.strip() == match.group(1):
                fence = None
        else:
            yield number, line


def slug(heading):
    """The anchor that GitHub makes of a heading."""
    heading = re.sub(r"!?\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    kept = (letter for letter in heading.strip().lower() if letter.isalnum() or letter in " -_")
    return "".join(kept).replace(" ", "-")


def anchors(text):
    """All anchors of a Markdown file; equal headings are numbered."""
    found, times = set(), {}
    for _, line in prose(text):
        found.update(HTML_ANCHOR.findall(line))
        if match := HEADING.match(line):
            base = slug(match.group(2))
            n_before = times.get(base, 0)
            times[base] = n_before + 1
            found.add(f"{base}-{n_before}" if n_before else base)
    return found


def links(text):
    """The line and the target of each link; a target of None is an undefined reference."""
    lines = [(number, CODE.sub("``", line)) for number, line in prose(text)]
    defined = {match.group(1).lower() for _, line in lines if (match := DEFINITION.match(line))}
    for number, line in lines:
        if match := DEFINITION.match(line):
            yield number, match.group(2)
            continue
        for match in INLINE_LINK.finditer(line):
            yield number, match.group(1) or match.group(2)
        for match in REFERENCE.finditer(line):
            if (match.group(2) or match.group(1)).lower() not in defined:
                yield number, None


def problem(root, file, target):
    """The fault of one link, or None."""
    if target is None:
        return "a reference that no line defines"
    if SCHEME.match(target) or target.startswith("//"):
        return None
    path, _, anchor = unquote(target).partition("#")
    if path.startswith("/"):
        return f"{target}: a path from the root works on no disk; make it relative"
    there = (file.parent / path).resolve() if path else file
    if not there.is_relative_to(root):
        return f"{target}: outside of the repository"
    if not there.exists():
        return f"{target}: no such file"
    if anchor and there.suffix == ".md" and anchor not in anchors(there.read_text(encoding="utf-8")):
        return f"{target}: no such heading in {there.relative_to(root)}"
    return None


def check(root):
    """The number of links, and a line for each broken one."""
    root = root.resolve()
    n_links, broken = 0, []
    for file in sorted(root.rglob("*.md")):
        name = file.relative_to(root)
        if SKIPPED_FOLDERS.intersection(name.parts):
            continue
        for number, target in links(file.read_text(encoding="utf-8")):
            n_links += 1
            if fault := problem(root, file, target):
                broken.append(f"{name}:{number}: {fault}")
    return n_links, broken


def main(arguments):
    if arguments == ["--self-test"]:
        return self_test()
    if arguments:
        print(__doc__, file=sys.stderr)
        return 2
    n_links, broken = check(ROOT)
    for line in broken:
        print(line)
    print(f"{len(broken)} of {n_links} links are broken")
    return int(bool(broken))


def self_test():
    """Good and bad links in a folder of their own."""
    import tempfile

    samples = {
        "README.md": (
            "# A `code` word & more\n# Twice\n# Twice\n<a id=\"here\"></a>\n"
            "[a](docs/a.md) [b](docs/a.md#one-two) [c](#a-code-word--more) [d](#twice-1) [e](#here)\n"
            "[f](https://nowhere.example/x) [g](docs/) `[h](none.md)` [i](docs/with%20space.md \"title\")\n"
            "```text\n[j](none.md)\n# Not a heading\n```\n<!-- [k](none.md) -->\n[l][known] [m][unknown]\n\n"
            "[known]: docs/a.md\n[![image](docs/none.png)](docs/a.md)\n"
        ),
        "docs/a.md": (
            "## One: two\n[a](../README.md#twice-2) [b](none.md) [c](#one) [d](../../x.md) [e](/docs/a.md)\n"
            "[f](../README.md#not-a-heading)\n[g]: none.txt\n"
        ),
        "docs/with space.md": "Nothing.\n",
        "target/doc.md": "[a](none.md)\n",
    }
    expected = [
        "README.md:12: a reference that no line defines",
        "README.md:15: docs/none.png: no such file",
        "docs/a.md:2: ../README.md#twice-2: no such heading in README.md",
        "docs/a.md:2: none.md: no such file",
        "docs/a.md:2: #one: no such heading in docs/a.md",
        "docs/a.md:2: ../../x.md: outside of the repository",
        "docs/a.md:2: /docs/a.md: a path from the root works on no disk; make it relative",
        "docs/a.md:3: ../README.md#not-a-heading: no such heading in README.md",
        "docs/a.md:4: none.txt: no such file",
    ]
    with tempfile.TemporaryDirectory() as folder:
        for name, text in samples.items():
            (Path(folder) / name).parent.mkdir(parents=True, exist_ok=True)
            (Path(folder) / name).write_text(text, encoding="utf-8")
        n_links, broken = check(Path(folder))
    if (n_links, broken) != (19, expected):
        print(f"the self-test of scripts/links.py failed: {n_links} links, and these are broken:", *broken, sep="\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
