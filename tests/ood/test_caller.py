"""Warnings of estimators inside detectors are shown where the detector is fitted."""

from __future__ import annotations

import pytest

import fastdens as fd
from tests.ood.problems import classes


def test_warnings_name_the_line_of_the_caller(rng):
    x, y, _ = classes(rng, [40, 30], 3)
    detector = fd.ood.MixtureDensity(fd.GaussianMixtures(3, max_iter=1))
    with pytest.warns(fd.ConvergenceWarning, match="2 of 2 models did not converge") as caught:
        detector.fit(x, y)
    layered = fd.ood.LayeredDetector(detector)
    with pytest.warns(fd.ConvergenceWarning, match="layer 'a'") as of_layers:
        layered.fit({"a": x}, y)
    assert [warning.filename for warning in [*caught, *of_layers]] == [__file__] * 2
