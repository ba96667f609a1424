"""Tables of what tensors must be: shapes that share their letters, kinds of numbers, indices."""

from __future__ import annotations

import pytest
import torch

from fastdens.io.expected import check_indices, check_tensors

WHOLE = {"x": torch.zeros(5, 2), "offsets": torch.tensor([0, 3, 5]), "bad": torch.zeros(2, dtype=torch.bool)}
EXPECTED = {"x": "float N D", "offsets": "int M+1", "bad": "bool M"}


def test_the_lengths_of_the_letters():
    assert check_tensors("here", WHOLE, EXPECTED, D=2) == {"N": 5, "D": 2, "M": 2}
    check_indices("here", WHOLE, ["offsets"], 6)


@pytest.mark.parametrize(
    "changed",
    [
        {"x": torch.zeros(5, 3)},
        {"x": torch.zeros(5)},
        {"x": torch.zeros(5, 2, dtype=torch.float16)},
        {"offsets": torch.tensor([0, 5])},
        {"offsets": torch.tensor([], dtype=torch.int64)},
        {"bad": torch.zeros(2, dtype=torch.int64)},
    ],
)
def test_others_are_named(changed):
    (name,) = changed
    with pytest.raises(ValueError, match=r"^here has '"):
        check_tensors("here", WHOLE | changed, EXPECTED, D=2)
    with pytest.raises(ValueError, match=f"^here has no tensor '{name}'"):
        check_tensors("here", {key: value for key, value in WHOLE.items() if key != name}, EXPECTED)


@pytest.mark.parametrize("n", [5, 0])
def test_indices_out_of_range(n):
    with pytest.raises(ValueError, match=f"from 0 to 5 in 'offsets', but they are indices under {n}"):
        check_indices("here", WHOLE, ["offsets"], n)
