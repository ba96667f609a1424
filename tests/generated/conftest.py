"""How many inputs hypothesis generates: a few, always the same, or FASTDENS_GENERATED_INPUTS new ones a test."""

from __future__ import annotations

import os

import pytest

hypothesis = pytest.importorskip("hypothesis")

N_INPUTS = int(os.environ.get("FASTDENS_GENERATED_INPUTS", "0"))

# Without an explanation, which takes many runs more.
PHASES = [phase for phase in hypothesis.Phase if phase is not hypothesis.Phase.explain]
QUIET = {"deadline": None, "phases": PHASES, "suppress_health_check": list(hypothesis.HealthCheck), "database": None}
hypothesis.settings.register_profile("ci", derandomize=True, max_examples=40, **QUIET)
hypothesis.settings.register_profile("thorough", max_examples=max(1, N_INPUTS), **QUIET)
hypothesis.settings.load_profile("thorough" if N_INPUTS else "ci")
