"""Instructions of the processor that Numba lacks: to have memory fetched while something else is computed, and for threads to agree."""

from __future__ import annotations

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_READ, _KEEP, _DATA = 0, 3, 1  # what a fetch is told: to be read, to be kept in every cache, no code


@intrinsic
def prefetch(_context: Any, array: Any, index: Any) -> Any:
    """Have the cache line fetched in which ``array[index]`` is, for a one-dimensional array; it need not lie within it."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place, number = builder.bitcast(_place(context, builder, signature, arguments), cgutils.voidptr_t), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [cgutils.voidptr_t, number, number, number])
        function = cgutils.get_or_insert_function(builder.module, kind, "llvm.prefetch.p0")  # type: ignore[no-untyped-call]
        builder.call(function, [place, *(ir.Constant(number, value) for value in (_READ, _KEEP, _DATA))])
        return context.get_dummy_value()

    return types.void(array, index), generate


@intrinsic
def count_up(_context: Any, array: Any, index: Any) -> Any:
    """Add one to ``array[index]`` and return what was there: of threads that do so at once, each gets another number.

    For a one-dimensional array of int64. Whoever ``look``s and finds the new number finds all that was written before it.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.atomic_rmw("add", _place(context, builder, signature, arguments), ir.Constant(ir.IntType(64), 1), "acq_rel")

    return types.int64(array, index), generate


@intrinsic
def look(_context: Any, array: Any, index: Any) -> Any:
    """What is in ``array[index]`` by now, of a one-dimensional array of int64 that other threads ``count_up`` in."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return builder.load_atomic(_place(context, builder, signature, arguments), "acquire", 8)

    return types.int64(array, index), generate


def _place(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    """Pointer to ``array[index]``."""
    return builder.gep(context.make_array(signature.args[0])(context, builder, arguments[0]).data, [arguments[1]])
