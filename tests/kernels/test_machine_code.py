"""The Triton kernels become machine code for three generations of GPU, within stated limits, with no GPU present."""

from __future__ import annotations

import json
import os
import subprocess
import sys

SCRIPT = """
import dataclasses, json
from fastdens.kernels.machine_code import compile_report
print(json.dumps([dataclasses.asdict(report) for report in compile_report()]))
"""


def test_no_spills_and_within_limits():
    from fastdens.kernels.machine_code import MAX_REGISTERS, MAX_SHARED_BYTES, TARGETS

    # Kernels that the interpreter has taken hold of cannot be compiled.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    assert {report["target"] for report in reports} == set(TARGETS)
    assert len({report["name"] for report in reports}) == 10
    for report in reports:
        assert report["spill_bytes"] == 0, report
        assert report["registers"] <= MAX_REGISTERS, report
        assert report["shared_bytes"] <= MAX_SHARED_BYTES, report
