"""A row: who takes part, on how many models, and what is said of those that fail."""

from __future__ import annotations

from functools import partial

import pytest
import torch

from fastdens.bench import measure as measuring
from fastdens.bench import output, table, timing
from fastdens.bench import run as running
from fastdens.bench.cases import Problem, Run
from fastdens.bench.measure import measure
from fastdens.bench.problems import PROBLEMS
from fastdens.bench.results import Results, RowResult
from fastdens.bench.rows import Row, make_case
from fastdens.bench.run import Plan
from fastdens.bench.timing import Budget, Contestant, take_turns
from fastdens.bench.warm_up import warm_up
from tests.bench.fakes import BUDGET, OURS, PEERS, failing, library


@pytest.fixture(scope="module")
def result() -> RowResult:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(PROBLEMS, "fake", Problem("fake", 40, 10, 2, 1))
        return measure(Row("em", "diag", "fake", 3), PEERS, BUDGET, OURS)


def test_what_libraries_do_stands_in_the_row(result):
    peers = {peer.name: peer for peer in result.peers}
    # Those that lack the operation or its variant take no part.
    assert set(peers) == {one.name for one in PEERS} - {"lacking", "other"}
    assert peers["agreeing"].agrees and peers["agreeing"].difference == 0 and peers["agreeing"].note == "a note"
    assert peers["disagreeing"].agrees is False and peers["disagreeing"].difference > 0.01
    assert peers["infinite"].agrees is False and peers["infinite"].difference is None
    assert peers["failing"].seconds is None
    assert peers["failing"].error.startswith("ArithmeticError: a matrix is not positive definite, really")
    assert peers["missing"].error == "not installed: pip install missing==1.0"
    assert "would hold" in peers["large"].error
    assert peers["largish"].n_models == 10
    assert result.ours.n_models == 40 and result.floor > 0


def test_a_row_that_fastdens_fails_at_is_told_and_kept(monkeypatch, tmp_path):
    monkeypatch.setitem(PROBLEMS, "fake", Problem("fake", 40, 10, 2, 1))
    told, rows = [], (Row("em", "full", "fake", 3), Row("em", "diag", "fake", 3))
    results = running.run(Plan(rows, PEERS, scaling=False), told.append, ours=library("fastdens", failing))
    assert Results.load(results.save(tmp_path)) == results
    for row in results.rows:
        assert row.ours.error.startswith("ArithmeticError: a matrix is not positive definite") and row.peers == ()
    assert all("em-" in text and "ArithmeticError" in text for text in told) and len(told) == 2
    full = table.full_markdown(results)
    assert full.count("| fails [1] | - |") == 2 and "[1] fastdens: ArithmeticError" in full
    assert all(path.stat().st_size for path in output.write(results, tmp_path / "all"))


def test_an_interruption_leaves_the_rows_before_it(monkeypatch, tmp_path):
    def interrupted(case):
        # After the calls on little data, which come first.
        if (case.variant, case.problem.name) == ("diag", "fake"):
            raise KeyboardInterrupt
        return OURS.operations["em"](case)

    monkeypatch.setitem(PROBLEMS, "fake", Problem("fake", 40, 10, 2, 1))
    rows = (Row("em", "full", "fake", 3), Row("em", "diag", "fake", 3))
    keep = partial(Results.save, folder=tmp_path, overwrite=True)
    with pytest.raises(KeyboardInterrupt):
        running.run(Plan(rows, PEERS[:1]), lambda text: None, keep, library("fastdens", interrupted))
    (row,) = Results.load(tmp_path).rows
    assert row.name == "em-full/fake" and row.ours.seconds > 0 and row.peers[0].agrees


def test_libraries_do_all_once_before_anything_is_timed():
    called = []

    def noted(case):
        called.append((case.variant, case.problem.n_features))
        return failing(case)

    rows = [Row("em", variant, problem, 3) for variant in ("full", "diag", "tied") for problem in ("tiny", "small")]
    absent = library("absent", noted, module="no_such_module_anywhere")
    warm_up(rows, [library("lacking", noted, variants=("diag",)), absent], library("fastdens", noted))
    assert called == [("full", 12), ("full", 2), ("diag", 12), ("diag", 2), ("diag", 12), ("diag", 2)]


@pytest.mark.parametrize(("patience", "n_models"), [(10.0, 16), (4.0, 8), (0.8, 1)])
def test_many_models_at_once_as_far_as_patience_goes(monkeypatch, patience, n_models):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def half_a_second_each(case):
        def work():
            clock[0] += 0.5 * case.problem.n_models

        return Run(work, lambda made: made)

    monkeypatch.setitem(PROBLEMS, "fake", Problem("fake", 40, 10, 2, 1))
    budget = Budget(seconds=0.1, rounds=2, patience=patience)
    entered = timing.enter(
        "peer", half_a_second_each, make_case(Row("em", "diag", "fake", 3)), budget, scales=True, together=True
    )
    assert entered.n_models == n_models


def test_a_slow_library_is_timed_on_some_models_and_scaled(result):
    slow = next(peer for peer in result.peers if peer.name == "slow")
    assert slow.n_models < 40 and result.is_scaled(slow)
    assert slow.seconds >= 0.004 * 40 and slow.agrees


def test_a_row_as_text(result):
    text = table.describe_row(result)
    assert "ArithmeticError: a matrix is not positive definite, really" in text and "..." in text
    assert "DIFFERS by" in text and "outcome not finite" in text
    assert "not installed       missing" in text
    assert max(map(len, text.splitlines())) < 130


def test_a_compared_outcome_is_that_of_the_same_models(monkeypatch):
    """The mean over models of a part of them is not that of all."""
    monkeypatch.setitem(PROBLEMS, "fake", Problem("fake", 40, 10, 2, 1))
    monkeypatch.setattr(measuring, "make_case", lambda row: _ascending(measuring_case(row)))
    result = measure(Row("em", "diag", "fake", 3), PEERS[-4:-3], BUDGET, OURS)
    assert result.peers[0].n_models < 40 and result.peers[0].agrees


def measuring_case(row):
    from fastdens.bench.rows import case_of

    return case_of(row, PROBLEMS["fake"])


def _ascending(case):
    case.points.add_(torch.arange(40.0)[:, None, None])
    return case


def test_work_that_was_not_asked_for_is_taken_off(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(timing.time, "perf_counter", lambda: clock[0])

    def take(seconds):
        clock[0] += seconds

    run = Run(lambda: take(0.75), lambda made: torch.zeros(1), before=lambda: take(0.5))
    contestant = Contestant("gmm", run, 1)
    contestant.call()
    assert contestant.seconds == 0.25


def test_turns_alternate():
    calls = []
    contestants = [Contestant(name, Run(lambda name=name: calls.append(name), None), 1, [0.0]) for name in "abc"]
    take_turns(contestants, Budget(1.0, 2, 1.0))
    assert calls == ["a", "b", "c", "c", "b", "a"]


def test_one_call_without_a_warm_up_is_marked(monkeypatch):
    monkeypatch.setitem(PROBLEMS, "fake", Problem("fake", 40, 10, 2, 1))
    impatient = Budget(seconds=0.001, rounds=1, patience=0.001)
    result = measure(Row("em", "diag", "fake", 3), [p for p in PEERS if p.name == "slow"], impatient, OURS)
    assert not result.peers[0].is_warm and result.peers[0].n_calls == 1
    assert "one call, no warm-up" in table.describe_row(result)


def test_what_is_taken_off_is_the_shortest_of_its_own_times():
    contestant = Contestant("peer", Run(lambda: None, lambda made: made), 1)
    contestant.times, contestant.times_before = [3.0, 2.5, 2.6], [2.0, 2.4, 2.3]
    assert contestant.seconds == 0.5 and not contestant.is_mostly_taken_off
    contestant.times_before.append(2.4)
    contestant.times = [2.3]
    assert contestant.seconds == pytest.approx(0.3) and contestant.is_mostly_taken_off
    contestant.forget()
    assert contestant.elapsed == 0
