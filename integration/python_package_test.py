"""Tests of the package in python/: it installs without a network, and is the module that workers have.

Run: python3 integration/python_package_test.py
"""

import importlib.util
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import unittest
import venv
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
PACKAGE = ROOT / "python"


def backend():
    spec = importlib.util.spec_from_file_location("build_backend", PACKAGE / "build_backend.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Package(unittest.TestCase):
    def test_pip_installs_it_into_an_empty_environment_without_a_network(self):
        with tempfile.TemporaryDirectory() as directory:
            place = pathlib.Path(directory) / "venv"
            venv.create(place, with_pip=True)
            python = place / "bin" / "python"
            # No index and no proxy: a download fails. pip builds in a copy that has nothing installed.
            pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--no-index"]
            environment = {**os.environ, "PIP_CONFIG_FILE": os.devnull}
            for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PYTHONPATH"):
                environment.pop(name, None)
            done = subprocess.run([*pip, PACKAGE], env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
            self.assertEqual(done.returncode, 0, done.stdout.decode())
            script = "import stormkeeper; print(stormkeeper.__file__, stormkeeper.ReliableSpout.__name__)"
            shown = subprocess.run(
                [python, "-c", script], env=environment, cwd=directory, stdout=subprocess.PIPE, check=True
            )
            file, name = shown.stdout.decode().split()
            self.assertEqual(name, "ReliableSpout")
            self.assertTrue(pathlib.Path(file).is_relative_to(place), file)
            self.assertEqual(pathlib.Path(file).read_bytes(), (PACKAGE / "stormkeeper.py").read_bytes())

    def test_the_wheel_has_the_module_and_a_record_of_each_file(self):
        with tempfile.TemporaryDirectory() as directory:
            name = backend().build_wheel(directory)
            with zipfile.ZipFile(pathlib.Path(directory) / name) as wheel:
                names = wheel.namelist()
                record = next(name for name in names if name.endswith("/RECORD"))
                recorded = [line.split(",")[0] for line in wheel.read(record).decode().splitlines()]
            self.assertEqual(sorted(recorded), sorted(names))
            self.assertIn("stormkeeper.py", names)
            source = backend().build_sdist(directory)
            self.assertTrue((pathlib.Path(directory) / source).is_file())

    def test_its_type_hints_are_consistent(self):
        if importlib.util.find_spec("mypy") is None:
            self.skipTest("mypy is not installed")
        with tempfile.TemporaryDirectory() as cache:
            mypy = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", cache, PACKAGE / "stormkeeper.py"]
            done = subprocess.run(mypy, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        self.assertEqual(done.returncode, 0, done.stdout.decode())

    def test_its_version_is_that_of_the_program(self):
        of = lambda path: re.search(r'^version = "(.*)"$', path.read_text("utf-8"), re.MULTILINE).group(1)
        self.assertEqual(of(PACKAGE / "pyproject.toml"), of(ROOT / "Cargo.toml"))


if __name__ == "__main__":
    unittest.main()
