"""What each command of the command line does."""

from __future__ import annotations

import json
import shlex
import time
from argparse import Namespace
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cfrec import datasets, evaluation, explore, storage
from cfrec import export as export_
from cfrec import search as search_
from cfrec.benchmark import made_up_ratings, measure_speed
from cfrec.config import DEFAULT_PRESET, TrainConfig
from cfrec.console import download_progress, epoch_progress, print_json, print_table, records, show, stop_on_interrupt
from cfrec.errors import ConfigError, DataError, ModelError
from cfrec.ratings import Ratings
from cfrec.readers import load_dataset, read_ratings
from cfrec.recommend import recommend
from cfrec.trained import TrainedModel
from cfrec.training import train

Command = Callable[[Namespace], None]
SHIPPED_MODEL = "models/ml-100k"


def _load_model(name: str) -> TrainedModel:
    """A model by folder, or by its name in models/; those that ship with cfrec from wherever it is run."""
    places = [Path(name), Path("models", name), storage.shipped_model(name.removeprefix("models/"))]
    return storage.load_model(next((place for place in places if place.is_dir()), places[0]))


def _fetch(name: str) -> Ratings:
    with download_progress(name) as on_progress:
        return load_dataset(name, on_progress=on_progress)


def _ratings(args: Namespace, trained: TrainedModel | None = None) -> Ratings:
    """The ratings that the arguments name; where they name none, those of a model, or else ml-100k."""
    if not args.ratings:
        _refuse_reading_options(args)
        name = args.dataset or (trained.source.name if trained else "ml-100k")
        if trained and name not in datasets.DATASETS:
            raise DataError(f"The model was trained on {trained.source.title}. Name them: --ratings FILE")
        return _fetch(name)
    return _read(args.ratings, args)


def _refuse_reading_options(args: Namespace) -> None:
    if args.movies or args.drop_bad_rows or args.columns or args.not_rated is not None:
        raise ConfigError("--movies, --columns, --not-rated and --drop-bad-rows go with a file of your own: a MovieLens release is whole.")


def _read(path: str, args: Namespace) -> Ratings:
    """A file of the user's own; says what was read as what."""
    ratings = read_ratings(path, args.columns, args.movies, drop_bad=args.drop_bad_rows, not_rated=args.not_rated)
    if not args.json:
        print("\n".join(ratings.report.lines()))
    return ratings


def _list_datasets(args: Namespace) -> None:
    rows = [asdict(d) | {"url": d.url, "present": datasets.find_local(d.name) is not None} for d in datasets.DATASETS.values()]
    if args.json:
        print_json(rows)
        return
    table = pd.DataFrame(rows)
    table["MB"] = (table["size"] / 1e6).round().astype(int)
    print_table(table[["name", "year", "n_ratings", "n_users", "n_movies", "MB", "present"]])
    for licence, names in table.groupby("licence", sort=False)["name"]:
        print(f"\n{', '.join(names)}: {licence}")
    print(f"\nCite: {datasets.CITATION}")


def data(args: Namespace) -> None:
    """List the data sets, or say what is in one, or in a file."""
    if not args.name:
        _list_datasets(args)
        return
    if Path(args.name).suffix or Path(args.name).exists():
        ratings = _read(args.name, args)
    else:
        _refuse_reading_options(args)
        ratings = _fetch(args.name)
    summary: dict[str, Any] = {
        "name": args.name,
        "title": ratings.source.title,
        "n_ratings": len(ratings),
        "n_users": ratings.n_users,
        "n_movies": ratings.n_movies,
    }
    summary |= {"mean_rating": round(float(ratings.rating.mean()), 4), "scale": list(ratings.scale)}
    values, counts = np.unique(ratings.rating, return_counts=True)
    summary["histogram"] = {f"{value:g}": int(count) for value, count in zip(values, counts, strict=True)}
    most_rated = ratings.most_rated(20)[["movie_id", "title", "n_ratings", "mean_rating"]]
    if args.json:
        summary["report"] = json.loads(ratings.report.to_json())
        print_json(summary | {"licence": ratings.source.licence, "citation": ratings.source.citation, "most_rated": records(most_rated)})
        return
    print(f"{ratings.source.title}: {len(ratings):,} ratings by {ratings.n_users:,} users of {ratings.n_movies:,} movies")
    print(f"Stars: {ratings.rating.mean():.2f} on average")
    for stars, count in summary["histogram"].items():
        print(f"{stars:>4} {'#' * round(60 * count / counts.max()):60} {count:,}")
    print("\nThe first ratings, as they were understood, and the movies with the most:")
    print_table(ratings.head(5))
    print_table(most_rated)
    if ratings.source.licence:
        print(f"\n{ratings.source.licence}\nCite: {ratings.source.citation}")


def _config(args: Namespace, base: TrainConfig | None) -> TrainConfig:
    """The preset, or the settings of a run that is resumed, with what the arguments change."""
    names = [name for name in TrainConfig().to_dict() if getattr(args, name, None) is not None]
    changes = {name: getattr(args, name) for name in names}
    if base is None:
        return TrainConfig.preset(args.preset or DEFAULT_PRESET, **changes)
    if args.preset or args.valid_fraction is not None or args.split_seed is not None:
        raise ConfigError("A resumed run keeps its preset and its held-out ratings: leave --preset, --valid-fraction and --split-seed out.")
    return replace(base, **changes)


def train_model(args: Namespace) -> None:
    """Train a model and store it."""
    started = time.perf_counter()
    resumed = _load_model(args.resume) if args.resume else None
    config = _config(args, resumed.config if resumed else None)
    out = args.out or args.resume
    if out:
        storage.check_folder(out)
    asked = (0.2 if args.valid_fraction is None else args.valid_fraction, 42 if args.split_seed is None else args.split_seed)
    fraction, seed = (resumed and resumed.split) or asked
    part, valid = _ratings(args, resumed).split(fraction, seed)
    with epoch_progress(config.epochs) as on_epoch, stop_on_interrupt() as stop:
        trained = train(part, valid, config, on_epoch=on_epoch, stop=stop, resume=resumed)
    if trained.best_epoch == 0 and trained.outcome != "completed":
        unchanged = f" {out} is unchanged." if out else ""
        raise ConfigError((trained.advice or "Stopped before anything was learned.") + unchanged)
    if trained.advice:
        show(trained.advice)
    no_stars = trained.user_choice is not None and not np.ptp(part.rating)
    if no_stars:
        show("Every rating is the same, so there are no stars to guess: who rated what is all that was learned.")
    if out:
        storage.save_model(trained, out, resumable=args.resumable or trained.outcome == "stopped")
    result = _training_result(trained, time.perf_counter() - started) | {"out": out}
    if args.json:
        print_json(result)
        return
    errors = "on held-out ratings RMSE {rmse:.3f}, MSE {mse:.4f}, MAE {mae:.3f} stars".format_map(trained.metrics)
    epochs = f"{len(trained.history)} whole epochs; the weights of epoch {trained.best_epoch} are the best"
    print(f"{trained.outcome} after {epochs}{'' if no_stars else f': {errors}'}.")
    chosen = " (chosen by auto)" if trained.config.device == "auto" else ""
    print(f"Fit in {trained.fit_seconds:.1f} s on {trained.device}{chosen}.")
    print(
        f"Stored in {out}. See: python -m cfrec biases --model {shlex.quote(out)}"
        if out
        else "Not stored: give --out models/NAME to keep it."
    )


def _training_result(trained: TrainedModel, seconds: float) -> dict[str, Any]:
    return {
        **trained.metrics,
        "epochs": len(trained.history),
        "best_epoch": trained.best_epoch,
        "outcome": trained.outcome,
        "fit_seconds": round(trained.fit_seconds, 3),
        "seconds": round(seconds, 3),
        "device": trained.device,
        "n_parameters": trained.n_parameters,
        "n_train": trained.n_train,
        "n_valid": trained.n_valid,
        "config": trained.config.to_dict(),
        "history": [asdict(m) for m in trained.history],
    }


def evaluate_model(args: Namespace) -> None:
    """Measure a model on its held-out ratings, or its recipe on folds."""
    by_preset = args.folds is not None and args.model in TrainConfig.preset_names()
    trained = None if by_preset else _load_model(args.model)
    ratings = _ratings(args, trained)
    if trained and args.folds is None:
        result: dict[str, Any] = {"model": args.model, **evaluation.evaluate(trained, ratings), "n_valid": trained.n_valid}
    else:
        folds = evaluation.cross_validate(
            ratings,
            trained.config if trained else TrainConfig.preset(args.model),
            args.folds,
            on_fold=lambda n, e: show(f"fold {n}/{args.folds}: RMSE {e['rmse']:.4f}, MSE {e['mse']:.4f}"),
        )
        means = {name: float(np.mean([fold[name] for fold in folds])) for name in folds[0]}
        result = {"model": args.model, **means, "folds": folds}
    if args.json:
        print_json(result)
    else:
        print("  ".join(f"{name} {result[name]:.4f}" for name in ("rmse", "mse", "mae", "within_half", "within_one") if name in result))


def _print(args: Namespace, table: pd.DataFrame, **more: object) -> None:
    """A table, or JSON: its rows alone, or beside what else there is to say."""
    if args.json:
        print_json({**more, "movies": records(table)} if more else records(table))
    elif len(table):
        print_table(table)
    else:
        print("No movie found. Fewer filters, or a lower --min-ratings, may help.")


def biases(args: Namespace) -> None:
    """The best and the worst movies by bias."""
    table = explore.movie_biases(_load_model(args.model), min_ratings=args.min_ratings)
    if args.json:
        print_json({"best": records(table.head(args.k)), "worst": records(table.tail(args.k)[::-1])})
        return
    for heading, part in (("Best", table.head(args.k)), ("\nWorst", table.tail(args.k)[::-1])):
        print(heading)
        _print(args, part)


def project(args: Namespace) -> None:
    """The most rated movies on the map."""
    trained = _load_model(args.model)
    places = explore.project_factors(trained, args.components, min_ratings=args.min_ratings)
    shares = places.attrs["explained_variance_ratio"]
    _print(args, places.nlargest(args.k, "n_ratings"), explained_variance_ratio=shares)
    if not args.json:
        print("\nShare of variation: " + ", ".join(f"{name} {share:.1%}" for name, share in zip(places.columns[3:], shares, strict=True)))


def _find(trained: TrainedModel, text: str) -> tuple[list[object], list[str]]:
    """Ids and titles of the movies of a title; says so where the first, which is taken, is not the only one."""
    found = search_.find_namesakes(trained, text)
    ids, titles = found["movie_id"].tolist(), found["title"].tolist()
    if len(titles) > 1:
        show(f"There are {len(titles)} movies called {text!r}; taken, as the most rated: {titles[0]}. Others: {'; '.join(titles[1:])}")
    return ids, titles


def similar(args: Namespace) -> None:
    """Movies like a movie."""
    trained = _load_model(args.model)
    (movie_id, *_), (title, *also) = _find(trained, " ".join(args.title))
    table = explore.similar_movies(trained, movie_id, args.k, args.min_ratings, genre=args.genre, years=args.years and tuple(args.years))
    if not args.json:
        print(f"Like {title}" if trained.movie_factors[trained.movie_row(movie_id)].any() else f"Nothing was learned about {title}")
    _print(args, table, query={"movie_id": movie_id, "title": title, "also": also})


def search(args: Namespace) -> None:
    """Find movies by title."""
    _print(args, search_.search_movies(_load_model(args.model), " ".join(args.text), args.k))


def recommend_movies(args: Namespace) -> None:
    """Movies for someone who rated a few."""
    trained = _load_model(args.model)
    stars = {}
    for rate in args.rate:
        title, _, value = rate.rpartition("=")
        try:
            stars[_find(trained, title)[0][0]] = float(value)
        except ValueError:
            raise DataError(f'--rate {rate!r} should be TITLE=STARS, such as "Fargo=4.5".') from None
    table = recommend(trained, stars, args.k, min_ratings=args.min_ratings, loved=args.loved)
    if not args.json:
        names = [f"{trained.movies['title'][trained.movie_row(m)]}: {v:g}" for m, v in stars.items()]
        print(f"For someone who rated {'; '.join(names)}")
    _print(args, table)


def models(args: Namespace) -> None:
    """List the stored models."""
    rows = [_model_row(entry) for entry in storage.list_models(args.folder)]
    if args.json:
        print_json(rows)
    elif rows:
        print_table(pd.DataFrame(rows).drop(columns="path"))
    else:
        raise ModelError(f"There is no model in {args.folder}. Train one: python -m cfrec train --out {shlex.quote(f'{args.folder}/NAME')}")


def _model_row(entry: storage.StoredModel) -> dict[str, Any]:
    about = entry.manifest
    return {
        "name": entry.name,
        "path": str(entry.path),
        "data": about["dataset"]["title"] if about else "",
        "recipe": about["config"]["recipe"] if about else "",
        "rmse": about["metrics"]["rmse"] if about else None,
        "created": about["created"] if about else "",
        "problem": entry.problem,
    }


def export(args: Namespace) -> None:
    """Write a model for other programs."""
    paths = export_.export_model(_load_model(args.model), args.format, args.folder)
    if args.json:
        print_json([str(path) for path in paths])
    else:
        print("\n".join(f"Wrote {path}" for path in paths))


def bench(args: Namespace) -> None:
    """How fast training is here, on synthetic ratings."""
    changes = {name: value for name in ("n_factors", "epochs", "n_threads") if (value := getattr(args, name)) is not None}
    config = TrainConfig.preset(args.preset, device=args.device, **changes)
    results = []
    for n_ratings in args.sizes:
        show(f"{n_ratings:,} ratings …")
        results.append(asdict(measure_speed(config, made_up_ratings(n_ratings))))
    if args.json:
        print_json(results)
        return
    print_table(pd.DataFrame(results))
    print(
        f"\nnanoseconds: for a rating, in an epoch. mse: on held-out ratings, after {config.epochs} epochs with {config.n_factors} factors."
    )
