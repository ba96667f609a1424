"""Results as JSON, as Markdown, as a picture."""

from __future__ import annotations

import json
import math

import pytest
import torch

from fastdens.bench import output, table, text
from fastdens.bench.cases import Problem
from fastdens.bench.comparison import agrees, difference
from fastdens.bench.exponents import fit_exponent
from fastdens.bench.machine import describe
from fastdens.bench.results import Exponent, PeerFacts, Results, RowResult, ThreadTime, Timing


@pytest.fixture
def results() -> Results:
    problem = Problem("paper-16", 100, 500, 16, 6)
    peers = (
        Timing("scikit-learn", 2.0, 4, 3, difference=1e-6, agrees=True),
        Timing("fast but wrong", 0.01, 100, 3, difference=0.5, agrees=False),
        Timing("gmm-gpu", error="RuntimeError: a | b"),
    )
    rows = [
        RowResult(f"em-full/{name}", "em", "full", 20, problem, Timing("fastdens", s, 100, 3), s / 2, "products", peers)
        for name, s in (("small", 0.002), ("paper-16", 0.06), ("paper-64", 0.5))
    ]
    rows.append(
        RowResult("chains/small", "chains", "", 400, problem, Timing("fastdens", 3.0, 100, 1), remark="100 of 100")
    )
    return Results(
        describe(),
        tuple(rows),
        (Exponent("EM", "M", 1.02, (32, 64), (0.1, 0.2)),),
        (ThreadTime("EM", 1, 2.0), ThreadTime("EM", 2, 1.1)),
        (PeerFacts("gmm-gpu", "gmm-gpu==0.2.8", None, "It does more."),),
    )


def test_json_round_trip(results, tmp_path):
    path = results.save(tmp_path)
    assert Results.load(path) == results == Results.load(tmp_path)
    with pytest.raises(FileExistsError):
        results.save(tmp_path)
    path.write_text(json.dumps({"format": 99}))
    with pytest.raises(ValueError, match="format 99"):
        Results.load(path)
    path.write_text("{}")
    with pytest.raises(ValueError, match="holds no results"):
        Results.load(path)


def test_every_file_is_written(results, tmp_path):
    written = output.write(results, tmp_path / "folder")
    names = {path.name for path in written}
    assert names == {"results.json", "table.md", "summary.md", "scaling.md", "peers.md", "times.png", "times.pdf"}
    assert all(path.stat().st_size for path in written)
    with pytest.raises(FileExistsError, match="--overwrite"):
        output.check_output(tmp_path / "folder", overwrite=False)


def test_the_short_table_names_the_fastest_that_agrees(results):
    lines = table.short_markdown(results).splitlines()
    assert len([line for line in lines if line.startswith("|")]) == 2 + 3
    assert "| 60 ms | 2 | scikit-learn ~2 s (33.3×) |" in lines[3]
    assert "fast but wrong" not in "".join(lines[:-1])


def test_the_full_table_has_messages_and_marks(results):
    full = table.full_markdown(results)
    assert "fails [1]" in full and "- [1] gmm-gpu: RuntimeError: a | b" in full
    assert "≠10 ms (0.17×)" in full
    assert "### Chains until they agree" in full and "100 of 100" in full
    for block in full.split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({line.count("|") for line in rows}) <= 1


def test_scaling_and_peers(results):
    assert "| EM | 1.02 |" in table.scaling_markdown(results)
    assert "| EM | 2 s | 1.1 s |" in table.scaling_markdown(results)
    assert table.peers_markdown(results.peers) == "**gmm-gpu** (gmm-gpu, not installed here). It does more.\n"
    assert "M^1.02" in table.describe_results(results)


@pytest.mark.parametrize("power", [0.5, 1.0, 2.3])
def test_exponents_of_power_laws(power):
    values = (2, 4, 8, 16)
    found = fit_exponent("EM", "N", values, [3e-3 * v**power for v in values])
    assert found.exponent == pytest.approx(power)


def test_differences():
    a = torch.tensor([-100.0, 0.5], dtype=torch.float64)
    assert difference("em", a, a + torch.tensor([0.1, 0.0], dtype=torch.float64)) == pytest.approx(1e-3)
    assert difference("em", a, a + torch.tensor([0.0, 1e-3], dtype=torch.float64)) == pytest.approx(1e-3)
    # Of random numbers only the mean counts.
    assert difference("start", torch.tensor([1.0, 3.0]), torch.tensor([3.0, 1.0])) == 0
    assert difference("em", a, a[:1]) == math.inf == difference("em", a, a * math.nan)
    assert agrees("em", 1e-4) and not agrees("em", 0.1) and not agrees("em", math.inf)


@pytest.mark.parametrize(
    ("value", "words"), [(1240.0, "1,240 s"), (39.14, "39.1 s"), (0.0032, "3.2 ms"), (0.25, "0.25 s"), (3e-5, "30 µs")]
)
def test_seconds_in_words(value, words):
    assert text.seconds(value) == words


@pytest.mark.parametrize(("value", "words"), [(85.63, "85.6"), (0.731, "0.73"), (12_345.0, "12,000"), (136.4, "136")])
def test_ratios_in_words(value, words):
    assert text.times(value) == words
