"""The app's words: one wording for each idea, with the field's own term in its tooltip."""

from __future__ import annotations

import os
import re
from dataclasses import fields
from pathlib import Path
from typing import NamedTuple

from cfrec.config import TrainConfig
from cfrec.datasets import data_home

_ROOT = r"(?<![\w.~:/\\])(?:~\w*|[A-Za-z]:)?[/\\]"  # where a path may begin, of a disk or of a home
_PATH = re.compile(rf"(?<=['\"“]){_ROOT}[^'\"”]*(?=['\"”])|{_ROOT}[^\s'\"“”,;:()]+")

_READ_ANYWAY = re.compile(  # inside of what Streamlit makes links, icons, emoji, arrows and dashes of even where all signs are escaped
    r"(?i)(?<=:)(?=[\w/+-])|(?<=www)(?=\.)|(?=@)|(?<=[-<>~])(?=[-=>])"
)
_SOURCES = re.compile(r"(https://(?:(?:files\.)?grouplens|doi)\.org/[\w./()-]*\w/?)")


class Word(NamedTuple):
    """What an idea is called in the app, and what to say when asked."""

    label: str
    help: str


FILM = Word("Film", "What is rated; in data of your own it may be anything that people give stars. Technical term: item.")
AVERAGE_MISS = Word(
    "Average miss",
    "How far a guess is from the stars really given, on ratings that were kept aside and never learned from; large misses weigh more. "
    "Technical term: root mean squared error (RMSE), in stars.",
)
ROUNDS = Word("Rounds", "How often the network goes through all the ratings. Technical term: epochs.")
POPULARITY = Word(
    "Popularity score",
    "How good a film is in itself, for anybody, in stars: what a person of average generosity and no particular taste would give. "
    "Technical term: movie bias.",
)
BIAS = Word("Bias", "The popularity score as the network holds it: added to every guess for this film before it is turned into stars.")
TASTE_NUMBERS = Word(
    "Taste numbers",
    "What the network learned about a film or a person besides the score: a list of numbers nobody named. Guesses, similar films and the "
    "map all come from them. Two films with similar lists please the same people. Technical term: factors, or an embedding.",
)
SIMILARITY = Word(
    "Similarity",
    "How nearly the taste numbers of two films point the same way: 100 % is the same, 0 % is unrelated. Technical term: cosine similarity.",
)
CHOICE_NUMBERS = Word(
    "Choice numbers",
    "What the network learned about which films a person chooses to watch and rate, however many stars they then give. "
    "Technical term: implicit-feedback factors of a user.",
)
PLAIN_AVERAGE = Word("Plain average", "The mean of all the stars this film got, few or many.")
GAP = Word(
    "Average minus score", "How much higher the plain average is than the popularity score; below zero, lower. Large where few voted."
)
N_RATINGS = Word("Ratings", "How many people gave this film stars.")
MIN_RATINGS = Word("Minimum number of ratings", "Films with fewer are left out. What was learned from a handful of ratings is mostly luck.")
GENRE = Word("Genre", "From the data set's own list. The network never saw genres; they are only used to filter here.")
DECADE = Word("Decade", "When the film came out.")
HELD_OUT = Word("Ratings kept aside", "Ratings that are not learned from, to test the guesses on. Technical term: validation set.")
LEARNED_FROM = Word(
    "Ratings learned from", "Ratings that training goes through, and corrects its numbers by. Technical term: training set."
)
LEARNING_RATE = Word("Step size", "How far each correction moves the numbers. Technical term: learning rate.")
BEST_ROUND = Word(
    "Best round", "The round with the lowest average miss; what had been learned by then is what was kept. Technical term: best epoch."
)
RECIPE = Word("Recipe", "The ready-made settings that the training started from; some may have been changed. Technical term: preset.")
FIT_TIME = Word("Training time", "From the ratings in memory to the best numbers; reading the data is not counted.")
DEVICE = Word("Device", "What did the sums: the processor (cpu), or a graphics card (cuda, mps).")
NO_SUCH_FILM = "The film of this address is not in the model in use."
WEAK_EVIDENCE = Word("few ratings", "Fewer than 20 people rated this film: what was learned about it is mostly luck.")
WEAK_BELOW = 20  # ratings

GUESS = Word("Guess", "The stars that the network expects a person to give a film. Technical term: prediction.")
GENEROSITY = Word(
    "Generosity", "How many stars a person gives, whatever the film: some are strict, some are kind. Technical term: user bias."
)
TASTE_MATCH = Word(
    "Taste match",
    "What a film gains or loses because its taste numbers suit a person's or go against them. Technical term: dot product of the factors.",
)
USUAL = Word(
    "Anything, by anybody",
    "What a person of average generosity gives a film of average popularity: where each guess begins. Technical term: offset, mean biases.",
)
TRAINING = Word("Training", "Guessing, comparing and correcting, again and again, until the guesses come near. Technical term: fitting.")
MEMORISING = Word(
    "Memorising",
    "When guesses get better for the ratings learned from and worse for those kept aside. Technical term: overfitting.",
)
NETWORK = Word(
    "Network",
    "All the numbers that were learned, and the sum that makes a guess from them. Technical term: embedding model, matrix factorisation.",
)
MODEL = Word("Model", "A network after its training, stored with all that is known of how it was trained.")
PARTS = {  # of a guess, as cfrec.explain_prediction names them
    "average": USUAL.label,
    "movie": "This film’s popularity",
    "user": "This person’s generosity",
    "taste": TASTE_MATCH.label,
    "prediction": GUESS.label,
}

BASELINES = {"mean": "always the same guess", "movie_mean": "each film's average"}  # names as evaluation.baseline_losses gives them
OUTCOMES = {
    "completed": "ran to its end",
    "early_stopped": "stopped by itself: no longer getting better",
    "stopped": "stopped early",
    "diverged": "went off course",
    "unfinished": "was cut short",
}

TURNS = ("first in line", "second in line", "third in line")  # of the runs that wait

ROLES = {  # what a column of a table of ratings is taken for
    "": "Not used",
    "user": "Who rated",
    "movie": "Which film",
    "rating": "Stars",
    "count": "How often played or bought",
    "timestamp": "When",
    "title": "The film's title",
    "genres": "Its genres",
    "year": "Its year",
}
SETTINGS = {  # fields of TrainConfig; those not listed are shown by their own name
    "recipe": "Recipe",
    "method": "Way of learning",
    "n_factors": "Taste numbers while learning",
    "epochs": "Rounds",
    "batch_size": "Ratings a step",
    "learning_rate": "Step size",
    "schedule": "Step size over time",
    "beta2": "Memory for step sizes (beta2)",
    "weight_decay": "Decay of all numbers",
    "user_l2": "Caution about people",
    "movie_l2": "Caution about films",
    "bias_l2": "Caution about scores",
    "l2_exponent": "More caution with few ratings",
    "choice_weight": "Weight of who watched what",
    "unseen_weight": "Weight of unseen films",
    "user_choice_l2": "Caution about people’s choices",
    "movie_choice_l2": "Caution about chosen films",
    "factor_std": "Randomness of taste numbers at the start",
    "bias_std": "Randomness of scores at the start",
    "start_at_mean": "Start from the average rating",
    "margin_below": "Room below the lowest stars",
    "margin_above": "Room above the highest stars",
    "patience": "Rounds of patience",
    "seed": "Dice (random seed)",
    "device": "Device",
    "n_threads": "Processor threads",
}


VALUES = {  # of settings that are chosen from a list
    "gibbs": "the mean of many networks (gibbs)",
    "adam": "in batches, with PyTorch (adam)",
    "constant": "always the same (constant)",
    "linear": "falling (linear)",
    "one_cycle": "rising, then falling (one_cycle)",
}


def setting_value(value: object) -> str:
    """The value of a setting as people say it."""
    return VALUES.get(str(value), str(value))


def setting_help(name: str) -> str:
    """What a setting means, with its name and limits: ``epochs: times to go through …, 1 to 1,000``."""
    field = next(f for f in fields(TrainConfig) if f.name == name)
    low, high = field.metadata["low"], field.metadata["high"]
    limits = f" From {low:g} to {high:,g}." if low is not None else ""
    explanation = field.metadata["help"]
    return f"{explanation[0].upper()}{explanation[1:]}.{limits} Technical term: `{name}`."


def stars(value: float) -> str:
    """A number of stars with its unit."""
    return f"{value:.2f} stars"


def duration(seconds: float) -> str:
    """A time as people say it."""
    if seconds < 1:
        return "under a second"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    return f"{seconds / 3600:.1f} h"


def size(n_bytes: float) -> str:
    """A number of bytes as people say it."""
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e9 else f"{n_bytes / 1e6:.1f} MB"


def plural(n: int, noun: str) -> str:
    """``1 rating``, ``2 ratings``."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def glossary() -> list[tuple[str, str, str]]:
    """Every word of the app in alphabetical order: the word, what the field calls it (empty: the same, or nothing), and what it means."""
    entries = []
    for word in {value for value in globals().values() if isinstance(value, Word)}:
        meaning, _, term = word.help.partition("Technical term: ")
        entries.append((capital(word.label), term.removesuffix("."), meaning.strip()))
    return sorted(entries)


def capital(text: str) -> str:
    """The text with a capital at its start, and the rest as it is."""
    return text[:1].upper() + text[1:]


def plain(text: str) -> str:
    """Text from a data set, for a place that reads Markdown: shown as it is written, with signs of no width where escapes don't help."""
    return "".join(f"\\{c}" if c in r"\`*_{}[]()<>#+-.!|~$:&" else c for c in _READ_ANYWAY.sub("\u2060", text))


def linked(text: str) -> str:
    """Like ``plain``, but where the data sets come from can be followed: GroupLens, and the DOIs of papers."""
    return "".join(f"<{part}>" if k % 2 else plain(part) for k, part in enumerate(_SOURCES.split(text)))


def told(problem: object) -> str:
    """An error as strangers may read it: shown as it is written, but for where things lie on this machine: of a path, the last name."""
    text = str(problem)
    for folder in filter(lambda folder: folder.name, (data_home(), Path.home(), Path.cwd())):  # these may have spaces
        text = text.replace(f"{folder}{os.sep}", os.sep).replace(str(folder), f"{os.sep}{folder.name}")
    return linked(_PATH.sub(lambda path: re.split(r"[/\\]", path[0].rstrip("/\\."))[-1] + "." * path[0].endswith("."), text))
