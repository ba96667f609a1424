"""Ranks on hosts of their own: network namespaces that a cable joins, where this machine lets a program make them."""

from __future__ import annotations

import os
import subprocess

import pytest

from tests.ranks import run_jobs

CHECKS = "tests.process_group.checks"


def ip(command: str) -> None:
    subprocess.run(["ip", *command.split()], check=True, capture_output=True)


@pytest.fixture(scope="module")
def namespaces():
    """The names of two namespaces, 10.99.0.1 and 10.99.0.2 on their interfaces eth0."""
    names = [f"fastdens{os.getpid()}{side}" for side in "ab"]
    try:
        for name in names:
            ip(f"netns add {name}")
            ip(f"-n {name} link set lo up")
        ip(f"-n {names[0]} link add eth0 type veth peer name eth0 netns {names[1]}")
        for number, name in enumerate(names, 1):
            ip(f"-n {name} addr add 10.99.0.{number}/24 dev eth0")
            ip(f"-n {name} link set eth0 up")
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"this machine lets no program make network namespaces ({error})")
    yield names
    for name in names:
        subprocess.run(["ip", "netns", "del", name], check=False)


def settings(names):
    return {"FASTDENS_TEST_NAMESPACES": " ".join(names), "GLOO_SOCKET_IFNAME": "eth0"}


def test_ranks_on_two_hosts(namespaces, tmp_path):
    jobs = {what: (2, [what]) for what in ("exchange", "compute")}
    seen = run_jobs(CHECKS, tmp_path, jobs, **settings(namespaces))
    for result in seen["exchange"]:
        assert result["all_gather"] and result["broadcast"] and result["goes on"]
    assert seen["compute"][0]["first"].startswith("RankEndedError: rank 1 (")


@pytest.mark.slow
def test_a_lost_host_is_known_within_a_minute(namespaces, tmp_path):
    seen = run_jobs(CHECKS, tmp_path, {"lost": (2, ["lost host"])}, **settings(namespaces))
    for rank, result in enumerate(seen["lost"]):
        assert result["first"].startswith(f"RankEndedError: rank {1 - rank} (")
        assert result["seconds"] < 60
