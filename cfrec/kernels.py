"""The half-step that ``gibbs`` repeats, as a compiled kernel: solve and draw many ridge regressions, one for each user or movie.

Indices are unsigned, since Numba lets signed ones count from the end; rows are whole chunks of 16 floats, and eight ratings are added at
once. Together these make the normal equations three times as fast as plain loops.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cfrec.compiled import compiled, compiled_within
from cfrec.ratings import FloatArray, IntArray

LANES = 16  # the length of a design's rows is a multiple of this
_U = np.uint64
_0, _1, _4, _8, _SHIFT = _U(0), _U(1), _U(4), _U(8), _U(4)
_TINY = np.float32(1e-12)

Int64s = npt.NDArray[np.int64]
Index = Any  # an unsigned number: range gives ints by its types, and np.uint64 in compiled code


class Observed(NamedTuple):
    """The ratings of each row: where a row's begin (n_rows + 1,), and of each the row of the design and the value (n_ratings,)."""

    starts: Int64s
    columns: IntArray
    values: FloatArray


class Regression(NamedTuple):
    """``weight (X'X) + base + ridge I`` and ``weight X'values + pull``, of each row; ``ridge`` for the first ``n_ridged`` numbers.

    design (n_others, width), base (size, size), weight and ridge (n_rows,), pull and noise (n_rows, size).
    """

    design: FloatArray
    base: FloatArray
    weight: FloatArray
    ridge: FloatArray
    pull: FloatArray
    noise: FloatArray
    n_ridged: int


class Solution(NamedTuple):
    """The mean of each row and a draw from its distribution, both (n_rows, size)."""

    mean: FloatArray
    draw: FloatArray


@compiled_within
def _add_eight(to: FloatArray, x: FloatArray, at: Int64s, i: Index, width: Index) -> None:
    """Add eight outer products to row ``i`` of the upper triangle."""
    a, b, c, d = _U(at[0]), _U(at[1]), _U(at[2]), _U(at[3])
    e, f, g, h = _U(at[4]), _U(at[5]), _U(at[6]), _U(at[7])
    wa, wb, wc, wd, we, wf, wg, wh = x[a + i], x[b + i], x[c + i], x[d + i], x[e + i], x[f + i], x[g + i], x[h + i]
    row = i * width
    for j in range((i >> _SHIFT) << _SHIFT, width):
        to[row + j] += (
            wa * x[a + j] + wb * x[b + j] + wc * x[c + j] + wd * x[d + j] + we * x[e + j] + wf * x[f + j] + wg * x[g + j] + wh * x[h + j]
        )


@compiled_within
def _add_products(gram: FloatArray, x: FloatArray, columns: IntArray, part: tuple[Index, Index], at: Int64s, size: Index) -> None:
    """Add the outer products of a row's ratings to the upper triangle of ``gram``; all arrays are flat."""
    n, stop = part
    width = _U(math.sqrt(len(gram)) + 0.5)
    while n + _8 <= stop:
        for k in range(_0, _8):
            at[k] = _U(columns[n + k]) * width
        for i in range(_0, size):
            _add_eight(gram, x, at, i, width)
        n += _8
    while n < stop:
        a = _U(columns[n]) * width
        for i in range(_0, size):
            factor, row = x[a + i], i * width
            for j in range((i >> _SHIFT) << _SHIFT, width):
                gram[row + j] += factor * x[a + j]
        n += _1


@compiled_within
def _add(to: FloatArray, factor: np.float32, x: FloatArray, first: Index, size: Index) -> None:
    for j in range(_0, size):
        to[j] += factor * x[first + j]


@compiled_within
def _combine(to: FloatArray, weight: np.float32, row: FloatArray, base: FloatArray, i: Index, stop: Index) -> None:
    for j in range((i >> _SHIFT) << _SHIFT, stop):
        to[j] = weight * row[j] + base[j]


@compiled_within
def _subtract(row: FloatArray, other: FloatArray, i: Index, stop: Index) -> None:
    factor = other[i]
    for j in range((i >> _SHIFT) << _SHIFT, stop):
        row[j] -= factor * other[j]


@compiled_within
def _subtract_four(row: FloatArray, a: FloatArray, b: FloatArray, c: FloatArray, d: FloatArray, i: Index, stop: Index) -> None:
    wa, wb, wc, wd = a[i], b[i], c[i], d[i]
    for j in range((i >> _SHIFT) << _SHIFT, stop):
        row[j] -= wa * a[j] + wb * b[j] + wc * c[j] + wd * d[j]


@compiled_within
def _factorise(m: FloatArray, size: Index) -> None:
    """Cholesky: the upper triangle of ``m`` becomes U with U'U = m."""
    for k in range(_0, size, _4):
        end: Index = min(k + _4, size)
        for p in range(k, end):
            row = m[p]
            scale = np.float32(1) / math.sqrt(max(row[p], _TINY))
            for j in range((p >> _SHIFT) << _SHIFT, size):
                row[j] *= scale
            for i in range(p + _1, end):
                _subtract(m[i], row, i, size)
        if end - k == _4:
            a, b, c, d = m[k], m[k + _1], m[k + _U(2)], m[k + _U(3)]
            for i in range(end, size):
                _subtract_four(m[i], a, b, c, d, i, size)


@compiled_within
def _solve(m: FloatArray, mean: FloatArray, draw: FloatArray, size: Index) -> None:
    """``mean`` becomes m^-1 mean, and ``draw``, noise, becomes mean + U^-1 draw, by the factors of m."""
    for k in range(_0, size):
        row = m[k]
        value = mean[k] / row[k]
        mean[k] = value
        for j in range(k + _1, size):
            mean[j] -= value * row[j]
    for back in range(_0, size):
        k = size - _1 - back
        row = m[k]
        a, b = mean[k], draw[k]
        for j in range(k + _1, size):
            a -= row[j] * mean[j]
            b -= row[j] * draw[j]
        mean[k], draw[k] = a / row[k], b / row[k]
    for k in range(_0, size):
        draw[k] += mean[k]


@compiled
def solve_rows(part: tuple[int, int], observed: Observed, regression: Regression, solution: Solution) -> None:
    """Solve the regressions of rows from the first to before the last of ``part``. No row's result depends on another's."""
    design, base = regression.design, regression.base
    width, size = _U(design.shape[1]), _U(solution.mean.shape[1])
    x, at = design.ravel(), np.zeros(8, np.int64)
    gram, m, pulled = np.zeros((width, width), np.float32), np.zeros((width, width), np.float32), np.zeros(width, np.float32)
    flat = gram.ravel()
    for row in range(part[0], part[1]):
        start, stop = _U(observed.starts[row]), _U(observed.starts[row + 1])
        flat[:] = 0
        pulled[:] = 0
        _add_products(flat, x, observed.columns, (start, stop), at, size)
        for n in range(start, stop):
            _add(pulled, observed.values[n], x, _U(observed.columns[n]) * width, width)
        weight = regression.weight[row]
        for i in range(_0, size):
            _combine(m[i], weight, gram[i], base[i], i, size)
            if i < _U(regression.n_ridged):
                m[i, i] += regression.ridge[row]
        _factorise(m, size)
        for i in range(_0, size):
            solution.mean[row, i] = weight * pulled[i] + regression.pull[row, i]
            solution.draw[row, i] = regression.noise[row, i]
        _solve(m, solution.mean[row], solution.draw[row], size)


@compiled
def subtract_dot_products(part: tuple[int, int], observed: Observed, rows: FloatArray, others: FloatArray, to: FloatArray) -> None:
    """Write ``values - rows[r] . others[column]`` of the ratings of rows from the first to before the last of ``part``."""
    size = _U(rows.shape[1])
    for row in range(part[0], part[1]):
        own = rows[row]
        for n in range(_U(observed.starts[row]), _U(observed.starts[row + 1])):
            other = others[observed.columns[n]]
            dot = np.float32(0)
            for j in range(_0, size):
                dot += own[j] * other[j]
            to[n] = observed.values[n] - dot
