"""How much memory training takes beyond the ratings: an upper estimate, from the sizes alone.

What is counted are the largest arrays that are there at the same time, as measured by tests/promises/test_settings.py.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cfrec.config import TrainConfig

_NUMBER = 4  # bytes of a float32 or int32
_LIBRARIES = 64_000_000  # that torch, BLAS and their threads take for themselves at their first use
_PARTS = 48  # bytes a rating: the two parts of a split, the order it was drawn in, and the copy that is learned from
_COPIES = {
    "gibbs": 24,
    "adam": 44,
}  # of the weights: as they are, last, best, in a checkpoint that is written, and what the method remembers
_SWEEP = 60  # bytes a rating: their values and indices in two orders, and what sorts them
_CHOICE_COPIES = {"gibbs": 8, "adam": 44}  # of what users choose by
_TRAITS = 10  # columns
_LARGE, _CHOICE_BATCH = 300_000, 4_096  # as adam.in_large_batches has them


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
    columns = _COPIES[config.method] * (config.n_factors + 2)
    if config.choice_weight:
        columns += _CHOICE_COPIES[config.method] * (config.n_factors + _TRAITS)
    weights = _NUMBER * sizes.n_rows * columns
    fit = _batches(config, sizes) if config.method == "adam" else _SWEEP * sizes.n_ratings
    return _LIBRARIES + _PARTS * sizes.n_ratings + weights + fit


def _batches(config: TrainConfig, sizes: Sizes) -> int:
    """Rows of a batch's users and movies, and their gradients."""
    batch, n = config.batch_size, sizes.n_ratings
    if not config.weight_decay:
        batch = max(batch, n // 100 if n > _LARGE else 0, min(_CHOICE_BATCH, n // 20) if config.choice_weight else 0)
    batch = min(batch, n)
    return _NUMBER * batch * (10 * (config.n_factors + 2) + 40)
