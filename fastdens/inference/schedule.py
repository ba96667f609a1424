"""What each sweep of a fit is for: the search for a start, the burn-in, the kept draws."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

# After so many sweeps statistics are computed anew from the points, so that the errors of their updates do not add up.
_SWEEPS_A_LAUNCH = 16

# The annealed search: the inverse temperature that it starts from, the power of time by which that rises to one, and
# the share of its sweeps after which it is there. Measured; see docs/chains.md.
_FIRST_INVERSE_TEMPERATURE = 0.4
_POWER = 0.7
_SHARE_OF_COOLING = 0.9

# Sweeps of the search at temperature one beside those of the annealed search.
_COLD_SHARE = 0.4

_MOST_MOVES, _MOVES_TIMES_FEATURES = 4.0, 16.0


@dataclass(frozen=True)
class Schedule:
    """The sweeps of a fit.

    The burn-in opens with two searches, each of which ends in a state of the chain: ``n_cold`` sweeps with split-merge
    moves from the start labels, then ``n_annealed`` sweeps from a fine random partition, at a temperature that falls to
    one. Coarse states that single-site updates cannot leave are split by the first; the second finds partitions of many
    small clusters, to which no split of a large cluster leads uphill. The chain goes on from the better of the two.

    Attributes
    ----------
    burn_in, thin : int
        Sweeps before the first that may be kept, and the distance between kept ones.
    n_cold, n_annealed : int
        Sweeps of the two searches, zero for none.
    split_merge : float
        Split-merge moves a sweep, on average.

    References
    ----------
    Kirkpatrick, Gelatt & Vecchi, Optimization by simulated annealing, Science 220, 1983.
    """

    burn_in: int
    thin: int
    n_cold: int = 0
    n_annealed: int = 0
    split_merge: float = 0.0

    @classmethod
    def of(cls, burn_in: int, thin: int, annealing: float, split_merge: float) -> Schedule:
        """The schedule of a burn-in whose share ``annealing`` goes to the annealed search, if both find room."""
        n_annealed = int(burn_in * min(annealing, 1 / (1 + _COLD_SHARE)))
        n_cold = int(_COLD_SHARE * n_annealed)
        # A burn-in of a few sweeps has no room for searches.
        return cls(burn_in, thin, n_cold, n_annealed if n_cold > 0 else 0, split_merge)

    @property
    def n_search(self) -> int:
        """Sweeps of both searches."""
        return self.n_cold + self.n_annealed

    def next_launch(self, sweep: int, n_sweeps: int) -> tuple[int, int]:
        """Sweeps and distance of kept draws of the launch after ``sweep`` sweeps; none when nothing is left to keep."""
        for stage in (self.n_cold, self.n_search, self.burn_in):
            if sweep < stage:
                n = min(_SWEEPS_A_LAUNCH, stage - sweep)
                return n, n
        n_kept = min(max(1, _SWEEPS_A_LAUNCH // self.thin), (n_sweeps - sweep) // self.thin)
        return n_kept * self.thin, self.thin

    def inverse_temperature(self, sweep: int, n_sweeps: int) -> Tensor:
        """Of the sweeps that follow the first ``sweep``, float64 [n_sweeps]."""
        at = torch.arange(sweep, sweep + n_sweeps, dtype=torch.float64) - self.n_cold
        # A short search, too, ends with a sweep at temperature one.
        n_cooling = max(1.0, min(_SHARE_OF_COOLING * self.n_annealed, self.n_annealed - 1))
        share = (at / n_cooling).clamp(0, 1)
        rising = _FIRST_INVERSE_TEMPERATURE + (1 - _FIRST_INVERSE_TEMPERATURE) * share**_POWER
        return torch.where((at >= 0) & (at < self.n_annealed), rising, 1.0)

    def moves(self, sweep: int, n_sweeps: int) -> Tensor:
        """Split-merge moves after each of the sweeps that follow the first ``sweep``, int32 [n_sweeps]."""
        # Whole moves are made when the sum of their fractions reaches them.
        total = (torch.arange(sweep, sweep + n_sweeps + 1, dtype=torch.float64) * self.split_merge + 1e-9).floor()
        is_cold = self.inverse_temperature(sweep, n_sweeps) == 1
        return torch.where(is_cold, total.diff(), 0).int()


def moves_by_default(n_features: int) -> float:
    """Split-merge moves a sweep: a move costs D^2 operations a point, a sweep D, so fewer where D is large."""
    return min(_MOST_MOVES, _MOVES_TIMES_FEATURES / n_features)
