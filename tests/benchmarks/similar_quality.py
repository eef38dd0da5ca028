"""How good are "similar films"? Learned from the earliest 80 % of MovieLens 100K by time, judged by genres, the rest, and sequels.

Films are compared by the network's own factors. Genres, later ratings and sequels are not learned from.

    python tests/benchmarks/similar_quality.py

genre lift: overlap (Jaccard) of a film's genres with those of its ten neighbours, over that with films of like popularity.
co-like lift: in the latest 20 %, how much more often than by chance a neighbour is liked (4 stars or more) by who likes the film.
sequel recall: the share of films of the same series that are among the ten. All for films with 20 ratings or more.
"""

from __future__ import annotations

import numpy as np

import cfrec
from cfrec.ratings import Ratings

K, LEAST_RATINGS, SHRINK, NEAR = 10, 20, 5.0, 50
SERIES = [  # ids of films that continue one another
    *((50, 172, 181), (127, 187), (174, 210), (222, 227, 228, 229, 230, 380, 449, 450), (29, 231, 254, 403), (176, 183, 343, 665)),
    *((144, 226, 550), (96, 195), (78, 457), (94, 894), (82, 252), (114, 169, 189, 408), (234, 452), (568, 1089), (288, 895), (95, 422)),
    *((232, 1188), (59, 60, 61), (541, 890), (145, 758), (68, 743), (233, 1228), (67, 364), (401, 412), (165, 166), (184, 201)),
    *((186, 362), (451, 1037), (265, 566)),
]


def split_by_time(ratings: Ratings) -> tuple[Ratings, Ratings]:
    order = np.lexsort((ratings.movie_idx, ratings.user_idx, ratings.timestamp))
    cut = int(0.8 * len(order))
    return ratings.take(order[:cut]), ratings.take(order[cut:])


def nearest(rows: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """The K rows of best cosine, among films with enough ratings: (n_movies, K)."""
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True).clip(1e-9)
    alike = unit @ unit.T
    np.fill_diagonal(alike, -np.inf)
    alike[:, counts < LEAST_RATINGS] = -np.inf
    return np.argsort(-alike, axis=1, kind="stable")[:, :K]


def measure(neighbours: np.ndarray, train: Ratings, later: Ratings) -> dict[str, float]:
    counts = np.bincount(train.movie_idx, minlength=train.n_movies)
    films = np.flatnonzero(counts >= LEAST_RATINGS)
    return {
        "genre lift": genre_lift(neighbours, films, counts, train.movies["genres"]),
        "co-like lift": colike_lift(neighbours, films, later),
        "sequel recall": sequel_recall(neighbours, set(films.tolist()), train.movies["movie_id"].tolist()),
    }


def genre_lift(neighbours, films, counts, genres) -> float:
    names = sorted(set("|".join(genres).split("|")))
    has = np.array([[name in text.split("|") for name in names] for text in genres])

    def overlap(film, others):
        return ((has[film] & has[others]).sum(1) / (has[film] | has[others]).sum(1).clip(1)).mean()

    by_popularity = films[np.argsort(counts[films])]
    found = reference = 0.0
    for place, film in enumerate(by_popularity):
        near = by_popularity[max(0, place - NEAR) : place + NEAR]
        found += overlap(film, neighbours[film])
        reference += overlap(film, near[near != film])
    return found / reference


def colike_lift(neighbours, films, later: Ratings) -> float:
    likes = np.zeros((later.n_users, later.n_movies), np.float32)
    liked = later.rating >= 4
    likes[later.user_idx[liked], later.movie_idx[liked]] = 1
    n = likes.sum(0)
    lift = (likes.T @ likes + SHRINK) / (np.outer(n, n) / (likes.sum(1) > 0).sum() + SHRINK)
    return float(np.mean([lift[film, neighbours[film]].mean() for film in films if n[film] >= 3]))


def sequel_recall(neighbours, films, movie_ids) -> float:
    hits = pairs = 0
    for series in SERIES:
        rows = [row for movie_id in series if (row := movie_ids.index(movie_id)) in films]
        for row in rows:
            hits += len(set(neighbours[row].tolist()) & set(rows))
            pairs += len(rows) - 1
    return hits / pairs


def measure_model(ratings: Ratings, config: cfrec.TrainConfig) -> dict[str, float]:
    train, later = split_by_time(ratings)
    trained = cfrec.train(train, later, config)
    return measure(nearest(trained.movie_factors, np.bincount(train.movie_idx, minlength=train.n_movies)), train, later)


def measure_ratings(ratings: Ratings) -> dict[str, float]:
    """Films compared by their columns of the table of ratings: item-kNN."""
    train, later = split_by_time(ratings)
    table = np.zeros((train.n_movies, train.n_users), np.float32)
    table[train.movie_idx, train.user_idx] = train.rating
    return measure(nearest(table, np.bincount(train.movie_idx, minlength=train.n_movies)), train, later)


def main() -> None:
    ratings = cfrec.load_dataset("ml-100k")
    rows = {recipe: measure_model(ratings, cfrec.TrainConfig.preset(recipe)) for recipe in cfrec.TrainConfig.preset_names()}
    rows["columns of ratings (item-kNN)"] = measure_ratings(ratings)
    for name, figures in rows.items():
        print(f"{name:32}", *(f"{figure} {value:.4f}  " for figure, value in figures.items()))


if __name__ == "__main__":
    main()
