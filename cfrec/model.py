"""The network: four embedding layers, a dot product and a sigmoid; and a fifth layer where it also learns who rated what."""

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
        Bounds of the sigmoid in stars; predictions lie strictly between them.
    traits : Tensor of shape (n_movies, n_traits), float32, optional
        What is known of each movie beforehand; ``n_traits`` may be 0. If given, the network also predicts choices (see ``choose``),
        from the layer ``user_choice`` of shape (n_users, n_factors + n_traits). If None, it has the four layers alone.
    generator : torch.Generator, optional
        Source of the initial weights, drawn from N(0, 1) as ``nn.Embedding`` does; None is torch's global generator.

    Attributes
    ----------
    offset : Tensor, scalar
        A constant, 0 unless training starts from the mean rating; not learned.

    References
    ----------
    Koren, Bell & Volinsky (2009), "Matrix factorization techniques for recommender systems".
    Hu, Koren & Volinsky (2008), "Collaborative filtering for implicit feedback datasets".
    """

    offset: Tensor
    traits: Tensor

    def __init__(
        self,
        n_users: int,
        n_movies: int,
        n_factors: int = 50,
        y_range: tuple[float, float] = (0.0, 5.5),
        *,
        traits: Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()

        def layer(rows: int, size: int) -> nn.Embedding:
            embedding = nn.Embedding(rows, size, device="meta").to_empty(device="cpu")  # torch's own start uses its global generator
            nn.init.normal_(embedding.weight, generator=generator)
            return embedding

        self.user_factors, self.user_bias = layer(n_users, n_factors), layer(n_users, 1)
        self.movie_factors, self.movie_bias = layer(n_movies, n_factors), layer(n_movies, 1)
        self.register_buffer("offset", torch.zeros(()))
        self.y_range = y_range
        if traits is not None:
            self.user_choice = layer(n_users, n_factors + traits.shape[1])
            self.register_buffer("traits", traits)

    def forward(self, users: Tensor, movies: Tensor) -> Tensor:
        """Stars for int tensors ``users``, ``movies`` of shape (batch,); returns (batch,)."""
        score = (self.user_factors(users) * self.movie_factors(movies)).sum(1)  # (batch,)
        score = score + self.user_bias(users).squeeze(1) + self.movie_bias(movies).squeeze(1) + self.offset
        low, high = self.y_range
        return torch.sigmoid(score) * (high - low) + low

    def movie_features(self) -> Tensor:
        """What a choice sees of each movie: its factors and its traits, (n_movies, n_factors + n_traits)."""
        return torch.cat([self.movie_factors.weight, self.traits], dim=1)

    def choose(self, users: Tensor, movies: Tensor) -> Tensor:
        """Score of choice: near 1 for pairs with a rating, near 0 for others; (batch,) from two int tensors (batch,)."""
        features = torch.cat([self.movie_factors(movies), self.traits[movies]], dim=1)  # (batch, n_factors + n_traits)
        chosen: Tensor = (self.user_choice(users) * features).sum(1)
        return chosen
