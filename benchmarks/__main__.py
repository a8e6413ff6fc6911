"""``python -m benchmarks``: every workload beside its peers, in one run.

Writes ``benchmarks/results.json``, ``docs/performance.svg`` and ``docs/performance.md``; prints
ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import report
from benchmarks.workloads import WORKLOADS

HERE = Path(__file__).parent
# Big buffers are kept and used again instead of being mapped, and touched for the first time, anew.
NO_FAULT = {"MALLOC_MMAP_THRESHOLD_": str(2**33), "MALLOC_TRIM_THRESHOLD_": str(2**34)}
SETTINGS: dict[str, dict[str, str]] = {"default": {}, "no page faults": NO_FAULT}


def _measure(setting: str, *arguments: str) -> dict[str, Any]:
    """One fresh process; a failure is reported and recorded, not hidden."""
    run = subprocess.run(
        [sys.executable, "-m", "benchmarks.measure", *arguments],
        capture_output=True, text=True, env=os.environ | SETTINGS[setting], cwd=HERE.parent,
    )  # fmt: skip
    if run.returncode:
        last = (run.stderr.strip().splitlines() or ["no message"])[-1]
        print(f"{' '.join(arguments)} failed: {last}", file=sys.stderr)
        return {"failed": last}
    return json.loads(run.stdout)  # type: ignore[no-any-return]


def _environment() -> dict[str, Any]:
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("numpy", "torch", "jax", "optax", "keras", "scipy", "numba"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    model = platform.processor()
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            model = line.split(":", 1)[1].strip()
            break
    return {"processor": model, "cpus": os.cpu_count(), "load": os.getloadavg()[0], **versions}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("workloads", nargs="*", help=f"of: {', '.join(WORKLOADS)}")
    parser.add_argument("--memory-only", action="store_true", help="keep the times in the JSON")
    parser.add_argument("--report-only", action="store_true", help="write the page from the JSON")
    given = parser.parse_args()
    unknown = set(given.workloads) - set(WORKLOADS)
    if unknown:
        parser.error(f"no such workload: {', '.join(unknown)}")
    path = HERE / "results.json"
    results: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    if not given.report_only:
        if not (given.memory_only and "environment" in results):  # the load is that of the times
            results["environment"] = _environment()
        for name in given.workloads or WORKLOADS:
            work = WORKLOADS[name]
            entry: dict[str, Any] = {"title": work.title, "bytes": work.bytes_moved}
            for setting in work.settings:
                known = results.get(name, {}).get(setting) if given.memory_only else None
                entry[setting] = known or _measure(setting, "times", name)
            if work.small is not None:
                entry["memory"] = {
                    contender: _measure("default", "memory", name, contender)
                    for contender in work.contenders
                }
            results[name] = entry
            path.write_text(json.dumps(results, indent=1) + "\n")
            print(report.lines(name, results), flush=True)
    ordered = {name: results[name] for name in ("environment", *WORKLOADS) if name in results}
    report.write(ordered, HERE.parent / "docs")
    return 0


if __name__ == "__main__":
    sys.exit(main())
