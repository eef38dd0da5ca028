"""D3: extreme but legal data trains and can be explored, or is refused with a reason; tables are as large as the ids are many."""

from __future__ import annotations

import io
import logging
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest

import cfrec
from cfrec.errors import CfrecError
from cfrec.explore import movie_map
from tests.promises.counts import counted

logger = logging.getLogger(__name__)

PRESETS = cfrec.TrainConfig.preset_names()
LARGEST, SMALLEST = 2**63 - 1, -(2**63)
FAST = [name for name in PRESETS if name != "accurate"]
SAMPLE = {"all the same": "accurate"}  # which once broke what is recommended
MOST_MEMORY = 12 << 20  # bytes, for a thousand ratings
REFUSED = {  # nothing can be held out to measure by; nothing can be learned of what goes with what
    "one rating": "two are the least",
    "one rating, many times": "two are the least",
    "one user": "All ratings are by one person",
}


def grid(n_users: int, n_movies: int, stars: Callable[[int], float], user: str = "{}", movie: str = "{}") -> str:
    """A file in which everybody rated every movie."""
    pairs = [(u, m) for u in range(n_users) for m in range(n_movies)]
    return "".join(f"{user.format(u)},{movie.format(m)},{stars(k)}\n" for k, (u, m) in enumerate(pairs))


def mixed(k: int) -> float:
    return (k * 7 + k // 5) % 5 + 1


FILES = {
    "one rating": "1,1,3\n",
    "one rating, many times": "1,1,3\n" * 50,
    "two ratings": "1,1,3\n2,2,4\n",
    "two ratings, many times": "1,1,3\n2,1,4\n" * 50,
    "one user": grid(1, 40, mixed),
    "one movie": grid(40, 1, mixed),
    "everybody rated another": "".join(f"{k},{k},{mixed(k)}\n" for k in range(40)),
    "all the same": grid(12, 8, lambda _: 3),
    "all 0": grid(12, 8, lambda _: 0),
    "negative": grid(12, 8, lambda k: -mixed(k)),
    "a thousand values": grid(50, 40, lambda k: k * 7 % 1000 / 10),
    "as far apart as may be": grid(12, 8, lambda k: (k % 2 * 2 - 1) * 1000),
    "close together": grid(12, 8, lambda k: k % 5 * 1e-9),
    "text ids": grid(11, 8, mixed, "ann {} 🎬", "é{}"),
    "the largest ids": grid(11, 8, mixed, f"{LARGEST // 100}{{:02}}", "-92233720368547{:05}") + f"{LARGEST},{SMALLEST},5\n",
}


@pytest.mark.parametrize("k", range(len(FILES)), ids=list(FILES))
@counted(sample=1, full=len(PRESETS))
def test_it_trains_and_can_be_explored_or_is_refused(tmp_path, k, n):
    """By every preset; the sample takes one, another for each file."""
    name, text = list(FILES.items())[k]
    ratings = cfrec.read_ratings(io.StringIO("user,movie,rating\n" + text))
    for preset in PRESETS if n > 1 else [SAMPLE.get(name, FAST[k % len(FAST)])]:
        config = cfrec.TrainConfig.preset(preset, epochs=3, device="cpu")
        try:
            trained = cfrec.train(*ratings.split(), config)
        except CfrecError as error:
            assert REFUSED.get(name, "nothing") in str(error)  # noqa: PT017  # most files are not refused
            continue
        assert name not in REFUSED
        assert problems(trained, tmp_path / preset) == [], preset
        assert trained.user_ids.tolist() == ratings.user_ids.tolist()
        if name.startswith("all"):
            assert trained.metrics["rmse"] < 1e-3, preset
        logger.info("%s by %s: %s, rmse %.3g", name, preset, trained.outcome, trained.metrics["rmse"])


def problems(trained: cfrec.TrainedModel, folder: Path) -> list[str]:
    """What is wrong with a model and with what can be asked of it."""
    n_movies, ids, (low, high, _) = len(trained.movies), trained.movies["movie_id"].tolist(), trained.scale
    known = [movie_id for movie_id, row in zip(ids, trained.movie_factors, strict=True) if row.any()]  # others have no training rating
    biases, similar, liked = cfrec.movie_biases(trained), cfrec.similar_movies(trained, known[0], k=n_movies), recommended(trained)
    users = trained.user_ids[:5].tolist()
    guesses = cfrec.predict_ratings(trained, users, (ids * 5)[: len(users)])
    found = cfrec.search_movies(trained, str(trained.movies["title"][0]), k=n_movies)
    slack = 1e-6 * max(abs(low), abs(high))
    parts = liked[["average", "movie", "visitor", "taste"]].sum(axis=1)
    good = {
        "weights": all(np.isfinite(weights).all() for weights in trained.weights().values()),
        "metrics": np.isfinite(list(trained.metrics.values())).all(),
        "history": all(np.isfinite([m.train_loss, m.valid_loss]).all() for m in trained.history),
        "outcome": trained.outcome == "completed" or (trained.outcome == "diverged" and "Try " in trained.advice),
        "biases": same(biases["movie_id"], ids) and (np.diff(biases["bias"]) <= 0).all(),
        "similar": same([*similar["movie_id"], known[0]], known) and similar["similarity"].abs().le(1 + 1e-6).all(),
        "map": is_drawn(trained, n_movies),
        "recommended": len(liked) == min(n_movies - 1, 10) and liked["predicted"].between(low - slack, high + slack).all(),
        "parts": np.allclose(parts, liked["predicted"], atol=1e-6 * (1 + high - low)),
        "guesses": ((guesses >= low) & (guesses <= high)).all(),
        "search": ids[0] in found["movie_id"].tolist(),
        "stored": is_stored(trained, folder),
    }
    return [what for what, is_good in good.items() if not is_good]


def same(found: Iterable[object], wanted: Iterable[object]) -> bool:
    return sorted(map(str, found)) == sorted(map(str, wanted))


def recommended(trained: cfrec.TrainedModel) -> pd.DataFrame:
    """For somebody who gave one movie the most there is."""
    return cfrec.recommend(trained, {trained.movies["movie_id"].tolist()[0]: trained.scale[1]})


def is_drawn(trained: cfrec.TrainedModel, n_movies: int) -> bool:
    """A map has a finite place for each movie; of fewer movies than dimensions there is none, and it says so, or has fewer dimensions."""
    page = movie_map(trained, 3)
    try:
        places = cfrec.project_factors(trained, n_components=3)
    except CfrecError as error:
        return n_movies < 3 and len(page) == n_movies and f"from {n_movies} movies" in str(error)
    return len(page) == len(places) == n_movies and bool(np.isfinite(places[["x", "y", "z"]].to_numpy()).all())


def is_stored(trained: cfrec.TrainedModel, folder: Path) -> bool:
    try:
        stored = cfrec.load_model(cfrec.save_model(trained, folder))
    except CfrecError:
        return False
    ids = [model.user_ids.tolist() + model.movies["movie_id"].tolist() for model in (stored, trained)]
    return ids[0] == ids[1] and all((a == b).all() for a, b in zip(stored.weights().values(), trained.weights().values(), strict=True))


def test_the_check_is_not_blind(trained, tmp_path):
    assert problems(trained, tmp_path / "good") == []
    choice, traits = np.full((trained.n_users, trained.n_factors + 1), np.nan, np.float32), np.ones((trained.n_movies, 1), np.float32)
    broken = {
        "weights": {"user_choice": choice, "movie_traits": traits},
        "metrics": {"metrics": {"mse": 1.0, "rmse": np.nan, "mae": 1.0}},
        "outcome": {"outcome": "diverged"},
        "guesses": {"user_bias": np.full_like(trained.user_bias, np.nan)},
        "recommended": {"movies": trained.movies.assign(movie_id=100)},
    }
    for what, change in broken.items():
        assert what in problems(replace(trained, **change), tmp_path / what), what


IDS = {
    "2^62": (2**62, 10**9),
    "the largest": (LARGEST - 999 * 7, 7),
    "the smallest": (SMALLEST, 7),
    "a hundred million": (1, 100_000),
}


def file_of(kind: str) -> str:
    start, step = IDS[kind]
    return "".join(f"{start + k * step},{start + (999 - k) * step},{k % 5}\n" for k in range(1_000))


def peak_of(read: Callable[[], object]) -> int:
    read()  # whatever is imported at first
    tracemalloc.start()
    read()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return peak


@pytest.mark.parametrize("kind", IDS)
def test_tables_are_as_large_as_the_ids_are_many(kind):
    start, step = IDS[kind]
    ratings = cfrec.read_ratings(io.StringIO("user,movie,rating\n" + file_of(kind)))
    assert ratings.user_ids.tolist() == [start + k * step for k in range(1_000)]
    assert ratings.movie_idx.tolist() == list(range(1_000))[::-1]
    assert (ratings.n_users, ratings.n_movies) == (1_000, 1_000)
    assert peak_of(lambda: cfrec.read_ratings(io.StringIO("user,movie,rating\n" + file_of(kind)))) < MOST_MEMORY


def test_the_check_of_memory_is_not_blind():
    """A table with a place for each id that might be: of a hundred million there is one, of 2^62 there is none at all."""

    def index(kind: str) -> npt.NDArray[np.bool_]:
        ids = np.array([int(line.partition(",")[0]) for line in file_of(kind).splitlines()])
        places = np.zeros(ids.max() + 1, bool)
        places[ids] = True
        return places

    assert peak_of(lambda: index("a hundred million")) > MOST_MEMORY
    with pytest.raises((MemoryError, ValueError)):
        index("2^62")
