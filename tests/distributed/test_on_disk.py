"""Batches on disk: each rank reads and fits its models in groups, to the bits of one process with all in memory."""

from __future__ import annotations

import numpy as np

from tests.ranks import run_jobs


def test_ranks_read_their_models_in_groups(tmp_path, rng):
    labels = rng.permutation(np.repeat(np.arange(8), 30))
    np.save(tmp_path / "x.npy", rng.normal(size=(len(labels), 3)) + labels[:, None])
    np.save(tmp_path / "y.npy", labels)
    files = [str(tmp_path / "x.npy"), str(tmp_path / "y.npy")]
    results = run_jobs("tests.distributed.disk_checks", tmp_path, {"disk": (2, files)})["disk"]
    for result in results:
        assert result["em"] == result["gibbs"] == ""
        assert "takes a batch in memory: pass batch.load()." in result["points"]
        # No part reaches over the end of a group.
        assert all(max(part) < end for part in result["fitted"] for end in (3, 6, 8) if min(part) < end)
    assert sorted(m for result in results for part in result["fitted"] for m in part) == sorted(2 * list(range(8)))
