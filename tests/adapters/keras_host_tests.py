"""Runs the tests of Keras' own losses (of the installed version) with lossary.keras in their place.

Prints one JSON object: test name -> "passed", "skipped" or the failure's last line.
"""

import json
import os
import sys

import keras.src.losses.losses_test as host
import pytest

import lossary.keras

host.losses = lossary.keras


class Outcomes:
    def __init__(self):
        self.found = {}

    def pytest_runtest_logreport(self, report):
        name = "::".join(report.nodeid.split("::")[1:])
        if report.failed:
            self.found[name] = report.longrepr.reprcrash.message
        elif report.when == "call" or report.skipped:
            self.found.setdefault(name, report.outcome)


if __name__ == "__main__":
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    outcomes = Outcomes()
    arguments = [host.__file__, "-q", *sys.argv[1:]]
    pytest.main(["-c", "/dev/null", *arguments], plugins=[outcomes])
    print(json.dumps(outcomes.found, indent=1))
