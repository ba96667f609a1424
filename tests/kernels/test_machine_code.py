"""The Triton kernels become machine code for three generations of GPU, within stated limits, with no GPU present."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import version

TRITON_VERSION = tuple(int(part) for part in version("triton").split(".")[:2])
# At D = 1 a launch makes a constant of the number of features.
SCRIPT = """
import dataclasses, json, torch
from fastdens.kernels.machine_code import compile_report
reports = compile_report() + compile_report(targets=(90,), shapes=((1, torch.float32, "ieee"),))
print(json.dumps([dataclasses.asdict(report) for report in reports]))
"""


def test_no_spills_and_within_limits():
    from fastdens.kernels.machine_code import MAX_REGISTERS, MAX_SHARED_BYTES, TARGETS

    # Kernels that the interpreter has taken hold of cannot be compiled.
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    assert {report["target"] for report in reports} == set(TARGETS)
    assert len({report["name"] for report in reports}) == 22
    # The assembler in Triton 3.6 spills two and four registers in two of the kernels; later ones spill none.
    allowed = 0 if TRITON_VERSION >= (3, 7) else 16
    for report in reports:
        assert report["spill_bytes"] <= allowed, report
        assert report["registers"] <= MAX_REGISTERS, report
        assert report["shared_bytes"] <= MAX_SHARED_BYTES, report
