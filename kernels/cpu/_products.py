"""Products of matrices whose sums stay in registers, four rows by two vectors of columns at a time.

A loop over ``y[0, b] += u * z[i, b]`` loads and stores y for every multiply-add; here the eight vectors of sums are
kept until the last term, which leaves two loads of vectors and four of numbers to eight multiply-adds.
"""

from __future__ import annotations

from typing import Any

from fastdens.kernels.cpu._numba import kernel
from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

# Thirty-two registers of 512 bits hold these vectors twice over, sixteen of 256 bits just so.
_VECTOR_BYTES = 64 if binding.get_host_cpu_features().get("avx512f") else 32
_ROWS, _VECTORS = 4, 2
_BYTE_POINTER = ir.IntType(8).as_pointer()


@kernel
def block_columns(like):
    """Columns of a block: two vectors of numbers of the dtype of ``like``."""
    return _VECTORS * _VECTOR_BYTES // like.itemsize


class _Block:
    """Generates the code for a block of products."""

    def __init__(self, context: Any, builder: Any, number: Any) -> None:
        self.context, self.builder = context, builder
        self.number = context.get_value_type(number)
        self.item_bytes = number.bitwidth // 8
        self.lanes = _VECTOR_BYTES // self.item_bytes
        self.vector = ir.VectorType(self.number, self.lanes)

    def integer(self, value: int) -> Any:
        return self.context.get_constant(types.intp, value)

    def address(self, array_type: Any, array: Any, row: Any, column: Any) -> Any:
        """Where element ``[row, column]``, or ``[column]`` of an array of one axis, is kept."""
        builder = self.builder
        made = self.context.make_array(array_type)(self.context, builder, array)
        offset = builder.mul(column, self.integer(self.item_bytes))
        if array_type.ndim == 2:
            stride = cgutils.unpack_tuple(builder, made.strides)[0]
            offset = builder.add(offset, builder.mul(row, stride))
        return builder.gep(builder.bitcast(made.data, _BYTE_POINTER), [offset])

    def vectors_at(self, address: Any) -> list[Any]:
        """Pointers to the vectors that begin at an address."""
        steps = (self.builder.gep(address, [self.integer(v * _VECTOR_BYTES)]) for v in range(_VECTORS))
        return [self.builder.bitcast(step, self.vector.as_pointer()) for step in steps]

    def load(self, pointer: Any) -> Any:
        return self.builder.load(pointer, align=self.item_bytes)

    def store(self, value: Any, pointer: Any) -> None:
        self.builder.store(value, pointer, align=self.item_bytes)

    def multiply_add(self, a: Any, b: Any, c: Any) -> Any:
        return self.builder.fadd(self.builder.fmul(a, b, flags=("contract",)), c, flags=("contract",))

    def splat(self, address: Any, place: int) -> Any:
        """The number at a place from an address on, in every lane."""
        builder = self.builder
        pointer = builder.gep(address, [self.integer(place * self.item_bytes)])
        number = builder.load(builder.bitcast(pointer, self.number.as_pointer()))
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = builder.insert_element(undefined, number, ir.Constant(ir.IntType(32), 0))
        return builder.shuffle_vector(first, undefined, ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), None))

    def sums(self, panel_type: Any, panel: Any, z_type: Any, z: Any, column: Any, first: Any, last: Any) -> list[Any]:
        """``sum_i panel[i, r] z[i, column + c]`` over ``first <= i < last``: of each r < 4, its two vectors."""
        builder, zero = self.builder, ir.Constant(self.vector, None)
        # The optimiser turns these places in memory into registers.
        sums = [[cgutils.alloca_once(builder, self.vector) for _ in range(_VECTORS)] for _ in range(_ROWS)]
        for row in sums:
            for place in row:
                builder.store(zero, place)
        with cgutils.for_range_slice(builder, first, last, self.integer(1)) as (i, _):
            loaded = [self.load(pointer) for pointer in self.vectors_at(self.address(z_type, z, i, column))]
            numbers = self.address(panel_type, panel, i, self.integer(0))
            for r, row in enumerate(sums):
                factor = self.splat(numbers, r)
                for place, vector in zip(row, loaded, strict=True):
                    builder.store(self.multiply_add(factor, vector, builder.load(place)), place)
        return [[builder.load(place) for place in row] for row in sums]


@intrinsic
def add_squares_of_product(typing: Any, panel: Any, z: Any, column: Any, n_rows: Any, out: Any) -> Any:
    """Add ``|y_b|^2`` to ``out[b]`` for the columns b of a block that begins at ``column``.

    ``y = panel' z`` of the first rows of ``panel`` [n, 4] and ``z`` [n, B].
    """

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        panel_type, z_type, _, _, out_type = signature.args
        panel, z, column, n_rows, out = arguments
        block = _Block(context, builder, z_type.dtype)
        sums = block.sums(panel_type, panel, z_type, z, column, block.integer(0), n_rows)
        for v, pointer in enumerate(block.vectors_at(block.address(out_type, out, block.integer(0), column))):
            total = block.load(pointer)
            for row in sums:
                total = block.multiply_add(row[v], row[v], total)
            block.store(total, pointer)
        return context.get_dummy_value()

    return types.void(panel, z, types.intp, types.intp, out), codegen


@intrinsic
def subtract_product(typing: Any, panel: Any, z: Any, column: Any, first: Any, last: Any, out: Any, row: Any) -> Any:
    """``out[row:row + 4, b] -= sum_i panel[i, :] z[i, b]`` over ``first <= i < last``, for the columns b of a block."""

    def codegen(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        panel_type, z_type, _, _, _, out_type, _ = signature.args
        panel, z, column, first, last, out, row = arguments
        block = _Block(context, builder, z_type.dtype)
        sums = block.sums(panel_type, panel, z_type, z, column, first, last)
        for r, vectors in enumerate(sums):
            address = block.address(out_type, out, builder.add(row, block.integer(r)), column)
            for vector, pointer in zip(vectors, block.vectors_at(address), strict=True):
                block.store(builder.fsub(block.load(pointer), vector), pointer)
        return context.get_dummy_value()

    return types.void(panel, z, types.intp, types.intp, types.intp, out, types.intp), codegen
