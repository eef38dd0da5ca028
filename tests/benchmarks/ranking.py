"""How good are recommendations for people the model never saw? NDCG@10 on MovieLens 100K, or on another file of ratings.

    python tests/benchmarks/ranking.py [RATINGS] [PRESET ...]

Strong generalisation (Liang et al. 2018): a tenth of the users is never trained on; of each, 80 % of the ratings are given, and the films
they liked (4 stars or more) among the rest are to be found among all others. Beside it: most popular, item-kNN (cosine of who rated what),
and EASE on likes (Steck 2019), whose only constant is 200 here.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

import cfrec
from cfrec.ratings import Ratings

K, LIKED, GIVEN, LEAST_GIVEN, EASE_L2 = 10, 4.0, 0.8, 5, 200.0
Rank = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows seen and their stars -> a score for each movie


@dataclass(frozen=True)
class Person:
    """What is given of someone, and what is to be found: rows of movies."""

    seen: np.ndarray
    stars: np.ndarray
    wanted: set[int]


def hold_people_out(ratings: Ratings, seed: int = 0) -> tuple[Ratings, list[Person]]:
    """The ratings of nine tenths of the users, and the others."""
    random = np.random.default_rng(seed)
    held_out = random.permutation(ratings.n_users)[: ratings.n_users // 10]
    people = []
    for user in held_out:
        rows = random.permutation(np.flatnonzero(ratings.user_idx == user))
        given, asked = np.split(rows, [int(GIVEN * len(rows))])
        wanted = set(ratings.movie_idx[asked[ratings.rating[asked] >= LIKED]].tolist())
        if wanted and len(given) >= LEAST_GIVEN:
            people.append(Person(ratings.movie_idx[given], ratings.rating[given], wanted))
    return ratings.take(np.flatnonzero(~np.isin(ratings.user_idx, held_out))), people


def ndcg(people: list[Person], rank: Rank) -> float:
    gains = 1 / np.log2(np.arange(2, K + 2))
    values = []
    for person in people:
        scores = np.array(rank(person.seen, person.stars), np.float64)
        scores[person.seen] = -np.inf
        found = np.isin(np.argsort(-scores, kind="stable")[:K], list(person.wanted))
        values.append(gains[found].sum() / gains[: len(person.wanted)].sum())
    return float(np.mean(values))


def baselines(train: Ratings) -> dict[str, Rank]:
    rated, liked = (np.zeros((train.n_users, train.n_movies)) for _ in range(2))
    rated[train.user_idx, train.movie_idx], liked[train.user_idx, train.movie_idx] = 1, train.rating >= LIKED
    unit = rated / np.linalg.norm(rated, axis=0).clip(1e-9)
    inverse = np.linalg.inv(liked.T @ liked + EASE_L2 * np.eye(train.n_movies))
    ease = np.eye(train.n_movies) - inverse / np.diag(inverse)
    return {
        "most popular": lambda seen, stars: rated.sum(0),
        "item-kNN": lambda seen, stars: (unit.T @ unit[:, seen]).sum(1),
        "EASE": lambda seen, stars: ease[seen[stars >= LIKED]].sum(0),
    }


def recommender(train: Ratings, config: cfrec.TrainConfig) -> Rank:
    trained = cfrec.train(train, train.take(np.arange(0, len(train), 20)), config)
    ids = trained.movies["movie_id"].to_numpy()

    def rank(seen: np.ndarray, stars: np.ndarray) -> np.ndarray:
        table = cfrec.recommend(trained, dict(zip(ids[seen].tolist(), stars.tolist(), strict=True)), k=len(ids))
        return table.set_index("movie_id")["score"].reindex(ids).fillna(-np.inf).to_numpy()

    return rank


def main() -> None:
    name, presets = (sys.argv[1:] or ["ml-100k"])[0], sys.argv[2:] or ("quick", "balanced", "accurate")
    train, people = hold_people_out(cfrec.load_dataset(name) if name == "ml-100k" else cfrec.read_ratings(name))
    ranks = baselines(train) | {preset: recommender(train, cfrec.TrainConfig.preset(preset)) for preset in presets}
    for label, rank in ranks.items():
        print(f"{label:14} NDCG@{K} {ndcg(people, rank):.3f}  ({len(people)} people)", flush=True)


if __name__ == "__main__":
    main()
