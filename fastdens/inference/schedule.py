"""What each sweep of a fit is for: the search for a start, the burn-in, the kept draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# After so many sweeps statistics are computed anew from the points, so that the errors of their updates do not add up.
_SWEEPS_A_LAUNCH = 32

# The annealed search: the inverse temperature that it starts from, the power of time by which that rises to one, and
# the share of its sweeps after which it is there. Measured; see docs/guides/sampler.md.
_FIRST_INVERSE_TEMPERATURE = 0.4
_POWER = 0.7
_SHARE_OF_COOLING = 0.9

# Many small clusters may be the better partition of a model only where it has few points for each dimension: at most so
# many. Measured; see docs/guides/sampler.md.
_MOST_POINTS_A_FEATURE = 10

# Split-merge moves a sweep: so many in up to four dimensions, and eight over D in D dimensions, of a model of 500
# points. Chains of smaller models cost little and make more of them. Measured; see docs/guides/sampler.md.
_MOST_MOVES, _FEATURES_FOR_MOST_MOVES, _MOVES_TIMES_FEATURES, _POINTS_FOR_MORE = 4.0, 4, 8.0, 500


@dataclass(frozen=True)
class Schedule:
    """The sweeps of a fit.

    The burn-in opens with three cold searches, each of which ends in a state of the chain: ``n_cold`` sweeps with
    split-merge moves from the start labels, as many from k-means clusters, and as many from one cluster. The chain goes
    on from the best of them. Where a model has few points for its dimension, ``n_annealed`` sweeps follow from a fine
    random partition at a temperature that falls to one, and the chain goes on from there if that is better. Annealing
    finds partitions of many small clusters, to which no split of a large cluster leads uphill.

    Attributes
    ----------
    burn_in, thin : int
        Sweeps before the first that may be kept, and the distance between kept ones.
    n_cold, n_annealed : int
        Sweeps of each cold search and of the annealed one, zero for none.

    References
    ----------
    Kirkpatrick, Gelatt & Vecchi, Optimization by simulated annealing, Science 220, 1983.
    """

    burn_in: int
    thin: int
    n_cold: int = 0
    n_annealed: int = 0

    @classmethod
    def of(cls, burn_in: int, thin: int, search: float) -> Schedule:
        """The schedule of a burn-in whose share ``search`` goes to searches, mostly to the annealed one."""
        n_cold = int(burn_in * search / 7 + 1e-9)
        return cls(burn_in, thin, n_cold, 4 * n_cold)

    @property
    def n_search(self) -> int:
        """Sweeps of all searches."""
        return self.before_annealing + self.n_annealed

    @property
    def before_annealing(self) -> int:
        """Sweeps of the searches before the annealed one."""
        return 3 * self.n_cold

    def next_launch(self, sweep: int, n_sweeps: int) -> tuple[int, int]:
        """Sweeps and distance of kept draws of the launch after ``sweep`` sweeps; none when nothing is left to keep."""
        for stage in (self.n_cold, 2 * self.n_cold, self.before_annealing, self.n_search, self.burn_in):
            if sweep < stage:
                n = min(_SWEEPS_A_LAUNCH, stage - sweep)
                return n, n
        n_kept = min(max(1, _SWEEPS_A_LAUNCH // self.thin), (n_sweeps - sweep) // self.thin)
        return n_kept * self.thin, self.thin

    def is_annealed(self, sizes: Tensor, n_features: int) -> Tensor:
        """Which models, of ``sizes`` points, have an annealed search, bool [M]."""
        return (sizes <= _MOST_POINTS_A_FEATURE * n_features) & (self.n_annealed > 0)

    def inverse_temperature(self, sweep: int, n_sweeps: int, annealed: Tensor) -> Tensor:
        """Of the sweeps W that follow the first ``sweep``, float64 [M, W]; ``annealed`` is bool [M]."""
        if sweep + n_sweeps <= self.before_annealing or sweep >= self.n_search:
            return torch.ones(len(annealed), n_sweeps, dtype=torch.float64, device=annealed.device)
        at = torch.arange(sweep, sweep + n_sweeps, dtype=torch.float64, device=annealed.device)
        at -= self.before_annealing
        # A short search, too, ends with a sweep at temperature one.
        n_cooling = max(1.0, min(_SHARE_OF_COOLING * self.n_annealed, self.n_annealed - 1))
        share = (at / n_cooling).clamp(0, 1)
        rising = _FIRST_INVERSE_TEMPERATURE + (1 - _FIRST_INVERSE_TEMPERATURE) * share**_POWER
        return torch.where(annealed[:, None] & (at >= 0) & (at < self.n_annealed), rising, 1.0)

    def moves(self, sweep: int, n_sweeps: int, annealed: Tensor, rate: Tensor) -> Tensor:
        """Split-merge moves after each sweep that follows the first ``sweep``, int32 [M, W]; none while hot.

        ``rate`` is float64 [M], moves a sweep on average.
        """
        # Whole moves are made when the sum of their fractions reaches them.
        at = torch.arange(sweep, sweep + n_sweeps + 1, dtype=torch.float64, device=annealed.device)
        due = (at * rate[:, None] + 1e-9).floor().diff()
        return torch.where(self.inverse_temperature(sweep, n_sweeps, annealed) == 1, due, 0).int()


def moves_by_default(sizes: Tensor, n_features: int) -> Tensor:
    """Split-merge moves a sweep of models of so many points, float64 [M].

    A move costs D^2 operations a point, a sweep D: fewer are made where D is large.
    """
    most = _MOST_MOVES if n_features <= _FEATURES_FOR_MOST_MOVES else _MOVES_TIMES_FEATURES / n_features
    return (most * (_POINTS_FOR_MORE / sizes.double()).clamp_min(1)).clamp_max(_MOST_MOVES)


def most_sweeps(n_sweeps: int, max_sweeps: int | None) -> int:
    """Sweeps that a chain makes at most until it has converged: by default ten times those of its first round."""
    return 10 * n_sweeps if max_sweeps is None else max_sweeps
