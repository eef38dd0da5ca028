"""Trained models side by side: settings, neighbours and biases that changed between two; figures of all that are stored."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from cfrec.config import TrainConfig
from cfrec.explore import movie_biases, similar_movies
from cfrec.storage import StoredModel
from cfrec.trained import TrainedModel

_HEADROOM = 1.2  # a picture of losses reaches this many times the worst model's best


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
    before = movie_biases(old).set_index("movie_id")["stars"].to_dict()
    after = movie_biases(new, min_ratings=min_ratings)[["movie_id", "title", "stars"]].rename(columns={"stars": "new"})
    both = after.assign(old=after["movie_id"].map(before).astype("float32")).dropna(subset="old")
    both["change"] = both["new"] - both["old"]
    order = both["change"].abs().sort_values(ascending=False, kind="stable").index
    return both.loc[order, ["movie_id", "title", "old", "new", "change"]].head(k).reset_index(drop=True)


def overview(stored: Sequence[StoredModel]) -> pd.DataFrame:
    """The figures of stored models that can be loaded, one row a model.

    Returns
    -------
    DataFrame
        model (its name), dataset (its title), recipe, rmse (stars), rounds (epochs that were run), best_epoch, n_factors,
        fit_seconds, device, created (YYYY-MM-DD, UTC), n_movies, n_users, n_train, n_valid (ratings).
    """
    rows = []
    for model in stored:
        facts, shapes = model.manifest, model.manifest["shapes"]
        rows.append(
            {
                "model": model.name,
                "dataset": facts["dataset"]["title"],
                "recipe": facts["config"]["recipe"],
                "rmse": float(facts["metrics"]["rmse"]),
                "rounds": len(facts["history"]),
                "best_epoch": facts["best_epoch"],
                "n_factors": shapes["n_factors"],
                "fit_seconds": float(facts["fit_seconds"]),
                "device": facts["device"],
                "created": facts["created"][:10],
                "n_movies": shapes["n_movies"],
                "n_users": shapes["n_users"],
                "n_train": facts["n_train"],
                "n_valid": facts["n_valid"],
            }
        )
    return pd.DataFrame(rows)


def groups_by_test(stored: Sequence[StoredModel]) -> list[list[str]]:
    """Names of models in groups that were trained and tested on the same ratings: only within one can errors be compared."""
    groups: dict[tuple[int, int], list[str]] = {}
    for model in stored:
        groups.setdefault((model.manifest["fingerprint"], model.manifest["n_valid"]), []).append(model.name)
    return list(groups.values())


def differing_settings(stored: Sequence[StoredModel]) -> pd.DataFrame:
    """The settings in which models differ.

    Returns
    -------
    DataFrame
        Index: settings, in the order of TrainConfig. A column a model, under its name; values as text.
    """
    configs = {model.name: TrainConfig.from_dict(model.manifest["config"]).to_dict() for model in stored}
    names = [name for name in TrainConfig().to_dict() if len({config[name] for config in configs.values()}) > 1]
    columns = {model: [_as_text(config[name]) for name in names] for model, config in configs.items()}
    return pd.DataFrame(columns, index=pd.Index(names, name="setting", dtype="str"))


def _as_text(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def miss_by_round(stored: Sequence[StoredModel], top: float = math.inf) -> pd.DataFrame:
    """The average miss on held-out ratings, the root of the mean squared error, after each epoch of several models.

    Parameters
    ----------
    top : stars
        Epochs that missed by more are left out.

    Returns
    -------
    DataFrame
        model, epoch, stars.
    """
    rows = [
        (model.name, entry["epoch"], math.sqrt(max(entry["valid_loss"], 0.0))) for model in stored for entry in model.manifest["history"]
    ]
    return pd.DataFrame([row for row in rows if row[2] <= top], columns=["model", "epoch", "stars"])


def readable_top(stored: Sequence[StoredModel]) -> float:
    """How many stars a picture of ``miss_by_round`` should reach, so that the differences at the end can be seen in it."""
    best = [min((entry["valid_loss"] for entry in model.manifest["history"]), default=0.0) for model in stored]
    return _HEADROOM * math.sqrt(max([*best, 0.0]))
