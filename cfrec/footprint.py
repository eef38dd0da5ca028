"""How much memory training takes beyond the ratings: an upper estimate, from the sizes alone.

What is counted are the largest arrays that are there at the same time, as measured by tests/promises/test_settings.py. Learning likeness
comes after the fit, whose work space has been given back by then; the weights and the parts of the ratings stay throughout.
"""

from __future__ import annotations

from math import ceil
from typing import TYPE_CHECKING, NamedTuple

from cfrec.pieces import n_threads

if TYPE_CHECKING:
    from cfrec.config import TrainConfig

# Of gibbs
BURN_IN = 0.1  # share of the sweeps before averaging begins
DENSE = 30_000_000  # guesses: up to so many, their mean is kept whole
KEPT_SAMPLES = 24  # about, where it is not
DRAWN_AT_ONCE = 1 << 15  # rows
# Of likeness
EXTRA_VALUES = 64  # singular values more than are kept: they sharpen who the nearest rows are
EXACT = 2_000  # users or movies: up to so many, the decomposition is exact
COMPARED_AT_ONCE = 2_048  # rows whose nearest are looked for at a time
MOST_COMPANY = 8_000  # the most rated rows: nobody needs more to choose from
LEAST_RATINGS = 20  # that each of those has

_NUMBER = 4  # bytes of a float32 or int32
_LIBRARIES = 64_000_000  # that torch, BLAS and their threads take for themselves at their first use
_PARTS = 48  # bytes a rating: the two parts of a split, the order it was drawn in, and the copy that is learned from
_COPIES = {"sgd": 14, "adam": 20, "gibbs": 8}  # of the weights: as they are, last, best, in a checkpoint that is written; Adam's two, twice
_GIBBS, _LIKENESS = 60, 48  # bytes a rating: indices of 8 bytes in two orders; a sparse matrix, its parts, and what they are made from


class Sizes(NamedTuple):
    """Of the ratings, those kept aside included."""

    n_users: int
    n_movies: int
    n_ratings: int

    @property
    def n_rows(self) -> int:
        """Rows of the network."""
        return self.n_users + self.n_movies


def bytes_needed(config: TrainConfig, sizes: Sizes) -> int:
    """Memory that training takes beyond the ratings themselves."""
    rank = 2 * config.n_factors + 20 if config.method == "gibbs" else config.n_factors + 2  # columns
    weights = _COPIES[config.method] * _NUMBER * sizes.n_rows * rank
    fit = {"sgd": 0, "adam": _batches(config, sizes), "gibbs": _draws(config, sizes) + _mean_guess(config, sizes)}[config.method]
    return _LIBRARIES + _PARTS * sizes.n_ratings + weights + max(fit, _likeness(config, sizes))


def _batches(config: TrainConfig, sizes: Sizes) -> int:
    """Rows of a batch's users and movies, weighted and sorted."""
    batch = min(max(config.batch_size, sizes.n_ratings // 100), sizes.n_ratings)
    return _NUMBER * batch * (5 * (config.n_factors + 2) + 40)


def _draws(config: TrainConfig, sizes: Sizes) -> int:
    """Squares of rows: half of all of the other side's, twice for a moment; and three for each row that is drawn."""
    n, m = sizes.n_users, sizes.n_movies
    rows = max(m + 3 * min(n, DRAWN_AT_ONCE), n + 3 * min(m, DRAWN_AT_ONCE))
    return _NUMBER * (config.n_factors + 1) ** 2 * rows + _GIBBS * sizes.n_ratings


def _mean_guess(config: TrainConfig, sizes: Sizes) -> int:
    """The table of all guesses and two copies; or samples of the rows, in half and full precision, and their products, twice."""
    if sizes.n_users * sizes.n_movies <= DENSE:
        return 3 * _NUMBER * sizes.n_users * sizes.n_movies
    averaged = config.epochs - int(BURN_IN * config.epochs)
    samples = ceil(averaged / max(averaged // KEPT_SAMPLES, 1))
    products = 2 * _NUMBER * max(sizes.n_users, sizes.n_movies) * (2 * config.n_factors + 20)
    return samples * (6 * sizes.n_rows * config.n_factors + products)


def _likeness(config: TrainConfig, sizes: Sizes) -> int:
    """The sparse matrix, its decomposition, and blocks of likenesses in each thread."""
    if not config.n_likeness:
        return 0
    smaller = min(sizes.n_users, sizes.n_movies)
    exact = 12 * _NUMBER * smaller**2 if smaller <= EXACT else 0
    rows = 6 * _NUMBER * sizes.n_rows * (config.n_likeness + EXTRA_VALUES)
    company = min(sizes.n_movies, MOST_COMPANY, sizes.n_ratings // LEAST_RATINGS)
    blocks = 9 * n_threads() * min(sizes.n_movies, COMPARED_AT_ONCE) * company
    return _LIKENESS * sizes.n_ratings + exact + rows + blocks
