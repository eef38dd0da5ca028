"""`python -m cfrec …`: the arguments. What each command does is in `commands`."""

from __future__ import annotations

import argparse
import io
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import NoReturn

from cfrec import commands
from cfrec.config import DEFAULT_PRESET, PRESETS_EXPLAINED, TrainConfig
from cfrec.datasets import DATASETS
from cfrec.errors import CfrecError

_DESCRIPTION = "Train a movie recommender and see what it learned. Start with: "


class _Parser(argparse.ArgumentParser):
    """An argument parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        print(f"{self.prog}: {message}. See: {self.prog} --help", file=sys.stderr)
        sys.exit(2)


def _count(text: str) -> int:
    if int(text) < 1:
        raise ValueError
    return int(text)


def _size(text: str) -> int:
    if not 1_000 <= float(text) <= 1e9:
        raise ValueError
    return int(float(text))


def _columns(text: str) -> dict[str, str | int | None]:
    pairs = dict(pair.split("=", 1) for pair in text.split(","))
    return {role.strip(): None if column.strip().lower() == "none" else column.strip() for role, column in pairs.items()}


_columns.__name__ = "list such as user=reviewer,movie=2,rating=stars"
_count.__name__ = "number from 1 on"  # argparse says: invalid … value
_size.__name__ = "number of ratings from 1,000 to 1e9"


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 with one line on stderr, or 130 when interrupted."""
    args = build_parser().parse_args(argv)
    logging.basicConfig(level=logging.INFO if args.verbose else logging.ERROR, format="%(message)s", stream=sys.stderr)
    logging.getLogger("cfrec.datasets").setLevel(logging.INFO if args.verbose else logging.WARNING)  # what is fetched, on which terms
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that has no é shows a question mark
    try:
        args.run(args)
        sys.stdout.flush()
    except CfrecError as error:
        print(f"cfrec: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("cfrec: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # where what is left of the result may go at the end
        if not isinstance(error, BrokenPipeError):  # the reader of a pipe, such as head, has had enough
            print(f"cfrec: the result could not be written: {error.strerror or error}", file=sys.stderr)
            return 2
    return 0


def build_parser() -> argparse.ArgumentParser:
    """The whole command line."""
    program = "cfrec" if Path(sys.argv[0]).stem == "cfrec" else "python -m cfrec"  # as it was called
    parser = _Parser(prog=program, description=f"{_DESCRIPTION} {program} similar snow white")
    parser.set_defaults(verbose=False)
    commands_ = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (_add_data, _add_train, _add_evaluate, _add_views, _add_recommend, _add_models, _add_export, _add_bench):
        add(commands_)
    return parser


_Commands = argparse._SubParsersAction  # the type that add_subparsers returns has no public name


def _command(commands_: _Commands[_Parser], name: str, run: commands.Command, text: str) -> _Parser:
    parser = commands_.add_parser(name, help=text, description=text)
    parser.set_defaults(run=run)
    parser.add_argument("--json", action="store_true", help="print one JSON document and nothing else")
    parser.add_argument("-v", "--verbose", action="store_true", help="say more on stderr")
    return parser


def _add_ratings_source(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument("--dataset", choices=list(DATASETS), help="a MovieLens release, downloaded once (default: ml-100k)")
    source.add_argument("--ratings", metavar="FILE", help="your own CSV, TSV, JSON, Parquet, zip or folder with user, movie and rating")
    _add_reading(parser)


def _add_reading(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--movies", metavar="FILE", help="a second file with movie ids, titles and genres")
    parser.add_argument(
        "--columns",
        type=_columns,
        metavar="ROLE=COLUMN,…",
        help="which column is which, by name or by number from 1, such as user=reviewer,movie=2,rating=stars; genres=none leaves one out",
    )
    parser.add_argument("--not-rated", type=float, metavar="STARS", help='the rating that stands for "not rated", such as 0')
    parser.add_argument("--drop-bad-rows", action="store_true", help="drop and count bad rows instead of stopping at the first")


def _add_data(commands_: _Commands[_Parser]) -> None:
    text = "List the data sets, or say what is in one, or in a file of your own."
    parser = _command(commands_, "data", commands.data, text)
    parser.add_argument("name", nargs="?", metavar="NAME", help="a data set, such as ml-100k, or a file")
    _add_reading(parser)


def _add_train(commands_: _Commands[_Parser]) -> None:
    parser = _command(
        commands_, "train", commands.train_model, "Train a model. Ctrl-C stops it and keeps the best so far; press it again to give up."
    )
    _add_ratings_source(parser)
    presets = "; ".join(f"{name}: {text}" for name, text in PRESETS_EXPLAINED.items())
    parser.add_argument("--preset", choices=TrainConfig.preset_names(), help=f"{presets} (default: {DEFAULT_PRESET})")
    parser.add_argument("--out", metavar="FOLDER", help="where to store the model, such as models/mine")
    parser.add_argument("--resumable", action="store_true", help="store what is needed to resume the run (a stopped run always does)")
    parser.add_argument("--resume", metavar="FOLDER", help="go on with a stored run, with its settings")
    parser.add_argument("--valid-fraction", type=float, metavar="SHARE", help="share of ratings held out (default: 0.2)")
    parser.add_argument("--split-seed", type=int, metavar="N", help="which ratings are held out (default: 42)")
    parser.add_argument("--device", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    settings = parser.add_argument_group("settings", "What is left out comes from the preset.")
    explained = {setting.name: setting for setting in fields(TrainConfig)}
    for name, setting in explained.items():
        low, high, text, options = (setting.metadata[key] for key in ("low", "high", "help", "options"))
        if options:
            settings.add_argument(f"--{name}", choices=options, help=_escape(text))
        if low is not None:  # each number is a flag
            kind = int if setting.type == "int" else float
            settings.add_argument("--" + name.replace("_", "-"), type=kind, metavar="N", help=_escape(f"{text} ({low} to {high})"))


def _escape(text: str) -> str:
    """argparse would take a percent sign for the start of a format."""
    return text.replace("%", "%%")


def _add_evaluate(commands_: _Commands[_Parser]) -> None:
    text = "Measure a model on its held-out ratings, or train its recipe afresh on folds."
    parser = _command(commands_, "evaluate", commands.evaluate_model, text)
    parser.add_argument("model", metavar="MODEL", help="a stored model, such as models/ml-100k; or, with --folds, a preset's name")
    _add_ratings_source(parser)
    parser.add_argument("--folds", type=int, metavar="N", help="cross-validate on N folds")


def _add_views(commands_: _Commands[_Parser]) -> None:
    biases = _command(commands_, "biases", commands.biases, "The best and the worst movies by learned bias.")
    project = _command(commands_, "project", commands.project, "Movies on the principal components of their factors.")
    project.add_argument("--components", type=int, default=3, metavar="N", help="how many (default: 3)")
    similar = _command(commands_, "similar", commands.similar, "Movies like a movie.")
    similar.add_argument("title", nargs="+", metavar="TITLE", help="a title, or part of one, or a movie id")
    similar.add_argument("--genre", help="only of this genre")
    similar.add_argument("--years", nargs=2, type=int, metavar=("FIRST", "LAST"), help="only from these years")
    search = _command(commands_, "search", commands.search, "Find movies by title; typos, articles and accents do not matter.")
    search.add_argument("text", nargs="+", metavar="TEXT")
    for parser, default in ((biases, 5), (project, 10), (similar, 5), (search, 10)):
        _add_model(parser, default)
        if parser is not search:
            parser.add_argument("--min-ratings", type=int, default=0, metavar="N", help="only movies with at least N ratings (default: 0)")


def _add_model(parser: argparse.ArgumentParser, k: int) -> None:
    parser.add_argument(
        "--model", default=commands.SHIPPED_MODEL, metavar="FOLDER", help=f"a stored model (default: {commands.SHIPPED_MODEL})"
    )
    parser.add_argument("-k", type=_count, default=k, metavar="N", help=f"how many movies (default: {k})")


def _add_recommend(commands_: _Commands[_Parser]) -> None:
    parser = _command(commands_, "recommend", commands.recommend_movies, "Movies for someone who rated a few, with the reasons.")
    parser.add_argument("--rate", action="append", required=True, metavar="TITLE=STARS", help='your rating, such as "Fargo=4.5"; repeat it')
    parser.add_argument("--min-ratings", type=int, default=20, metavar="N", help="only movies with at least N ratings (default: 20)")
    parser.add_argument("--loved", type=float, default=0.1, metavar="W", help="0: what suits you; 1: what is loved best (default: 0.1)")
    _add_model(parser, 10)


def _add_models(commands_: _Commands[_Parser]) -> None:
    parser = _command(commands_, "models", commands.models, "List the stored models.")
    parser.add_argument("folder", nargs="?", default="models", metavar="FOLDER", help="where they are (default: models)")


def _add_export(commands_: _Commands[_Parser]) -> None:
    parser = _command(commands_, "export", commands.export, "Write a model for other programs.")
    parser.add_argument("model", metavar="MODEL", help="a stored model, such as models/ml-100k")
    parser.add_argument("--format", required=True, choices=["csv", "projector", "html"], help="tables; the Embedding Projector; a 3D map")
    parser.add_argument("folder", metavar="DIR", help="where to write the files")


def _add_bench(commands_: _Commands[_Parser]) -> None:
    text = "How fast training is on this machine, on synthetic ratings of MovieLens' shape."
    parser = _command(commands_, "bench", commands.bench, text)
    parser.add_argument(
        "sizes", nargs="*", type=_size, default=[100_000, 1_000_000], metavar="RATINGS", help="such as 1e6 (default: 1e5 1e6)"
    )
    parser.add_argument("--preset", choices=TrainConfig.preset_names(), default=DEFAULT_PRESET, help=f"(default: {DEFAULT_PRESET})")
    parser.add_argument("--device", default="auto", metavar="NAME", help="auto, cpu, cuda, cuda:1 or mps (default: auto)")
    for name, text in (("epochs", "epochs before the timed ones"), ("n-factors", "factors"), ("n-threads", "threads")):
        parser.add_argument(f"--{name}", type=_count, metavar="N", help=f"{text} (default: the preset's)")
