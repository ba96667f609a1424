"""Elementary functions that vectorise, where calls of the C library would run one number at a time.

The exponent is read from and written to the bits of a number, the rest is a polynomial. ``number`` is the type of the
argument, np.float32 or np.float64, in which the constants are taken.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from fastdens.kernels.cpu._numba import kernel
from numba import types
from numba.extending import intrinsic

_INTEGER = {types.float32: types.int32, types.float64: types.int64}
_MANTISSA_BITS = {types.float32: 23, types.float64: 52}
_BITS_OF_ONE = {
    types.float32: int(np.float32(1).view(np.int32)),
    types.float64: int(np.float64(1).view(np.int64)),
}
_BITS_OF_ROOT_HALF = {
    types.float32: int(np.float32(0.5**0.5).view(np.int32)),
    types.float64: int(np.float64(0.5**0.5).view(np.int64)),
}


def _bits_and_exponent(context: Any, builder: Any, number: Any, x: Any) -> tuple[Any, Any]:
    """The bits of x, and the k for which ``x / 2^k`` lies between the roots of 1/2 and of 2; x is at least 1."""
    integer = _INTEGER[number]
    bits = builder.bitcast(x, context.get_value_type(integer))
    above = builder.sub(bits, context.get_constant(integer, _BITS_OF_ROOT_HALF[number]))
    return bits, builder.ashr(above, context.get_constant(integer, _MANTISSA_BITS[number]))


@intrinsic
def _exponent(typing: Any, x: Any) -> Any:
    """That k, as a float."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        _, k = _bits_and_exponent(context, builder, x, arguments[0])
        return builder.sitofp(k, arguments[0].type)

    return x(x), codegen


@intrinsic
def _mantissa(typing: Any, x: Any) -> Any:
    """``x / 2^k``."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        bits, k = _bits_and_exponent(context, builder, x, arguments[0])
        exponent = builder.shl(k, context.get_constant(_INTEGER[x], _MANTISSA_BITS[x]))
        return builder.bitcast(builder.sub(bits, exponent), arguments[0].type)

    return x(x), codegen


@intrinsic
def _power_of_two(typing: Any, k: Any) -> Any:
    """``2^k`` of a float k that is an integer, within the range of normal numbers."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        integer = _INTEGER[k]
        exponent = builder.fptosi(arguments[0], context.get_value_type(integer))
        exponent = builder.shl(exponent, context.get_constant(integer, _MANTISSA_BITS[k]))
        bits = builder.add(exponent, context.get_constant(integer, _BITS_OF_ONE[k]))
        return builder.bitcast(bits, arguments[0].type)

    return k(k), codegen


@kernel
def log1p(y, number):
    """``log(1 + y)`` for ``y >= 0``, to a few units in the last place."""
    u = number(1) + y
    k = _exponent(u)
    # Where 1 + y has lost digits of y, it lies in the binade of 1, and y itself is what is left over.
    f = y if k == number(0) else _mantissa(u) - number(1)
    # log(1 + f) = 2 artanh(f / (2 + f)), of which the argument is at most 0.172.
    s = f / (number(2) + f)
    z = s * s
    p = number(1 / 21)
    for n in (19, 17, 15, 13, 11, 9, 7, 5, 3):
        p = p * z + number(1 / n)
    log = k * number(0.6931471805599453) + number(2) * (s + s * z * p)
    return log if y < number(np.inf) else y


@kernel
def exp_minus(a, number):
    """``exp(-a)`` for ``a >= 0``, to a unit in the last place of 1; zero from 80 on and for NaN."""
    inside = a < number(80)
    t = -a * number(1.4426950408889634) if inside else number(0)
    k = np.rint(t)
    z = (t - k) * number(0.6931471805599453)
    p = number(1 / 6227020800)
    for factorial in (479001600, 39916800, 3628800, 362880, 40320, 5040, 720, 120, 24, 6, 2, 1, 1):
        p = p * z + number(1 / factorial)
    return p * _power_of_two(k) if inside else number(0)
