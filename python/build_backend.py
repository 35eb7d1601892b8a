"""Builds the wheel and the source archive of this directory with the standard library alone.

pip asks for both (PEP 517). A backend such as setuptools would have to be downloaded first.
"""

import base64
import hashlib
import io
import pathlib
import re
import tarfile
import zipfile

HERE = pathlib.Path(__file__).resolve().parent
MODULE = "stormkeeper.py"
# Earliest time that a zip file can hold: the same files make the same wheel.
TIME = (1980, 1, 1, 0, 0, 0)


def _of_project(key):
    """Returns a text of `pyproject.toml`; Python has a reader for the format since 3.11 only."""
    found = re.search(r'^%s = "(.*)"$' % re.escape(key), (HERE / "pyproject.toml").read_text("utf-8"), re.MULTILINE)
    if found is None:
        raise ValueError("pyproject.toml has no line `%s = \"…\"`" % key)
    return found.group(1)


def _metadata():
    head = [
        "Metadata-Version: 2.1",
        "Name: " + _of_project("name"),
        "Version: " + _of_project("version"),
        "Summary: " + _of_project("description"),
        "Requires-Python: " + _of_project("requires-python"),
        "License: Apache-2.0",
        "Description-Content-Type: text/markdown",
    ]
    return "\n".join(head) + "\n\n" + (HERE / "README.md").read_text("utf-8")


def _wheel_files():
    """Returns the files of the wheel by name."""
    info = "%s-%s.dist-info/" % (_of_project("name"), _of_project("version"))
    files = {
        MODULE: (HERE / MODULE).read_bytes(),
        info + "METADATA": _metadata().encode("utf-8"),
        info + "WHEEL": b"Wheel-Version: 1.0\nGenerator: stormkeeper\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    record = []
    for name, content in files.items():
        digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode("ascii")
        record.append("%s,sha256=%s,%d" % (name, digest, len(content)))
    record.append(info + "RECORD,,")
    files[info + "RECORD"] = ("\n".join(record) + "\n").encode("ascii")
    return files


def build_wheel(wheel_directory, config_settings=None, metadata_directory=None):
    """Writes the wheel; returns its name."""
    name = "%s-%s-py3-none-any.whl" % (_of_project("name"), _of_project("version"))
    with zipfile.ZipFile(pathlib.Path(wheel_directory) / name, "w", zipfile.ZIP_DEFLATED) as wheel:
        for path, content in _wheel_files().items():
            entry = zipfile.ZipInfo(path, TIME)
            entry.external_attr = 0o644 << 16
            wheel.writestr(entry, content)
    return name


def build_sdist(sdist_directory, config_settings=None):
    """Writes the source archive; returns its name."""
    base = "%s-%s" % (_of_project("name"), _of_project("version"))
    files = {path: (HERE / path).read_bytes() for path in (MODULE, "README.md", "build_backend.py", "pyproject.toml")}
    files["PKG-INFO"] = _metadata().encode("utf-8")
    with tarfile.open(pathlib.Path(sdist_directory) / (base + ".tar.gz"), "w:gz") as archive:
        for path, content in files.items():
            entry = tarfile.TarInfo(base + "/" + path)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
    return base + ".tar.gz"
