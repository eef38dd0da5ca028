"""A few well-known films, and people who see them differently: how a model works, shown with its own numbers."""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.ratings import FloatArray, IntArray, Ratings
from cfrec.trained import TrainedModel

_WELL_KNOWN, _BEST_KNOWN = 60, 30  # films with the most ratings: among these a series is looked for, among those its opposites
_SERIES = 3  # of the films shown: those that are most alike
_MOST_PEOPLE = 5_000  # looked at
_FILLED = 0.65  # the share of films that a person to be shown has rated: the rest are gaps
_POOL = 200  # people nearest to that share
_FAR = 1e3  # puts the guesses that miss by more than usual behind all others

Matrix = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]
Rows = npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Walkthrough:
    """Films and people to explain a model with.

    Attributes
    ----------
    movie_ids, titles : list
        The first three are the likest of the well-known films, the others unlike them. Titles are without years, and distinct.
    user_ids : list
        From those who like the first films best to those who like them least.
    stars : float64 array (n_films, n_people)
        NaN where there is no rating.
    real : bool
        Whether these are ratings; otherwise they are the model's guesses.
    kept_aside : bool array (n_films, n_people) or None
        Ratings that the model did not learn from; None where that is not known.
    similarity : float or None
        Cosine of the first two films; None where there is one film, or nothing was learned of them.
    start : (movie_id, user_id)
        A pair to begin with: one to whose guess taste matters; a rating that was kept aside, where there is one.
    """

    movie_ids: list[object]
    titles: list[str]
    user_ids: list[object]
    stars: Matrix
    real: bool
    kept_aside: Mask | None
    similarity: float | None
    start: tuple[object, object]

    def cells(self) -> pd.DataFrame:
        """One row a film and person: film, person (as text), stars (NaN: a gap)."""
        n_films, n_people = self.stars.shape
        people = [str(user) for user in self.user_ids]
        return pd.DataFrame({"film": np.repeat(self.titles, n_people), "person": people * n_films, "stars": self.stars.ravel()})

    def rating(self, movie_id: object, user_id: object) -> tuple[float | None, bool | None]:
        """Stars of a pair, None where there are none; and whether they were kept aside, None where that is not known."""
        place = self.movie_ids.index(movie_id), self.user_ids.index(user_id)
        stars = float(self.stars[place])
        if not self.real or np.isnan(stars):
            return None, None
        return stars, None if self.kept_aside is None else bool(self.kept_aside[place])


def walk_through(trained: TrainedModel, ratings: Ratings | None = None, *, n_films: int = 7, n_people: int = 8) -> Walkthrough:
    """Choose films and people that show how a model works.

    Parameters
    ----------
    ratings : Ratings, optional
        Those that the model was trained on. Without them, or with those of other users or movies, the model's guesses are taken.
    """
    films, cosine = _films(trained, n_films)
    real = ratings if ratings is not None and _of_same(trained, ratings) else None
    if real is None:
        pool = np.arange(min(trained.n_users, _MOST_PEOPLE))
        stars, kept_aside = _guesses(trained, films, pool), None
    else:
        stars = _table(real, films)
        pool, kept_aside = _rated_some(stars), _kept_aside(trained, real, films)
    film, person = _telling_pair(trained, films, pool, None if real is None else stars[:, pool], kept_aside)
    people = _from_fans_to_others(stars, pool, n_people, person)
    movie_ids: list[object] = trained.movies["movie_id"].iloc[films].tolist()
    return Walkthrough(
        movie_ids=movie_ids,
        titles=_short_titles(trained.movies.iloc[films]),
        user_ids=trained.user_ids[people].tolist(),
        stars=stars[:, people],
        real=real is not None,
        kept_aside=None if kept_aside is None else kept_aside[:, people],
        similarity=cosine,
        start=(movie_ids[film], trained.user_ids[person : person + 1].tolist()[0]),
    )


def _films(trained: TrainedModel, k: int) -> tuple[IntArray, float | None]:
    """Rows of the three well-known films that are most alike and of others, each as unlike as can be; the similarity of the first two."""
    known = np.argsort(-trained.movies["n_ratings"].to_numpy(), kind="stable")[:_WELL_KNOWN].astype(np.int32)
    factors = trained.movie_factors[known].astype(np.float64)
    lengths = np.linalg.norm(factors, axis=1, keepdims=True)
    unit = factors / np.where(lengths > 0, lengths, 1)
    cosine = unit @ unit.T
    others = np.where(np.eye(len(known), dtype=bool), -np.inf, cosine)
    nearest = np.argsort(-others, axis=1, kind="stable")[:, : min(_SERIES, len(known)) - 1]
    centre = int(np.take_along_axis(cosine, nearest, axis=1).sum(axis=1).argmax())
    chosen = sorted([centre, *nearest[centre].tolist()])[:k]
    while len(chosen) < min(k, len(known)):
        closest = cosine[:, chosen].max(axis=1)
        closest[chosen] = np.inf
        closest[max(_BEST_KNOWN, k) :] = np.inf
        chosen.append(int(closest.argmin()))
    learned = len(chosen) > 1 and bool(lengths[chosen[:2]].all())
    return known[chosen], float(cosine[chosen[0], chosen[1]]) if learned else None


def _of_same(trained: TrainedModel, ratings: Ratings) -> bool:
    """Whether users and movies have the same rows in both."""
    return np.array_equal(ratings.user_ids, trained.user_ids) and ratings.movies["movie_id"].tolist() == trained.movies["movie_id"].tolist()


def _guesses(trained: TrainedModel, films: IntArray, people: Rows) -> Matrix:
    users, movies = np.tile(people.astype(np.int32), len(films)), np.repeat(films, len(people))
    return trained.predict_rows(users, movies).reshape(len(films), len(people)).astype(np.float64)


def _table(ratings: Ratings, films: IntArray) -> Matrix:
    """Stars by film and user, NaN where there are none."""
    table = np.full((len(films), ratings.n_users), np.nan)
    for place, film in enumerate(films):
        rows = ratings.movie_idx == film
        table[place, ratings.user_idx[rows]] = ratings.rating[rows]
    return table


def _rated_some(stars: Matrix) -> Rows:
    """The users who rated about two thirds of the films."""
    counts = (~np.isnan(stars)).sum(axis=0)
    order = np.argsort(np.abs(counts - _FILLED * len(stars)), kind="stable")
    pool: Rows = order[counts[order] > 0][:_POOL]
    return pool


def _centred(stars: Matrix) -> Matrix:
    """Stars beside each user's mean; 0 where there are none."""
    given = ~np.isnan(stars)
    means = np.where(given, stars, 0).sum(axis=0) / np.maximum(given.sum(axis=0), 1)
    return np.where(given, stars - means, 0)


def _from_fans_to_others(stars: Matrix, people: Rows, k: int, always: int) -> Rows:
    """At most k people, evenly from those who like the first films best, beside the others, to those who like them least.

    The one given is among them, in the place of someone who is neither first nor last.
    """
    liking = _centred(stars[:, people])[:_SERIES].mean(axis=0)
    ordered = people[np.argsort(-liking, kind="stable")]
    places = np.linspace(0, len(people) - 1, min(k, len(people))).round().astype(int)
    place = int(np.flatnonzero(ordered == always)[0])
    inner = places[1:-1] if len(places) > 2 else places
    if place not in places:
        inner[np.abs(inner - place).argmin()] = place
    chosen: Rows = ordered[places]
    return chosen


def _telling_pair(trained: TrainedModel, films: IntArray, people: Rows, stars: Matrix | None, kept_aside: Mask | None) -> tuple[int, int]:
    """Place of a film and row of a person: where taste brings a guess nearest to the stars given, and near; if they are not known, where
    it changes the guess most.
    """
    match = trained.movie_factors[films] @ trained.user_factors[people].T
    without = trained.movie_bias[films][:, None] + trained.user_bias[people] + np.float32(trained.offset)
    before, guess = trained.to_stars(without), trained.to_stars(without + match)
    if stars is None:
        gain = np.abs(guess - before)
    else:
        gain = np.abs(before - stars) - np.abs(guess - stars)
        gain = np.where(np.abs(guess - stars) <= trained.metrics["rmse"], gain, gain - _FAR)
        if kept_aside is not None and kept_aside[:, people].any():
            gain = np.where(kept_aside[:, people], gain, np.nan)
    film, person = np.unravel_index(np.nanargmax(gain), gain.shape)
    return int(film), int(people[person])


def _kept_aside(trained: TrainedModel, ratings: Ratings, films: IntArray) -> Mask | None:
    """Which ratings were kept aside, by film and user; None where that is not known."""
    if trained.split is None:
        return None
    part, held_out = ratings.split(*trained.split)
    if part.fingerprint() != trained.fingerprint:
        return None
    return ~np.isnan(_table(held_out, films))


def _short_titles(movies: pd.DataFrame) -> list[str]:
    """Titles without their years; with them, or else with their ids, where they would be the same."""
    full: list[str] = movies["title"].tolist()
    short = [re.sub(r" \(\d{4}\)$", "", title) for title in full]
    with_id = [f"{title} [{key}]" for title, key in zip(full, movies["movie_id"], strict=True)]
    choices = zip(short, full, with_id, strict=True)
    return [name if short.count(name) == 1 else title if full.count(title) == 1 else last for name, title, last in choices]


def factor_cells(trained: TrainedModel, shown: Walkthrough, n_numbers: int = 10) -> pd.DataFrame:
    """The factors in which these films differ most: film, number (from 1), value; one row a film and number."""
    rows = [trained.movie_row(movie_id) for movie_id in shown.movie_ids]
    factors: FloatArray = trained.movie_factors[rows]
    most = np.sort(np.argsort(-factors.var(axis=0), kind="stable")[:n_numbers])
    return pd.DataFrame(
        {
            "film": np.repeat(shown.titles, len(most)),
            "number": np.tile(most + 1, len(rows)),
            "value": factors[:, most].ravel(),
        }
    )


def network_layers(trained: TrainedModel) -> pd.DataFrame:
    """The network's layers: layer, rows, columns, parameters. ``user_choice`` is one where the model learned from who rated what too."""
    shapes = {
        "user_factors": trained.user_factors.shape,
        "user_bias": (trained.n_users, 1),
        "movie_factors": trained.movie_factors.shape,
        "movie_bias": (trained.n_movies, 1),
    }
    if trained.user_choice is not None:
        shapes["user_choice"] = trained.user_choice.shape
    return pd.DataFrame(
        [(name, *shape, shape[0] * shape[1]) for name, shape in shapes.items()], columns=["layer", "rows", "columns", "parameters"]
    )


def network_text(trained: TrainedModel) -> str:
    """The network as PyTorch prints it; PyTorch is not needed for it."""
    lines = [f"  ({row.layer}): Embedding({row.rows}, {row.columns})" for row in network_layers(trained).itertuples()]
    return "\n".join(["EmbeddingNet(", *lines, ")"])
