"""lossary.keras on each backend, in a process of its own, with Keras' own tests of its losses."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

HERE = Path(__file__).parent
BACKENDS = ("torch", "jax", "tensorflow")


FILES = (
    HERE / "keras_cases.py",
    HERE / "keras_misuse.py",
    HERE.parent / "doctor" / "keras_trainings.py",
)

# Whether adapters keep their promises does not hang on how well XLA optimizes, and to compile
# less well takes it half the time. (The losses' own tests have it optimize.)
QUICKLY = (
    "--xla_backend_optimization_level=0 --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_parallel_codegen_split_count=1"
)


def outcomes(backend):
    """{file: {test: outcome}}, of one process for all, since importing Keras takes seconds."""
    environment = {
        **os.environ,
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "KERAS_BACKEND": backend,
    }
    if backend == "jax":
        environment["XLA_FLAGS"] = QUICKLY
    command = [sys.executable, HERE / "keras_run.py", *FILES]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert "\n{" in done.stdout, done.stdout[-2000:] + done.stderr[-2000:]
    return json.loads(done.stdout[done.stdout.rindex("\n{") :])


@dataclass
class Difference:
    """A test of Keras that asserts something else than the truth, to the shown digits."""

    asserts: str
    truth: str
    ours: str
    why: str


CLIPPED = (
    "Keras clips probabilities at 1e-7, so a certain wrong answer costs 15.9 instead of infinity"
)
SWAPPED = "Keras' alpha weighs false negatives; its documentation and the paper say false positives"
LIMIT = "no number: Keras refuses axis=0 on this backend; ours takes any axis on all"
LIMITED = Difference("a ValueError", "0.0", "0.0", LIMIT)

DIFFERENCES = {
    "CosineSimilarityTest::test_config": Difference(
        "a config without axis=2", "axis=2", "axis=2", "a loaded model would use another axis"
    ),
    "BinaryCrossentropyTest::test_unweighted": Difference("3.98559", "inf", "4.1589", CLIPPED),
    "BinaryCrossentropyTest::test_scalar_weighted": Difference("9.1668", "inf", "9.5654", CLIPPED),
    "BinaryCrossentropyTest::test_sample_weighted": Difference("4.7827", "inf", "4.9907", CLIPPED),
    "CTCTest::test_correctness": Difference(
        "2.448645", "3.413757", "3.413757", "Keras reads the mask in 1, 2, 0, 2 and drops the last"
    ),
    "TverskyTest::test_correctness_custom_coefficients": Difference(
        "-0.29629636", "-0.9444444", "-0.9444444", SWAPPED
    ),
    "TverskyTest::test_binary_segmentation_custom_coefficients": Difference(
        "0.7916667", "0.7619048", "0.7619048", SWAPPED
    ),
    "TverskyTest::test_binary_segmentation_custom_coefficients_with_axis": Difference(
        "0.7222222", "0.7849462", "0.7849462", SWAPPED
    ),
}
AXIS = {
    f"SparseCategoricalCrossentropyTest::test_{kind}_segmentation_different_axis": LIMITED
    for kind in ("binary", "multi_class")
}


def failures(found):
    return {name: said for name, said in found.items() if said not in ("passed", "skipped")}


@pytest.mark.parametrize("backend", BACKENDS)
def test_promises_and_keras_own_tests(backend):
    """All pass but those that assert an inaccuracy or a limit of Keras, and those exactly fail."""
    found = outcomes(backend)
    own = found.pop("losses_test", {})
    assert set(found) == {file.stem for file in FILES}
    for file, of_file in found.items():
        assert set(of_file.values()) == {"passed"}, (file, failures(of_file))
    expected = set(DIFFERENCES) | (set() if backend == "torch" else set(AXIS))
    failed = set(failures(own))
    assert failed == expected, {name: own[name] for name in failed ^ expected}
    assert list(own.values()).count("passed") >= 150


def test_the_differences_are_in_the_documentation():
    page = (HERE.parents[1] / "docs" / "keras.md").read_text()
    for name, difference in {**DIFFERENCES, **AXIS}.items():
        assert name.partition("::")[2] in page
        for number in (difference.asserts, difference.truth, difference.ours):
            assert number in page
