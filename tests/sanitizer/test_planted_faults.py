"""The sanitizer finds the faults for which it is run; on a GPU they would write where they must not."""

from __future__ import annotations

import sys

import pytest
import torch

pytestmark = [pytest.mark.gpu, pytest.mark.skipif("ttsem" not in sys.modules, reason="needs the sanitizer")]


@pytest.fixture
def x(rng):
    return torch.from_numpy(rng.normal(size=(5, 37))).to("cuda")


def test_a_kernel_without_fault_passes(x):
    from tests.sanitizer.faults import column_sums

    torch.testing.assert_close(column_sums(x), x.sum(0))


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("mask_load", r"faults.py:\d+: .*tl.load.* reads 11 element\(s\) past the end .* `x_ptr`"),
        ("mask_store", r"faults.py:\d+: .*tl.store.* writes 11 element\(s\) past the end .* `out_ptr`"),
        ("apart", r"faults.py:\d+: .*tl.store.*"),
    ],
)
def test_a_planted_fault_is_found(x, fault, message):
    from tests.sanitizer.faults import column_sums

    with pytest.raises(Exception, match=message) as caught:
        column_sums(x, **{fault: False})
    assert type(caught.value).__name__ == "KernelFault"
    print(caught.value)
