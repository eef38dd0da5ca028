"""Titles -> ranked matches, tolerant of typos, articles and accents.

Every title is cut into three-letter pieces. A match is scored by the share of the query's pieces found in the title
and of the title's found in the query, each weighted by rarity; then come bonuses for an exact title,
a beginning, whole words and the year, and a small one for being much rated.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt
import pandas as pd

from cfrec.arguments import checked
from cfrec.errors import NotFoundError
from cfrec.titles import fold
from cfrec.trained import TrainedModel

_ARTICLES = frozenset(["the", "a", "an", "le", "la", "les", "l", "il", "lo", "el", "los", "das", "der", "die", "ein", "eine"])
_ROMAN = {"ii": "2", "iii": "3", "iv": "4", "vi": "6", "vii": "7", "viii": "8", "ix": "9"}
_YEAR_AT_END = re.compile(r"\s*\(\d{4}\)$")
_CANDIDATES = 50  # titles looked at closely
_CLOSE = 0.025  # scores nearer than this are as good as each other
_SURE = 0.25  # a best match with a lower score is a guess

# How much each kind of evidence counts; the sum is the best possible score.
_QUERY_FOUND, _TITLE_FOUND, _EXACT, _BEGINNING, _WHOLE_WORDS, _YEAR, _POPULAR = 1.0, 0.3, 0.5, 0.2, 0.3, 0.3, 0.15
_BEST = _QUERY_FOUND + _TITLE_FOUND + _EXACT + _BEGINNING + _WHOLE_WORDS + _YEAR + _POPULAR


@checked
def search_movies(trained: TrainedModel, text: str, k: int = 10) -> pd.DataFrame:
    """Find movies by (part of) their title.

    Parameters
    ----------
    text : str
        What a person typed: ``"godfahter"``, ``"les miserables"``, ``"dracula 1992"``.
    k : int
        How many, at most.

    Returns
    -------
    DataFrame
        movie_id, title, score (0 to 1), best first; empty if nothing in any title resembles the text.
    """
    rows, scores = _index(trained).search(text, k)
    table = trained.movies.loc[rows, ["movie_id", "title"]].reset_index(drop=True)
    return table.assign(score=scores)


def find_namesakes(trained: TrainedModel, text: str) -> pd.DataFrame:
    """The movies a text stands for: an exact title, an id, or a clear best match.

    Returns
    -------
    DataFrame
        movie_id, title; one row, or all movies of exactly this title, the most rated first. A title with its year is one movie.

    Raises
    ------
    NotFoundError
        Nothing resembles it, or several match about as well: names them.
    """
    text, found, movies = text.strip(), search_movies(trained, text, k=_CANDIDATES), trained.movies[["movie_id", "title", "n_ratings"]]
    named = _index(trained).named(text)
    if len(named):
        best_known_first = movies.iloc[named].sort_values("n_ratings", ascending=False, kind="stable")
        return best_known_first.drop_duplicates("title")[["movie_id", "title"]]  # one film may have two entries
    is_number, ids = re.fullmatch(r"[-+]?\d[\d.,]*", text), movies["movie_id"].astype(str)
    if is_number:  # what resembles a number is another number
        whole = re.compile(rf"(?<![\w.]){re.escape(text)}(?!\w|[.,]\d)")
        found = found[np.array([whole.search(_YEAR_AT_END.sub("", title)) is not None for title in found["title"]], bool)]
    for movie_id in (text, re.sub(r"\.0+$", "", text) if found.empty else text):  # 3.0 is what spreadsheets make of 3
        if len(same := movies[ids == movie_id]):
            return same[["movie_id", "title"]]
    if is_number and found.empty:
        raise NotFoundError(f"There is no movie with the id {text}, and no title with that number.")
    if found.empty:
        raise NotFoundError(f"No title resembles {text!r}. Try a single distinctive word of it.")
    close = found[found["score"] > found["score"].iloc[0] - _CLOSE]
    names = "; ".join(f"{title} [{movie_id}]" for movie_id, title in zip(close["movie_id"], close["title"], strict=True))
    if found["score"].iloc[0] < _SURE:
        raise NotFoundError(f"No title resembles {text!r} much; the nearest: {names}. Try a single distinctive word of it.")
    if len(close) > 1:
        raise NotFoundError(f"{text!r} could be: {names}. Give more of the title, or the number in brackets.")
    return found.head(1)[["movie_id", "title"]]


_indexes: WeakKeyDictionary[TrainedModel, TitleIndex] = WeakKeyDictionary()


def _index(trained: TrainedModel) -> TitleIndex:
    if trained not in _indexes:
        _indexes[trained] = TitleIndex(trained.movies)
    return _indexes[trained]


def _words(text: str) -> list[str]:
    return [_ROMAN.get(word, word) for word in fold(text).split()]


def _plain(title: str) -> str:
    """Words of a title without its year and leading article."""
    words = _words(_YEAR_AT_END.sub("", title))
    return " ".join(words[1:] if len(words) > 1 and words[0] in _ARTICLES else words)


def _pieces(words: Iterable[str]) -> set[str]:
    pieces = set()
    for word in words:
        padded = f" {word} "
        pieces.add(padded[:2])
        pieces.update(padded[k : k + 3] for k in range(len(padded) - 2))
    return pieces


class TitleIndex:
    """An inverted index from pieces to titles. Built once per movies table, never changed."""

    def __init__(self, movies: pd.DataFrame) -> None:
        names = [_YEAR_AT_END.sub("", title) for title in movies["title"]]
        self._names = [{_plain(part) for part in (name, *re.split(r"[()]", name)) if part.strip()} for name in names]
        self._rows_of_name: dict[str, list[int]] = defaultdict(list)
        for row, own in enumerate(self._names):
            for name in own - {""}:  # of a title without a letter or digit
                self._rows_of_name[name].append(row)
        self._title_words = [_words(name) for name in names]
        self._years = [str(year) for year in movies["year"].tolist()]
        popularity = np.log1p(movies["n_ratings"].to_numpy(np.float64))
        self._popularity = _POPULAR * popularity / popularity.max()
        postings: dict[str, list[int]] = defaultdict(list)
        for row, words in enumerate(self._title_words):
            for piece in _pieces(words):
                postings[piece].append(row)
        self._rows = {piece: np.array(rows, np.int32) for piece, rows in postings.items()}
        self._unseen = float(np.log(1 + len(names)))  # rarity of a piece that no title has
        self._rarity = {piece: float(np.log(1 + len(names) / len(rows))) for piece, rows in self._rows.items()}
        self._title_weight = np.array([sum(self._rarity[p] for p in _pieces(words)) or 1.0 for words in self._title_words])

    def search(self, text: str, k: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.float64]]:
        """Rows and scores of the k best matches."""
        words = _words(text[:200])
        pieces = _pieces(words)
        common = np.zeros(len(self._names))
        for piece in pieces & self._rows.keys():
            common[self._rows[piece]] += self._rarity[piece]
        if not common.any():
            return np.array([], np.intp), np.array([])
        weight = sum(self._rarity.get(piece, self._unseen) for piece in pieces)
        scores = _QUERY_FOUND * common / weight + _TITLE_FOUND * common / self._title_weight
        scores = np.where(common > 0, scores + self._popularity, 0)
        n_candidates = min(max(_CANDIDATES, k), int((common > 0).sum()))
        rows = np.argpartition(-scores, n_candidates - 1)[:n_candidates]
        scores = scores[rows] + np.array([self._bonus(row, words) for row in rows.tolist()])
        best = np.lexsort((rows, -scores))[:k]
        return rows[best], scores[best] / _BEST

    def named(self, text: str) -> list[int]:
        """Rows of the movies of exactly this title, or one of its names; of those with this year, where the text ends in one."""
        words = _words(text)
        with_year = [row for row in self._rows_of_name.get(_plain(" ".join(words[:-1])), []) if words[-1] == self._years[row]]
        return with_year or self._rows_of_name.get(_plain(" ".join(words)), [])

    def _bonus(self, row: int, words: list[str]) -> float:
        names, title = self._names[row], self._title_words[row]
        year_given = len(words) > 1 and words[-1] == self._years[row]
        asked = _plain(" ".join(words[:-1] if year_given else words))
        bonus = _YEAR if year_given else 0.0
        if asked in names:
            bonus += _EXACT
        if any(name.startswith(asked) for name in names):
            bonus += _BEGINNING
        wanted = asked.split()
        if all(word in title for word in wanted[:-1]) and any(word.startswith(wanted[-1]) for word in title):
            bonus += _WHOLE_WORDS
        return bonus
