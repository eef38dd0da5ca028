"""Who rated what, whatever the stars: sparse matrices of it in torch, and what they tell of users and movies."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Product = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Entries:
    """A sparse matrix's places, row by row: where each row begins, and the last ends (n + 1,); and the columns (n_entries,)."""

    starts: Tensor
    columns: Tensor
    n_columns: int

    @property
    def counts(self) -> Tensor:
        """Entries of each row."""
        return self.starts.diff()

    def part(self, rows: slice) -> Entries:
        """Some rows in succession."""
        first, last = int(self.starts[rows.start]), int(self.starts[rows.stop])
        return Entries(self.starts[rows.start : rows.stop + 1] - first, self.columns[first:last], self.n_columns)

    def times(self, values: Tensor, right: Tensor) -> Tensor:
        """The product of the matrix that has these values with a dense one."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*CSR tensor support is in beta")
            matrix = torch.sparse_csr_tensor(
                self.starts, self.columns, values, size=(len(self.starts) - 1, self.n_columns), check_invariants=False
            )
        product: Tensor = matrix @ right
        return product

    def row_sums(self, values: Tensor) -> Tensor:
        """The sum of each row's values."""
        return self.times(values, torch.ones(self.n_columns, 1, device=values.device)).squeeze(1)


def sorted_entries(rows: Tensor, columns: Tensor, shape: tuple[int, int]) -> tuple[Tensor, Entries]:
    """The order that sorts entries by row, then by column; and the entries in it."""
    order = (rows * shape[1] + columns).argsort()
    counts = rows.bincount(minlength=shape[0])
    return order, Entries(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), columns[order], shape[1])


def who_rated_what(users: Entries, movies: Entries, rank: int, random: torch.Generator) -> tuple[Tensor, Tensor]:
    """What the pairs tell of each user (n_users, rank), and of each movie (n_movies, rank).

    The matrix that has ``(n_u n_m)^(-1/4)`` where user u rated movie m is cut down to its largest singular values, U S V';
    users have the rows of ``U S``, and movies those of ``V S``, times ``n^(-1/4)`` once more.
    """
    by_user, by_movie = (side.counts.clamp(min=1).float().pow(-0.25) for side in (users, movies))
    values = [
        own.repeat_interleave(side.counts) * other[side.columns]
        for side, own, other in ((users, by_user, by_movie), (movies, by_movie, by_user))
    ]
    shape = len(by_user), len(by_movie)
    left, lengths, right = truncated_svd(lambda x: users.times(values[0], x), lambda x: movies.times(values[1], x), shape, rank, random)
    return left * lengths * by_user[:, None], right * lengths * by_movie[:, None]


def truncated_svd(
    times: Product, transposed_times: Product, shape: tuple[int, int], rank: int, random: torch.Generator
) -> tuple[Tensor, Tensor, Tensor]:
    """The largest singular values, and their vectors, of a matrix that is known by its products (Halko et al. 2011).

    Returns left (n, rank), values (rank,) and right (m, rank).
    """
    width = min(rank + 20, *shape)
    basis = torch.linalg.qr(times(torch.randn(shape[1], width, generator=random, device=random.device)))[0]
    for _ in range(3):
        basis = torch.linalg.qr(times(torch.linalg.qr(transposed_times(basis))[0]))[0]
    small = transposed_times(basis)  # (m, width)
    squares, directions = torch.linalg.eigh(small.T @ small)
    values = squares.flip(0)[:rank].clamp(min=1e-12).sqrt()
    directions = directions.flip(1)[:, :rank]
    return basis @ directions, values, small @ directions / values


def orthogonal(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Centred, of mean squared length 1, and turned so that the columns are orthogonal: directions (n, k) and lengths (k,)."""
    rows = rows - rows.mean(0)
    rows = rows / rows.square().sum(1).mean().sqrt().clamp(min=1e-12)
    squares, turn = torch.linalg.eigh(rows.T @ rows)
    kept = squares > 1e-6 * len(rows)
    return rows @ turn[:, kept] / squares[kept].sqrt(), squares[kept].sqrt()
