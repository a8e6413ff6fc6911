"""Runs, on the backend of KERAS_BACKEND, the tests of Keras' own losses (of the installed version)
with lossary.keras in their place, and the files of tests given.

Prints one JSON object: file -> test -> "passed", "skipped" or the failure's last line.
"""

import gc
import json
import os
import sys
from collections import defaultdict
from pathlib import Path

import keras
import pytest

if keras.backend.backend() != "tensorflow":
    # As where it is not installed: Keras imports it, for seconds, when it first saves a model.
    sys.modules["tensorflow"] = None

import keras.src.losses.losses_test as host

import lossary.keras

host.losses = lossary.keras


class Outcomes:
    def __init__(self):
        self.found = defaultdict(dict)

    def pytest_collectreport(self, report):
        if report.failed:
            self.found[Path(report.nodeid).stem]["collection"] = str(report.longrepr)[-2000:]

    def pytest_runtest_logreport(self, report):
        file, name = report.nodeid.split("::", 1)
        outcomes = self.found[Path(file).stem]
        if report.failed:
            outcomes[name] = report.longrepr.reprcrash.message
        elif report.when == "call" or report.skipped:
            outcomes.setdefault(name, report.outcome)


if __name__ == "__main__":
    gc.set_threshold(100_000)  # tracing makes heaps of objects: looked through less often
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    outcomes = Outcomes()
    options = ["-q", "-c", "/dev/null", "--rootdir=/"]
    pytest.main([*options, *sys.argv[1:], host.__file__], plugins=[outcomes])
    print(json.dumps(outcomes.found, indent=1))
