"""The half-step that ``gibbs`` repeats, as a compiled kernel: solve and draw many ridge regressions, one for each user or movie.

The products are BLAS's, a block of ratings at a time. Factorising small matrices is twice as fast here as by LAPACK: four rows at once,
from the start of a chunk of 16 floats on, with unsigned indices, since Numba lets signed ones count from the end.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from cfrec.compiled import compiled, compiled_within
from cfrec.ratings import FloatArray, IntArray

_BLOCK = 512  # ratings whose rows of the design are multiplied at once, while they are in the cache
_U = np.uint64
_0, _1, _4, _SHIFT = _U(0), _U(1), _U(4), _U(4)
_TINY = np.float32(1e-12)

Int64s = npt.NDArray[np.int64]
Index = Any  # an unsigned number: range gives ints by its types, and np.uint64 in compiled code


class Observed(NamedTuple):
    """The ratings of each row: where a row's begin (n_rows + 1,), and of each the row of the design and the value (n_ratings,)."""

    starts: Int64s
    columns: IntArray
    values: FloatArray


class Regression(NamedTuple):
    """The regressions of all rows on the same design: of each row, ``weight (X'X) + base + ridge I`` and ``weight X'y + pull``.

    design (n_others, size + n_given), and by what the values that belong to each of its rows are multiplied (n_others,);
    base (size, size); weight and ridge (n_rows,); pull (n_rows, size). The coefficients of the last columns are given (n_rows, n_given).
    """

    design: FloatArray
    trust: FloatArray
    base: FloatArray
    weight: FloatArray
    ridge: FloatArray
    pull: FloatArray
    given: FloatArray


class Solution(NamedTuple):
    """Of each row the mean (n_rows, size), a draw around it (n_rows, size), and the draw's squared misses (n_rows,).

    Draws take the place of standard normal numbers. Where there are none (0, size), nothing is drawn.
    """

    mean: FloatArray
    draw: FloatArray
    missed: FloatArray


class _Sums(NamedTuple):
    """Normal equations as they grow: X'X, X'y, and room for a block of X and y, and for what it adds."""

    gram: FloatArray
    pulled: FloatArray
    rows: FloatArray
    values: FloatArray
    more: FloatArray
    pulled_more: FloatArray


@compiled_within
def _add(to: FloatArray, x: FloatArray) -> None:
    for j in range(len(x)):
        to[j] += x[j]


@compiled_within
def _add_up(sums: _Sums, regression: Regression, columns: IntArray, values: FloatArray) -> np.float32:
    """Set X'X and X'y, X being the rows of the design that ``columns`` names; returns y'y."""
    design, trust, width = regression.design, regression.trust, len(sums.pulled)
    squares = np.float32(0)
    sums.gram[:] = 0
    sums.pulled[:] = 0
    for start in range(0, len(columns), _BLOCK):
        n = min(_BLOCK, len(columns) - start)
        rows, block_values = sums.rows[:n], sums.values[:n]
        for i in range(n):
            column = _U(columns[start + i])
            value = trust[column] * values[start + i]
            block_values[i] = value
            squares += value * value
            for j in range(width):
                rows[i, j] = design[column, j]
        np.dot(rows.T, rows, sums.more)
        np.dot(block_values, rows, sums.pulled_more)
        _add(sums.gram.ravel(), sums.more.ravel())
        _add(sums.pulled, sums.pulled_more)
    return squares


@compiled_within
def _missed(sums: _Sums, squares: np.float32, row: FloatArray, given: FloatArray) -> np.float32:
    """Squared misses: y'y - 2 w'X'y + w'X'X w, w being the row and the coefficients that are given."""
    size, width = len(row), len(row) + len(given)
    missed = squares
    for i in range(width):
        own = row[i] if i < size else given[i - size]
        sum_ = np.float32(-2) * sums.pulled[i]
        for j in range(size):
            sum_ += sums.gram[i, j] * row[j]
        for j in range(size, width):
            sum_ += sums.gram[i, j] * given[j - size]
        missed += own * sum_
    return max(missed, np.float32(0))


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
def _solve(m: FloatArray, mean: FloatArray, size: Index) -> None:
    """``mean`` becomes m^-1 mean, by the factors of m."""
    for k in range(_0, size):
        row = m[k]
        value = mean[k] / row[k]
        mean[k] = value
        for j in range(k + _1, size):
            mean[j] -= value * row[j]
    _solve_back(m, mean, size)


@compiled_within
def _solve_back(m: FloatArray, x: FloatArray, size: Index) -> None:
    """``x`` becomes U^-1 x."""
    for back in range(_0, size):
        k = size - _1 - back
        row = m[k]
        a = x[k]
        for j in range(k + _1, size):
            a -= row[j] * x[j]
        x[k] = a / row[k]


@compiled
def solve_rows(part: tuple[int, int], observed: Observed, regression: Regression, solution: Solution) -> None:
    """Solve the regressions of rows from the first to before the last of ``part``. No row's result depends on another's."""
    base, width, k = regression.base, regression.design.shape[1], solution.mean.shape[1]
    size = _U(k)
    m = np.zeros((k, k), np.float32)
    sums = _Sums(
        np.empty((width, width), np.float32),
        np.empty(width, np.float32),
        np.empty((_BLOCK, width), np.float32),
        np.empty(_BLOCK, np.float32),
        np.empty((width, width), np.float32),
        np.empty(width, np.float32),
    )
    for row in range(part[0], part[1]):
        start, stop = observed.starts[row], observed.starts[row + 1]
        squares = _add_up(sums, regression, observed.columns[start:stop], observed.values[start:stop])
        weight, given, mean = regression.weight[row], regression.given[row], solution.mean[row]
        for i in range(_0, size):
            _combine(m[i], weight, sums.gram[i], base[i], i, size)
            m[i, i] += regression.ridge[row]
            explained = np.float32(0)
            for j in range(len(given)):
                explained += sums.gram[i, k + j] * given[j]
            mean[i] = weight * (sums.pulled[i] - explained) + regression.pull[row, i]
        _factorise(m, size)
        _solve(m, mean, size)
        if len(solution.draw):
            draw = solution.draw[row]
            _solve_back(m, draw, size)
            draw += mean
            solution.missed[row] = _missed(sums, squares, draw, given)
