"""What ``sgd`` does to single ratings, as compiled kernels, and the arrays that it hands them.

Thirty-two ratings are guessed, then learned from: so the processor works on all of them at once, rather than wait for each in turn.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cfrec.compiled import compiled
from cfrec.ratings import FloatArray, IntArray

BATCH = 32
# A row of the network ends with its bias, the mean square of its factors' latest gradients, and the penalty on its factors: in cache
# lines that are fetched for the factors anyway. They are counted from the end.
BIAS, SQUARE, L2 = 1, 2, 3
N_COLUMNS = 3
# Where the numbers of a batch begin in its notes, one for each rating; P is the user's row, and Q the movie's.
_STARS, _DOT, _SLOPE, *_OF_ROWS = (k * BATCH for k in range(15))
_P_LENGTH, _P_BIAS, _P_SQUARE, _P_L2, _P_STEP, _P_BIAS_STEP = _OF_ROWS[:6]
_Q_LENGTH, _Q_BIAS, _Q_SQUARE, _Q_L2, _Q_STEP, _Q_BIAS_STEP = _OF_ROWS[6:]
_NOTHING, _ONE, _TWO, _TINY = np.float32(0), np.float32(1), np.float32(2), np.float32(1e-12)


class Triples(NamedTuple):
    """Who rated what how: arrays (n_ratings,)."""

    users: IntArray
    movies: IntArray
    stars: FloatArray


class Rows(NamedTuple):
    """The network's rows, (n_users or n_movies, n_lanes): factors, zeros, and the N_COLUMNS."""

    users: FloatArray
    movies: FloatArray


class Link(NamedTuple):
    """From scores to stars: ``low + span * sigmoid(offset + score)``."""

    offset: np.float32
    low: np.float32
    span: np.float32


class Rule(NamedTuple):
    """How to learn from some ratings."""

    link: Link
    bias_l2: np.float32
    beta2: np.float32
    first_rate: np.float32
    last_rate: np.float32
    per_factor: np.float32  # 1 / n_factors


@compiled
def arrange(source: Triples, user_block: IntArray, movie_block: IntArray, triples: Triples, starts: npt.NDArray[np.int64]) -> None:
    """Copy ratings cell by cell, and write where each of the n_blocks^2 cells begins, and the last ends, into starts."""
    n_blocks = int(math.sqrt(len(starts) - 1))
    for n in range(len(source.stars)):
        starts[user_block[source.users[n]] * n_blocks + movie_block[source.movies[n]] + 1] += 1
    for cell in range(1, len(starts)):
        starts[cell] += starts[cell - 1]
    free = starts.copy()
    for n in range(len(source.stars)):
        cell = user_block[source.users[n]] * n_blocks + movie_block[source.movies[n]]
        k = free[cell]
        free[cell] += 1
        triples.users[k], triples.movies[k], triples.stars[k] = source.users[n], source.movies[n], source.stars[n]


@compiled
def shuffle(triples: Triples, part: tuple[int, int], seed: int) -> None:
    """Put ratings in a random order (Fisher-Yates, by xorshift numbers: Marsaglia 2003)."""
    users, movies, stars = triples
    start, stop = part
    state = np.uint64(seed)
    for n in range(stop - 1, start, -1):
        state ^= state << np.uint64(13)
        state ^= state >> np.uint64(7)
        state ^= state << np.uint64(17)
        k = start + np.int64(((state >> np.uint64(32)) * np.uint64(n + 1 - start)) >> np.uint64(32))
        users[n], users[k] = users[k], users[n]
        movies[n], movies[k] = movies[k], movies[n]
        stars[n], stars[k] = stars[k], stars[n]


@compiled
def sigmoid(z: np.float32) -> np.float32:
    """To within 2.2e-5, without an exponential: tanh by Lambert's continued fraction, cut after its seventh term."""
    half = min(max(z, np.float32(-9)), np.float32(9)) * np.float32(0.5)
    x = half * half
    above = half * (np.float32(135135) + x * (np.float32(17325) + x * (np.float32(378) + x)))
    below = np.float32(135135) + x * (np.float32(62370) + x * (np.float32(3150) + x * np.float32(28)))
    return np.float32(0.5) + np.float32(0.5) * above / below


@compiled
def _look_up(triples: Triples, first: int, size: int, rows: Rows, notes: FloatArray) -> None:
    """Note what is known of a batch: its stars, dot products and squared lengths, and the columns of its rows."""
    n_lanes = rows.users.shape[1]
    bias, square, l2 = n_lanes - BIAS, n_lanes - SQUARE, n_lanes - L2
    for j in range(size):
        p, q = rows.users[triples.users[first + j]], rows.movies[triples.movies[first + j]]
        pq = pp = qq = _NOTHING
        for k in range(n_lanes):  # over the columns too: whole lanes are faster, and their part is taken off again
            pq += p[k] * q[k]
            pp += p[k] * p[k]
            qq += q[k] * q[k]
        notes[_STARS + j] = triples.stars[first + j]
        notes[_DOT + j] = pq - p[bias] * q[bias] - p[square] * q[square] - p[l2] * q[l2]
        notes[_P_LENGTH + j] = pp - p[bias] * p[bias] - p[square] * p[square] - p[l2] * p[l2]
        notes[_Q_LENGTH + j] = qq - q[bias] * q[bias] - q[square] * q[square] - q[l2] * q[l2]
        notes[_P_BIAS + j], notes[_P_SQUARE + j], notes[_P_L2 + j] = p[bias], p[square], p[l2]
        notes[_Q_BIAS + j], notes[_Q_SQUARE + j], notes[_Q_L2 + j] = q[bias], q[square], q[l2]


@compiled
def _guess(notes: FloatArray, size: int, link: Link) -> np.float32:
    """Note half the slope of each squared error in its score, with the sign turned; returns the sum of squared errors."""
    squared = _NOTHING
    for j in range(size):
        share = sigmoid(link.offset + notes[_P_BIAS + j] + notes[_Q_BIAS + j] + notes[_DOT + j])
        miss = notes[_STARS + j] - (link.low + link.span * share)
        squared += miss * miss
        notes[_SLOPE + j] = miss * link.span * share * (_ONE - share)
    return squared


@compiled
def _find_steps(notes: FloatArray, size: int, rate: np.float32, rule: Rule) -> None:
    """Note the steps to take, and the mean squares of the gradients."""
    forget = _ONE - rule.beta2
    for j in range(size):
        g, pq, pp, qq = notes[_SLOPE + j], notes[_DOT + j], notes[_P_LENGTH + j], notes[_Q_LENGTH + j]
        l2 = notes[_P_L2 + j]
        square = max(g * g * qq - _TWO * g * l2 * pq + l2 * l2 * pp, _NOTHING) * rule.per_factor
        p_square = rule.beta2 * notes[_P_SQUARE + j] + forget * square
        l2 = notes[_Q_L2 + j]
        square = max(g * g * pp - _TWO * g * l2 * pq + l2 * l2 * qq, _NOTHING) * rule.per_factor
        q_square = rule.beta2 * notes[_Q_SQUARE + j] + forget * square
        notes[_P_SQUARE + j], notes[_Q_SQUARE + j] = p_square, q_square
        most = _ONE / (abs(g) + _TINY)  # p += q at most: near zero, where q itself soon changes, longer steps would explode
        notes[_P_STEP + j], notes[_Q_STEP + j] = (
            min(rate / math.sqrt(p_square + _TINY), most),
            min(rate / math.sqrt(q_square + _TINY), most),
        )
        notes[_P_BIAS_STEP + j] = rate * (g - rule.bias_l2 * notes[_P_BIAS + j])
        notes[_Q_BIAS_STEP + j] = rate * (g - rule.bias_l2 * notes[_Q_BIAS + j])


@compiled
def _take_steps(triples: Triples, first: int, size: int, rows: Rows, notes: FloatArray) -> None:
    """Change the rows of a batch."""
    n_lanes = rows.users.shape[1]
    bias, square, l2 = n_lanes - BIAS, n_lanes - SQUARE, n_lanes - L2
    for j in range(size):
        p, q = rows.users[triples.users[first + j]], rows.movies[triples.movies[first + j]]
        p_bias, q_bias = p[bias] + notes[_P_BIAS_STEP + j], q[bias] + notes[_Q_BIAS_STEP + j]
        keep_p, keep_q = _ONE - notes[_P_STEP + j] * notes[_P_L2 + j], _ONE - notes[_Q_STEP + j] * notes[_Q_L2 + j]
        add_p, add_q = notes[_P_STEP + j] * notes[_SLOPE + j], notes[_Q_STEP + j] * notes[_SLOPE + j]
        for k in range(n_lanes):
            before = p[k]
            p[k] = keep_p * before + add_p * q[k]
            q[k] = keep_q * q[k] + add_q * before
        p[bias], p[square], p[l2] = p_bias, notes[_P_SQUARE + j], notes[_P_L2 + j]
        q[bias], q[square], q[l2] = q_bias, notes[_Q_SQUARE + j], notes[_Q_L2 + j]


@compiled
def learn(triples: Triples, parts: npt.NDArray[np.int64], rows: Rows, rule: Rule, squared: npt.NDArray[np.float64]) -> None:
    """Learn from parts of the ratings, at a rate that goes in each from the first to the last; write their summed squared errors.

    A part is (start, stop, stride): its batches are taken ``stride`` apart, round and round, and each once, since stride and their
    number have no divisor in common.
    """
    notes = np.zeros(15 * BATCH, np.float32)
    for part in range(len(parts)):
        start, stop, stride = parts[part]
        n_batches = (stop - start + BATCH - 1) // BATCH
        change = (rule.last_rate - rule.first_rate) / np.float32(max(n_batches, 1))
        at = 0
        for n in range(n_batches):
            at = (at + stride) % n_batches
            first = start + at * BATCH
            size = min(BATCH, stop - first)
            _look_up(triples, first, size, rows, notes)
            squared[part] += _guess(notes, size, rule.link)
            _find_steps(notes, size, rule.first_rate + change * np.float32(n), rule)
            _take_steps(triples, first, size, rows, notes)


@compiled
def add_squared_errors(
    triples: Triples,
    parts: npt.NDArray[np.int64],
    rows: Rows,
    rule: tuple[Link, np.float32, np.float32],
    squared: npt.NDArray[np.float64],
) -> None:
    """Write the summed squared errors of parts (start, stop, …) of the ratings; the rule has the limits that predictions are clipped to."""
    link, lowest, highest = rule
    n_lanes = rows.users.shape[1]
    bias, square, l2 = n_lanes - BIAS, n_lanes - SQUARE, n_lanes - L2
    for part in range(len(parts)):
        for n in range(parts[part, 0], parts[part, 1]):
            p, q = rows.users[triples.users[n]], rows.movies[triples.movies[n]]
            z = link.offset + p[bias] + q[bias] - p[bias] * q[bias] - p[square] * q[square] - p[l2] * q[l2]
            for k in range(n_lanes):
                z += p[k] * q[k]
            miss = min(max(link.low + link.span * sigmoid(z), lowest), highest) - triples.stars[n]
            squared[part] += miss * miss
