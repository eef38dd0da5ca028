"""What ``sgd`` does to single ratings, as compiled kernels, and the arrays that it hands them.

Thirty-two ratings are guessed, then learned from: so the processor works on all of them at once, rather than wait for each in turn, and
fetches the rows of later ones meanwhile. Indices are unsigned, for Numba lets signed ones count from the end; and loops over a row have a
length that is known when they are compiled. Together these nearly halve the time.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from cfrec.compiled import compiled, compiled_within
from cfrec.instructions import count_up, look, prefetch
from cfrec.ratings import FloatArray, IntArray

BATCH = 32
LANES = 64  # rows are a multiple of so many floats long
_LANES, _LINE = np.uint64(LANES), np.uint64(16)  # a cache line has so many floats
_AHEAD = np.uint64(8)  # ratings whose rows are fetched before they are needed
# A row of the network ends with its bias, the mean square of its factors' latest gradients, and the penalty on its factors: in cache
# lines that are fetched for the factors anyway. They are counted from the end.
BIAS, SQUARE, L2 = 1, 2, 3
N_COLUMNS = 3
# Where the numbers of a batch begin in its notes, one for each rating; P is the user's row, and Q the movie's.
_N_NOTES = 17
_STARS, _DOT, _SLOPE, *_OF_ROWS = (np.uint64(k * BATCH) for k in range(_N_NOTES))
_P_LENGTH, _P_BIAS, _P_SQUARE, _P_L2, _P_KEPT, _P_ADDED, _P_NEW_BIAS = _OF_ROWS[:7]
_Q_LENGTH, _Q_BIAS, _Q_SQUARE, _Q_L2, _Q_KEPT, _Q_ADDED, _Q_NEW_BIAS = _OF_ROWS[7:]
_BIAS, _SQUARE, _L2 = np.uint64(BIAS), np.uint64(SQUARE), np.uint64(L2)
_NOTHING, _ONE, _TWO, _TINY = np.float32(0), np.float32(1), np.float32(2), np.float32(1e-12)


Int64s = npt.NDArray[np.int64]


class Triples(NamedTuple):
    """Who rated what how: arrays (n_ratings,)."""

    users: IntArray
    movies: IntArray
    stars: FloatArray


class Rows(NamedTuple):
    """The network's rows, (n_users or n_movies, a multiple of LANES): factors, zeros, and the N_COLUMNS."""

    users: FloatArray
    movies: FloatArray


class Lines(NamedTuple):
    """The network's rows one after the other, (n_users or n_movies * width,)."""

    users: FloatArray
    movies: FloatArray
    width: np.uint64


class Batch(NamedTuple):
    """Where a batch begins, how many ratings it has, and where the one after it begins."""

    first: np.uint64
    size: np.uint64
    later: np.uint64


class Link(NamedTuple):
    """From scores to stars: ``low + span * sigmoid(offset + score)``."""

    offset: np.float32
    low: np.float32
    span: np.float32


class Cells(NamedTuple):
    """Ratings to learn from, in an order of which only what shares no rows may differ."""

    places: Int64s  # (n, 3): start, stop, and how far apart to take batches
    blocks: Int64s  # (n, 2): of its users and of its movies, as numbered in ``done``
    rounds: Int64s  # (n,): how many cells of each block come before it in the epoch
    rates: FloatArray  # (n, 2): the first and the last


class Turns(NamedTuple):
    """What threads that learn together tell each other."""

    taken: Int64s  # (1,): cells, or parts, that a thread has taken
    done: Int64s  # (n_blocks of users and of movies,): cells of the epoch that have been learned from
    squared: npt.NDArray[np.float64]  # (n,): the summed squared errors of each cell or part


class Rule(NamedTuple):
    """How to learn from some ratings."""

    link: Link
    bias_l2: np.float32
    beta2: np.float32
    per_factor: np.float32  # 1 / n_factors


@compiled
def arrange(source: Triples, user_block: IntArray, movie_block: IntArray, triples: Triples, starts: Int64s) -> None:
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


@compiled_within
def sigmoid(z: np.float32) -> np.float32:
    """To within 2.2e-5, without an exponential: tanh by Lambert's continued fraction, cut after its seventh term."""
    half = min(max(z, np.float32(-9)), np.float32(9)) * np.float32(0.5)
    x = half * half
    above = half * (np.float32(135135) + x * (np.float32(17325) + x * (np.float32(378) + x)))
    below = np.float32(135135) + x * (np.float32(62370) + x * (np.float32(3150) + x * np.float32(28)))
    return np.float32(0.5) + np.float32(0.5) * above / below


@compiled_within
def _fetch(triples: Triples, n: np.uint64, lines: Lines) -> None:
    """Have the rows of a rating fetched."""
    p, q = np.uint64(triples.users[n]) * lines.width, np.uint64(triples.movies[n]) * lines.width
    for k in range(np.uint64(0), lines.width, _LINE):
        prefetch(lines.users, p + k)  # type: ignore[call-arg]  # Numba gives it its first
        prefetch(lines.movies, q + k)


@compiled_within
def _look_up(triples: Triples, batch: Batch, lines: Lines, notes: FloatArray) -> None:
    """Note what is known of a batch: its stars, dot products and squared lengths, and the columns of its rows."""
    first, size, later = batch
    users, movies, width = lines
    bias, square, l2 = width - _BIAS, width - _SQUARE, width - _L2
    for j in range(size):
        ahead = first + j + _AHEAD if j + _AHEAD < size else later + j + _AHEAD - size
        if ahead < np.uint64(len(triples.stars)):
            _fetch(triples, ahead, lines)
        p, q = np.uint64(triples.users[first + j]) * width, np.uint64(triples.movies[first + j]) * width
        pq = pp = qq = _NOTHING
        for chunk in range(np.uint64(0), width, _LANES):
            for lane in range(LANES):  # over the columns too: whole lanes are faster, and their part is taken off again
                k = chunk + np.uint64(lane)
                pq += users[p + k] * movies[q + k]
                pp += users[p + k] * users[p + k]
                qq += movies[q + k] * movies[q + k]
        p_bias, p_square, p_l2 = users[p + bias], users[p + square], users[p + l2]
        q_bias, q_square, q_l2 = movies[q + bias], movies[q + square], movies[q + l2]
        notes[_STARS + j] = triples.stars[first + j]
        notes[_DOT + j] = pq - p_bias * q_bias - p_square * q_square - p_l2 * q_l2
        notes[_P_LENGTH + j] = pp - p_bias * p_bias - p_square * p_square - p_l2 * p_l2
        notes[_Q_LENGTH + j] = qq - q_bias * q_bias - q_square * q_square - q_l2 * q_l2
        notes[_P_BIAS + j], notes[_P_SQUARE + j], notes[_P_L2 + j] = p_bias, p_square, p_l2
        notes[_Q_BIAS + j], notes[_Q_SQUARE + j], notes[_Q_L2 + j] = q_bias, q_square, q_l2


@compiled_within
def _guess(notes: FloatArray, size: np.uint64, link: Link) -> np.float32:
    """Note half the slope of each squared error in its score, with the sign turned; returns the sum of squared errors."""
    squared = _NOTHING
    for j in range(size):
        share = sigmoid(link.offset + notes[_P_BIAS + j] + notes[_Q_BIAS + j] + notes[_DOT + j])
        miss = notes[_STARS + j] - (link.low + link.span * share)
        squared += miss * miss
        notes[_SLOPE + j] = miss * link.span * share * (_ONE - share)
    return squared


@compiled_within
def _find_steps(notes: FloatArray, size: np.uint64, rate: np.float32, rule: Rule) -> None:
    """Note what is to become of the rows: how much of each is kept, how much of the other is added, and their new columns."""
    forget = _ONE - rule.beta2
    for j in range(size):
        g, pq, pp, qq = notes[_SLOPE + j], notes[_DOT + j], notes[_P_LENGTH + j], notes[_Q_LENGTH + j]
        p_l2, q_l2 = notes[_P_L2 + j], notes[_Q_L2 + j]
        square = max(g * g * qq - _TWO * g * p_l2 * pq + p_l2 * p_l2 * pp, _NOTHING) * rule.per_factor
        p_square = rule.beta2 * notes[_P_SQUARE + j] + forget * square
        square = max(g * g * pp - _TWO * g * q_l2 * pq + q_l2 * q_l2 * qq, _NOTHING) * rule.per_factor
        q_square = rule.beta2 * notes[_Q_SQUARE + j] + forget * square
        notes[_P_SQUARE + j], notes[_Q_SQUARE + j] = p_square, q_square
        most = _ONE / (abs(g) + _TINY)  # p += q at most: near zero, where q itself soon changes, longer steps would explode
        p_step, q_step = min(rate / math.sqrt(p_square + _TINY), most), min(rate / math.sqrt(q_square + _TINY), most)
        notes[_P_KEPT + j], notes[_Q_KEPT + j] = _ONE - p_step * p_l2, _ONE - q_step * q_l2
        notes[_P_ADDED + j], notes[_Q_ADDED + j] = p_step * g, q_step * g
        p_bias, q_bias = notes[_P_BIAS + j], notes[_Q_BIAS + j]
        notes[_P_NEW_BIAS + j] = p_bias + rate * (g - rule.bias_l2 * p_bias)
        notes[_Q_NEW_BIAS + j] = q_bias + rate * (g - rule.bias_l2 * q_bias)


@compiled_within
def _take_steps(triples: Triples, batch: Batch, lines: Lines, notes: FloatArray) -> None:
    """Change the rows of a batch."""
    (first, size, _), (users, movies, width) = batch, lines
    bias, square, l2 = width - _BIAS, width - _SQUARE, width - _L2
    for j in range(size):
        p, q = np.uint64(triples.users[first + j]) * width, np.uint64(triples.movies[first + j]) * width
        p_kept, p_added, q_kept, q_added = notes[_P_KEPT + j], notes[_P_ADDED + j], notes[_Q_KEPT + j], notes[_Q_ADDED + j]
        for chunk in range(np.uint64(0), width, _LANES):
            for lane in range(LANES):
                k = chunk + np.uint64(lane)
                before = users[p + k]
                users[p + k] = p_kept * before + p_added * movies[q + k]
                movies[q + k] = q_kept * movies[q + k] + q_added * before
        users[p + bias], users[p + square], users[p + l2] = notes[_P_NEW_BIAS + j], notes[_P_SQUARE + j], notes[_P_L2 + j]
        movies[q + bias], movies[q + square], movies[q + l2] = notes[_Q_NEW_BIAS + j], notes[_Q_SQUARE + j], notes[_Q_L2 + j]


@compiled
def learn(triples: Triples, cells: Cells, turns: Turns, rows: Rows, rule: Rule) -> None:
    """Learn from cells, at a rate that goes in each from the first to the last; add up their squared errors.

    Threads that are given the same arguments share the work: each takes one cell after the other, and waits until those before it that
    share its users or movies are done. A cell's batches are taken a stride apart, round and round, and each once, since stride and their
    number have no divisor in common.
    """
    notes = np.zeros(_N_NOTES * BATCH, np.float32)
    lines = Lines(rows.users.ravel(), rows.movies.ravel(), np.uint64(rows.users.shape[1]))
    while True:
        cell = count_up(turns.taken, 0)  # type: ignore[call-arg, var-annotated]  # Numba gives it its first
        if cell >= len(cells.rounds):
            break
        users, movies = cells.blocks[cell]
        while look(turns.done, users) < cells.rounds[cell] or look(turns.done, movies) < cells.rounds[cell]:
            pass
        start, stop, stride = cells.places[cell]
        n_batches = (stop - start + BATCH - 1) // BATCH
        first_rate, last_rate = cells.rates[cell]
        change = (last_rate - first_rate) / np.float32(max(n_batches, 1))
        at = 0
        for n in range(n_batches):
            at = (at + stride) % n_batches
            first, later = start + at * BATCH, start + (at + stride) % n_batches * BATCH
            batch = Batch(np.uint64(first), np.uint64(min(BATCH, stop - first)), np.uint64(later))
            _look_up(triples, batch, lines, notes)
            turns.squared[cell] += _guess(notes, batch.size, rule.link)
            _find_steps(notes, batch.size, first_rate + change * np.float32(n), rule)
            _take_steps(triples, batch, lines, notes)
        count_up(turns.done, users)
        count_up(turns.done, movies)


@compiled
def add_squared_errors(triples: Triples, parts: Int64s, turns: Turns, rows: Rows, rule: tuple[Link, np.float32, np.float32]) -> None:
    """Add up the squared errors of parts (start, stop) of the ratings; the rule has the limits that predictions are clipped to.

    Threads that are given the same arguments share the work.
    """
    link, lowest, highest = rule
    lines = Lines(rows.users.ravel(), rows.movies.ravel(), np.uint64(rows.users.shape[1]))
    users, movies, width = lines
    bias, square, l2 = width - _BIAS, width - _SQUARE, width - _L2
    while True:
        part = count_up(turns.taken, 0)  # type: ignore[call-arg, var-annotated]  # Numba gives it its first
        if part >= len(parts):
            break
        start, stop = np.uint64(parts[part, 0]), np.uint64(parts[part, 1])
        for n in range(start, stop):
            if n + _AHEAD < stop:
                _fetch(triples, n + _AHEAD, lines)
            p, q = np.uint64(triples.users[n]) * width, np.uint64(triples.movies[n]) * width
            z = _NOTHING
            for chunk in range(np.uint64(0), width, _LANES):
                for lane in range(LANES):
                    k = chunk + np.uint64(lane)
                    z += users[p + k] * movies[q + k]
            p_bias, q_bias = users[p + bias], movies[q + bias]
            z -= p_bias * q_bias + users[p + square] * movies[q + square] + users[p + l2] * movies[q + l2]
            share = sigmoid(link.offset + p_bias + q_bias + z)
            miss = min(max(link.low + link.span * share, lowest), highest) - triples.stars[n]
            turns.squared[part] += miss * miss
