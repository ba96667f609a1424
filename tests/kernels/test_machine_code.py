"""The Triton kernels become machine code for three generations of GPU, within stated limits, with no GPU present."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from importlib.metadata import version

import pytest
from fastdens.kernels.machine_code import MAX_REGISTERS, MAX_SHARED_BYTES
from fastdens.kernels.machine_code.roofline import CARDS, estimate

from tests.kernels.launched import launched_kernels

TRITON_VERSION = tuple(int(part) for part in version("triton").split(".")[:2])
SCRIPT = """
import dataclasses, json
from fastdens.kernels.machine_code import kernel_reports
from fastdens.kernels.machine_code.operations import *
reports = kernel_reports({recorded}, {targets}, n_processes=2)
print(json.dumps([dataclasses.asdict(report) | {{"code": report.code._asdict()}} for report in reports]))
"""


def reports_of(recorded: str, *targets: int) -> list[dict]:
    """Reports from a process of its own: kernels that the interpreter has taken hold of cannot be compiled."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    script = SCRIPT.format(recorded=recorded, targets=targets)
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def check_limits(reports: list[dict]) -> None:
    # The assembler in Triton 3.6 spills two and four registers in two of the kernels; later ones spill none.
    allowed = 0 if TRITON_VERSION >= (3, 7) else 16
    for report in reports:
        assert report["code"]["spill_bytes"] <= allowed, report
        assert report["code"]["registers"] <= MAX_REGISTERS, report
        assert report["code"]["shared_bytes"] <= MAX_SHARED_BYTES, report


@pytest.mark.slow
def test_every_tier_of_the_densities():
    check_limits(reports_of("density_tiers(dimensions_of_tiers())", 90))


@pytest.mark.slow
def test_every_tier_of_the_sampler():
    reports = reports_of("sampler_tiers((1, 2, 16, 64, 100))", 90)
    check_limits(reports)
    # Whatever the numbers of models, points, chains, clusters and sweeps: at most six kernels a dimension.
    assert max(Counter(report["shape"] for report in reports).values()) <= 6


@pytest.mark.slow
def test_other_generations_and_every_kernel():
    reports = reports_of("[*density_tiers((64,)), *sampler_tiers((2,))]", 80, 100)
    check_limits(reports)
    assert {report["kernel"] for report in reports} == {name.strip("_") for name in launched_kernels()}


def test_matrix_units_in_the_mix():
    products = "record({'E and M step': GAUSSIANS['E and M step']}, Shape(2, 40, 64, 2, matmul_precision='tf32x3'))"
    mixes = {report["kernel"]: report["code"]["mix"] for report in reports_of(products, 90)}
    for kernel in ("mixture_kernel", "scatter_kernel"):
        assert mixes[kernel]["HGMMA"] > 0 and mixes[kernel]["FFMA"] < 100
    assert mixes["first_moments_kernel"].keys().isdisjoint({"HGMMA", "HMMA", "STL", "ATOM", "RED"})


def test_an_interpreted_kernel_is_refused():
    script = SCRIPT.format(recorded="density_tiers((1,))", targets=(90,))
    environment = os.environ | {"TRITON_INTERPRET": "1"}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is in Triton's interpreter and has no machine code: unset TRITON_INTERPRET" in done.stderr


def test_estimate_is_the_longer_of_two_limits():
    import torch

    card = CARDS["H100"]
    best = estimate(card, torch.float32, "ieee", n_operations=10**9, n_bytes=10**6)
    assert (best.limit, best.seconds) == ("operations", pytest.approx(1e9 / 66.9e12))
    best = estimate(card, torch.float32, "tf32x3", n_operations=10**9, n_bytes=10**8)
    assert (best.limit, best.seconds) == ("bytes", pytest.approx(1e8 / 3.35e12))
    assert card.rate(torch.float64, "tf32x3") == card.float64
