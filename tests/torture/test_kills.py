"""Every long command, killed at random moments and run again: the same bytes, and nothing else.

FASTDENS_TORTURE is how many kills there are in all.
"""

from __future__ import annotations

import json
import math
import os

import numpy as np
import pytest
from safetensors import safe_open

from fastdens.io.state_file import read_state
from tests.kills import forked, kill_and_compare
from tests.torture import commands

# The share of each command in the kills: those that begin quickly are killed more often.
SHARES = {
    commands.fit_by_sampling: 0.15,
    commands.fit_by_em: 0.25,
    commands.fit_variationally: 0.12,
    commands.certify_examples: 0.13,
    commands.extract_activations: 0.2,
    commands.memorize: 0.05,
    commands.analyze_activations: 0.06,
    commands.analyze_images: 0.03,
    commands.command_with_report: 0.01,
}
KILLS = int(os.environ.get("FASTDENS_TORTURE", "100"))


def is_whole(file):
    """Assert that a file of work that is not finished can be read, and matches its digest."""
    if file.suffix == ".npy":
        np.load(file)
        return
    if file.suffix == ".json":
        json.loads(file.read_text())
        return
    with safe_open(file, framework="pt") as opened:
        kind = json.loads(opened.metadata()["fastdens"])["kind"]
    read_state(file, kind)


@pytest.mark.slow
@pytest.mark.timeout(7200)
@pytest.mark.parametrize("command", SHARES)
def test_killed_commands_go_on_to_the_same_bytes(tmp_path, rng, command):
    kill_and_compare(forked(command), tmp_path, rng, kills=math.ceil(SHARES[command] * KILLS), check_other=is_whole)
