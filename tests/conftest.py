"""Data that every test may use. None of it is downloaded: it is made here, with a known answer."""

from __future__ import annotations

import os
from dataclasses import replace

import numpy as np
import pytest

import cfrec
from cfrec import datasets, logs
from cfrec.ratings import build_ratings
from cfrec.readers import load_dataset

os.environ.pop("PYTHONUNBUFFERED", None)  # which hides what goes wrong where output is buffered, as it is for everybody else
logs.set_up = lambda: None  # of pages that are run in this process: its log is pytest's

N_BLOCKS, USERS_A_BLOCK, MOVIES_A_BLOCK = 3, 30, 12


def make_blocks(seed: int = 0, share: float = 0.6) -> cfrec.Ratings:
    """Three tastes: user u loves (5) the movies of block u % 3 and dislikes (2) the others.

    Movie ids are 100 + row; movie m belongs to block m // 12; the titles say so.
    """
    rng = np.random.default_rng(seed)
    n_users, n_movies = N_BLOCKS * USERS_A_BLOCK, N_BLOCKS * MOVIES_A_BLOCK
    pairs = [(u, m) for u in range(n_users) for m in range(n_movies) if rng.random() < share]
    users, movies = np.array(pairs).T
    stars = np.where(users % N_BLOCKS == movies // MOVIES_A_BLOCK, 5.0, 2.0)
    catalogue = {
        str(100 + m): (f"Block {m // MOVIES_A_BLOCK} film {m}, The ({1950 + m})", f"Genre{m // MOVIES_A_BLOCK}") for m in range(n_movies)
    }
    return build_ratings(users.astype(np.int64) + 1, movies.astype(np.int64) + 100, stars, movies=catalogue)


@pytest.fixture(scope="session")
def blocks() -> cfrec.Ratings:
    return make_blocks()


@pytest.fixture(scope="session")
def block_config() -> cfrec.TrainConfig:
    return cfrec.TrainConfig.preset("quick", n_factors=4, choice_weight=0.0, epochs=12, batch_size=64, device="cpu")


@pytest.fixture(scope="session")
def trained(blocks: cfrec.Ratings, block_config: cfrec.TrainConfig) -> cfrec.TrainedModel:
    return cfrec.train(*blocks.split(), block_config)


@pytest.fixture(scope="session")
def chosen(trained: cfrec.TrainedModel) -> cfrec.TrainedModel:
    """The same with two traits, and with choices as a model has that learned from who rated what too. They are made up."""
    rng = np.random.default_rng(0)
    choice = rng.standard_normal((trained.n_users, trained.n_factors + 2)).astype(np.float32)
    traits = np.column_stack([np.ones(trained.n_movies), rng.standard_normal(trained.n_movies)]).astype(np.float32)
    return replace(trained, user_choice=choice, movie_traits=traits)


@pytest.fixture(scope="session")
def shipped() -> cfrec.TrainedModel:
    return cfrec.load_model("models/ml-100k")


@pytest.fixture(scope="session")
def ml_100k() -> cfrec.Ratings:
    if datasets.find_local("ml-100k") is None:
        pytest.skip("MovieLens 100K is not in the cache: python -m cfrec data ml-100k")
    return load_dataset("ml-100k")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder."""
    monkeypatch.setenv("CFREC_HOME", str(tmp_path / "home"))
    return tmp_path / "home"
