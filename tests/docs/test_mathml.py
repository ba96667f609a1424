import importlib.util

import pytest

from tests.docs.conftest import REPOSITORY

_SPEC = importlib.util.spec_from_file_location("mathml", REPOSITORY / "docs" / "extensions" / "mathml.py")
mathml = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(mathml)


@pytest.mark.parametrize(
    ("latex", "parts"),
    [
        (r"x \sim y", ["<mo>∼</mo>"]),
        (r"\boldsymbol{\mu}, \mathbf{x}, \mathbf{1}", ["𝝁", "𝐱", "𝟏"]),
        (r"\mathcal N(0, 1), \mathbb{R}", ["𝒩", "ℝ"]),
        (r"\Sigma", ['<mi mathvariant="normal">Σ</mi>']),
        (r"\log p", ['<mo form="prefix" lspace="0em" rspace="0.167em">log</mo>']),
        (r"\log(p)", ['<mo form="prefix" lspace="0em" rspace="0em">log</mo>']),
        (r"2\log p", ['lspace="0.167em" rspace="0.167em">log']),
        (r"\lvert A \rvert", ['<mo lspace="0em" rspace="0em" stretchy="false">|</mo>']),
        (r"f(-x)", ['<mo form="prefix">−</mo>']),
        (r"\hat{R}", ['<mover accent="true">', "ˆ"]),
    ],
)
def test_formulas_have_the_letters_and_spaces_of_tex(latex, parts):
    found = mathml.to_mathml(latex, "inline")
    assert all(part in found for part in parts), found


def test_lines_are_aligned_and_limits_stand_below():
    aligned = mathml.to_mathml(r"\begin{aligned} a &= b \\ &= c \end{aligned}", "block")
    assert aligned.count("text-align: right") == aligned.count("text-align: left") == 2
    assert mathml.to_mathml(r"a &= b \\ c &= d", "block").count("<mtr>") == 2
    assert "<munder><mo" in mathml.to_mathml(r"\max_k r_k", "block")


@pytest.mark.parametrize("latex", [r"\nosuchcommand x", r"\frac{1}", r"a & b"])
def test_what_has_no_mathml_is_an_error_that_quotes_it(latex):
    with pytest.raises(ValueError, match="the formula") as error:
        mathml.to_mathml(latex, "inline")
    assert repr(latex) in str(error.value)
