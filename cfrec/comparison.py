"""Two trained models side by side: settings, neighbours and biases that changed."""

from __future__ import annotations

from collections.abc import Sequence

import pandas as pd

from cfrec.config import TrainConfig
from cfrec.explore import movie_biases, similar_movies
from cfrec.trained import TrainedModel


def same_test(old: TrainedModel, new: TrainedModel) -> bool:
    """Whether both were trained on the same ratings and judged by the same held-out ones: only then can their errors be compared."""
    return old.fingerprint == new.fingerprint and old.n_valid == new.n_valid


def changed_settings(old: TrainConfig, new: TrainConfig) -> pd.DataFrame:
    """The settings that differ: setting, old, new (as text), in the order of TrainConfig."""
    before, after = old.to_dict(), new.to_dict()
    rows = [(name, str(before[name]), str(after[name])) for name in before if before[name] != after[name]]
    return pd.DataFrame(rows, columns=["setting", "old", "new"])


def neighbour_changes(
    old: TrainedModel, new: TrainedModel, movie_ids: Sequence[object], k: int = 5, *, min_ratings: int = 0
) -> pd.DataFrame:
    """The k neighbours of movies that both models know, before and after.

    Returns
    -------
    DataFrame
        movie_id, title, rank (from 1), old, new (titles; empty where a model has fewer neighbours).
    """
    rows = []
    for movie_id in movie_ids:
        title = new.movies["title"].iloc[new.movie_row(movie_id)]
        before, after = (similar_movies(m, movie_id, k, min_ratings)["title"].tolist() for m in (old, new))
        padded = [[*titles, *[""] * (k - len(titles))] for titles in (before, after)]
        rows += [(movie_id, title, rank, a, b) for rank, (a, b) in enumerate(zip(*padded, strict=True), 1)]
    return pd.DataFrame(rows, columns=["movie_id", "title", "rank", "old", "new"])


def bias_movers(old: TrainedModel, new: TrainedModel, k: int = 5, *, min_ratings: int = 0) -> pd.DataFrame:
    """The movies whose bias, in stars, changed most: movie_id, title, old, new, change; largest change first."""
    before = movie_biases(old)[["movie_id", "stars"]].rename(columns={"stars": "old"})
    after = movie_biases(new, min_ratings=min_ratings)[["movie_id", "title", "stars"]].rename(columns={"stars": "new"})
    both = after.merge(before, on="movie_id")
    both["change"] = both["new"] - both["old"]
    order = both["change"].abs().sort_values(ascending=False, kind="stable").index
    return both.loc[order, ["movie_id", "title", "old", "new", "change"]].head(k).reset_index(drop=True)
