"""The network: four embedding layers, a dot product and a sigmoid."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class EmbeddingNet(nn.Module):
    """Predicted stars from a user's and a movie's factors and biases.

    ``low + (high - low) * sigmoid(user_factors[u] . movie_factors[m] + user_bias[u] + movie_bias[m] + offset)``

    Parameters
    ----------
    n_users, n_movies, n_factors : int
    y_range : (low, high)
        Stars that the sigmoid can come near to but never reaches.
    generator : torch.Generator, optional
        Of the weights at the start, N(0, 1) as in ``nn.Embedding``; torch's own where left out.

    ``offset`` is a constant, 0 unless training starts from the mean rating; it is not learned.
    Source: Koren, Bell & Volinsky (2009), "Matrix factorization techniques for recommender systems".
    """

    offset: Tensor

    def __init__(
        self,
        n_users: int,
        n_movies: int,
        n_factors: int = 50,
        y_range: tuple[float, float] = (0.0, 5.5),
        *,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()

        def layer(rows: int, size: int) -> nn.Embedding:
            weight = torch.randn(rows, size, generator=generator)
            return nn.Embedding(rows, size, _weight=weight)  # as from_pretrained does, which has no types

        self.user_factors, self.user_bias = layer(n_users, n_factors), layer(n_users, 1)
        self.movie_factors, self.movie_bias = layer(n_movies, n_factors), layer(n_movies, 1)
        self.register_buffer("offset", torch.zeros(()))
        self.y_range = y_range

    def look_up(self, users: Tensor, movies: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Rows for a batch: user factors, user biases, movie factors, movie biases."""
        return self.user_factors(users), self.user_bias(users), self.movie_factors(movies), self.movie_bias(movies)

    def rate(self, p: Tensor, user_bias: Tensor, q: Tensor, movie_bias: Tensor) -> Tensor:
        """Stars from looked-up rows."""
        score = (p * q).sum(1) + user_bias.squeeze(1) + movie_bias.squeeze(1) + self.offset  # (batch,)
        low, high = self.y_range
        return torch.sigmoid(score) * (high - low) + low  # (batch,)

    def forward(self, users: Tensor, movies: Tensor) -> Tensor:
        """Stars for int tensors ``users``, ``movies`` of shape (batch,); returns (batch,)."""
        return self.rate(*self.look_up(users, movies))
