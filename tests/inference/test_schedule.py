"""What each sweep of a fit is for: launches, temperatures and split-merge moves."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastdens.inference.schedule import Schedule, moves_by_default

# One model, which is annealed.
HOT = torch.tensor([True])


def launches(schedule, n_sweeps):
    """First sweep, sweeps and distance of kept draws of every launch of a fit."""
    sweep, found = 0, []
    while sweep < n_sweeps:
        n, thin = schedule.next_launch(sweep, n_sweeps)
        if n == 0:
            break
        found.append((sweep, n, thin))
        sweep += n
    return found


def test_searches_open_the_burn_in():
    schedule = Schedule.of(320, 4, 0.7)
    assert (schedule.n_cold, schedule.n_annealed, schedule.n_search) == (32, 128, 224)
    assert Schedule.of(75, 1, 1.0).n_search == 70
    assert Schedule.of(320, 4, 0.0).n_search == 0


@pytest.mark.parametrize("burn_in", range(0, 40, 3))
def test_a_tiny_burn_in_has_all_searches_or_none(burn_in):
    schedule = Schedule.of(burn_in, 1, 0.5)
    assert schedule.n_search == 7 * (burn_in // 14)
    assert (schedule.inverse_temperature(0, burn_in, HOT) < 1).sum() == [0, 3, 7][burn_in // 14]


def test_models_of_few_points_for_their_dimension_are_annealed():
    sizes = torch.tensor([1, 160, 161, 500])
    assert Schedule.of(320, 4, 0.7).is_annealed(sizes, 16).tolist() == [True, True, False, False]
    assert not Schedule.of(320, 4, 0.0).is_annealed(sizes, 16).any()
    beta = Schedule.of(320, 4, 0.7).inverse_temperature(0, 320, torch.tensor([True, False]))
    assert beta.shape == (2, 320) and (beta[0] < 1).any() and (beta[1] == 1).all()


def test_launches_end_with_every_stage_and_keep_every_draw(rng):
    for _ in range(50):
        burn_in, thin, extra = (int(v) for v in rng.integers([0, 1, 1], [200, 40, 200]))
        schedule = Schedule.of(burn_in, thin, float(rng.uniform(0, 1)))
        found = launches(schedule, burn_in + extra)
        ends = {0} | {first + n for first, n, _ in found}
        assert ends >= {schedule.n_cold, 2 * schedule.n_cold, schedule.before_annealing, schedule.n_search, burn_in}
        assert all(n <= max(32, thin) and n % own == 0 for _, n, own in found)
        kept = [n // own for first, n, own in found if first >= burn_in]
        assert all(own == thin for first, _, own in found if first >= burn_in) and sum(kept) == extra // thin


def test_the_temperature_falls_to_one_in_the_annealed_search_alone():
    schedule = Schedule.of(320, 4, 0.7)
    beta = schedule.inverse_temperature(0, 400, HOT)[0].numpy()
    cooling = 0.4 + 0.6 * (np.arange(116) / (0.9 * 128)) ** 0.7
    np.testing.assert_allclose(beta[96:211], cooling[:115], rtol=1e-12)
    assert (beta[:96] == 1).all() and (beta[212:] == 1).all() and (np.diff(beta[96:212]) > 0).all()
    parts = [schedule.inverse_temperature(first, n, HOT)[0] for first, n, _ in launches(schedule, 400)]
    assert torch.equal(torch.cat(parts), torch.from_numpy(beta))


@pytest.mark.parametrize("burn_in", [14, 15, 28, 40, 100, 1000])
def test_the_last_sweep_of_a_search_is_at_temperature_one(burn_in):
    schedule = Schedule.of(burn_in, 1, 0.5)
    beta = schedule.inverse_temperature(schedule.before_annealing, schedule.n_annealed, HOT)[0]
    assert beta[0] == 0.4 and beta[-1] == 1 and (beta.diff() >= 0).all()


@pytest.mark.parametrize("rate", [0.0, 0.25, 1 / 3, 0.1, 1.0, 2.7])
def test_moves_sum_to_the_rate(rate):
    schedule = Schedule(100, 1)
    moves = schedule.moves(0, 3000, HOT, torch.tensor([rate]).double())[0]
    assert moves.dtype == torch.int32 and int(moves.sum()) == round(3000 * rate)
    assert moves.min() >= int(rate) and moves.max() <= int(np.ceil(rate))
    # However the sweeps are cut into launches.
    parts = [schedule.moves(first, 7, HOT, torch.tensor([rate]).double())[0] for first in range(0, 2996, 7)]
    assert torch.equal(torch.cat(parts), moves[:2996])


def test_no_moves_above_temperature_one():
    schedule = Schedule.of(320, 4, 0.7)
    beta, moves = schedule.inverse_temperature(0, 400, HOT), schedule.moves(0, 400, HOT, torch.tensor([3.0]))
    assert (moves[beta < 1] == 0).all() and (moves[beta == 1] == 3).all() and (beta < 1).sum() == 116


def test_fewer_moves_where_there_are_more_features_and_more_where_there_are_fewer_points():
    for d, want in ((1, [4, 4, 4, 4]), (4, [4, 4, 4, 4]), (16, [4, 2, 0.5, 0.5]), (64, [4, 0.5, 0.125, 0.125])):
        assert moves_by_default(torch.tensor([1, 125, 500, 100_000]), d).tolist() == want
