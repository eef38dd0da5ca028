"""Cells -> ids, stars and times: each rule is applied once to each distinct text."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from cfrec.memory import check_fits
from cfrec.movies import Ids, IntArray, typed
from cfrec.roles import MISSING

if TYPE_CHECKING:
    import pyarrow as pa

_ID = 450  # bytes of memory that a distinct id takes while it is looked at: an upper estimate
_LARGEST_RATING = 1_000.0
_INT64 = range(-(2**63), 2**63)
_POWER = re.compile(r"[0-9]+(?:\.[0-9]+)?[eE]\+?[0-9]{1,2}")
_WHOLE = re.compile(r"([+-]?[0-9]+)\.0*")
_LEAST = 100_000_000  # seconds: 1973; there are a thousand times as many milliseconds
_LONGEST_LIST = 10_000  # characters of a list in a cell
# What words in place of stars count as: a like, or none, or something between them.
WORDS = {
    **dict.fromkeys(
        ["like", "liked", "likes", "love", "loved", "true", "yes", "y", "up", "thumbsup", "positive", "good", "recommended", "👍"], 1.0
    ),
    **dict.fromkeys(
        [
            "dislike",
            "disliked",
            "dislikes",
            "hate",
            "hated",
            "false",
            "no",
            "n",
            "down",
            "thumbsdown",
            "negative",
            "bad",
            "notrecommended",
            "👎",
        ],
        0.0,
    ),
    **dict.fromkeys(["neutral", "ok", "okay", "meh", "mixed"], 0.5),
}
_OF = re.compile(r"([0-9]+(?:[.,][0-9]+)?) *(?:/ *(?:5|10|100)|out of (?:5|10|100)(?: stars)?|stars?|%)", re.IGNORECASE)


@dataclass
class Parsed:
    """A value for each distinct text; ``rules`` says what is wrong with those that have none, ``read_as`` what words became."""

    values: npt.NDArray[Any]
    rules: Mapping[int, str]  # place among the texts -> rule
    read_as: Mapping[str, float] = field(default_factory=dict)


def texts_of(column: pa.DictionaryArray) -> list[str]:
    """The distinct texts of a column, without blanks around them; missing ones are empty."""
    texts = [(text or "").strip() for text in column.dictionary.to_pylist()]
    return [re.sub(r"\r\n?", "\n", text) if "\r" in text else text for text in texts]


def codes_of(column: pa.DictionaryArray) -> IntArray:
    """Row -> place among the distinct texts; rows without any have the one behind the last."""
    import pyarrow.compute as pc

    indices = column.indices
    if indices.null_count:
        indices = pc.fill_null(indices, len(column.dictionary))
    codes: IntArray = indices.to_numpy().astype(np.int32, copy=False)
    return codes


def id_text(text: str) -> str:
    """An id as it is compared: ``24.0`` is ``24``; empty for what stands for a missing one."""
    if text.casefold() in MISSING:
        return ""
    whole = _WHOLE.fullmatch(text)
    if not whole and _POWER.fullmatch(text) and (number := Decimal(text)) == number.to_integral_value():
        return str(int(number))  # as R and Excel write large ones
    return whole[1] if whole else text


def parse_ids(column: pa.DictionaryArray) -> tuple[Ids, IntArray]:
    """Distinct ids in ascending order, and each row's place among them; -1 for a missing id.

    They are int64 where all of them are integers written plainly, text otherwise. Raises DataError where these do not fit into memory.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    codes, known = codes_of(column), column.dictionary
    if len(known) and not column.indices.null_count and pc.all(pc.match_substring_regex(known, r"^(?:0|-?[1-9][0-9]{0,17})$")).as_py():
        ids = known.cast(pa.int64()).to_numpy()
        place = np.empty(len(ids) + 1, np.int32)
        order = np.argsort(ids, kind="stable")
        place[order] = np.arange(len(ids), dtype=np.int32)
        return ids[order], place[codes]
    check_fits(_ID * len(known), f"A table of {len(known):,} ids")
    texts = [*map(id_text, texts_of(column)), ""]
    distinct = typed(sorted({text for text in texts if text}))
    rank = {str(key): k for k, key in enumerate(distinct.tolist())} | {"": -1}
    return distinct, np.array([rank[text] for text in texts], np.int32)[codes]


def parse_stars(column: pa.DictionaryArray, *, decimal_comma: bool, counts: bool = False) -> Parsed:
    """Stars of each distinct text, and nothing for a last one that is missing; play counts are ones: a choice, and no opinion."""
    rules, read_as = {}, {}
    texts = [*texts_of(column), ""]
    values = np.full(len(texts), np.nan)
    for k, text in enumerate(texts):
        value, word = _stars(text, decimal_comma=decimal_comma, largest=np.inf if counts else _LARGEST_RATING)
        if value is None or (counts and value < 0):
            rules[k] = "is missing" if text.casefold() in MISSING else _NO_STARS
        else:
            values[k] = np.sign(value) if counts else value
            if word:
                read_as[text] = value
    return Parsed(values, rules, read_as)


_NO_STARS = "is not a number between -1000 and 1000"


def _stars(text: str, *, decimal_comma: bool, largest: float) -> tuple[float | None, bool]:
    """A number of stars, or None; and whether it was written in words or signs."""
    number = text.replace(",", ".") if decimal_comma or re.fullmatch(r"[+-]?[0-9]{0,3},[0-9]{1,2}", text) else text
    try:
        value = float(number)
    except ValueError:
        value = np.nan
    if "_" not in text and abs(value) <= largest and np.isfinite(value):
        return value, False
    if found := _OF.fullmatch(text):
        return float(found[1].replace(",", ".")), True
    if re.fullmatch(r"(?=.*[★*⭐½])[★*⭐\ufe0f]*½?☆*|[0-9]½", text):
        whole = int(text[0]) if text[0].isdecimal() else len(re.findall(r"[★*⭐]", text))
        return whole + 0.5 * ("½" in text), True
    word = re.sub(r"[\W_]", "", text.casefold()) or text
    return (None if text.casefold() in MISSING else WORDS.get(word)), True  # "\\N" is no "n"


def parse_times(column: pa.DictionaryArray) -> Parsed:
    """Seconds since 1970 of each distinct text, and nothing for a last one that is missing."""
    texts = [*texts_of(column), ""]
    values, rules = np.zeros(len(texts), np.int64), {}
    for k, text in enumerate(texts):
        seconds = _seconds(text)
        if seconds is None:
            rules[k] = "is missing" if text.casefold() in MISSING else "is neither seconds since 1970 nor a date like 1998-04-22"
        else:
            values[k] = seconds
    return Parsed(values, rules)


def in_seconds(times: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Seconds since 1970: of times that are all milliseconds, microseconds or nanoseconds by their size."""
    if len(times):
        for unit in (1_000, 1_000_000, 1_000_000_000):
            if times.min() >= _LEAST * unit and times.max() < 1_000 * _LEAST * unit:
                return times // unit
    return times


def _seconds(text: str) -> int | None:
    if (whole := re.fullmatch(r"(-?)0*([0-9]{1,19})(?:\.0*)?", text)) and (seconds := int(whole[1] + whole[2])) in _INT64:
        return seconds
    try:
        moment = datetime.fromisoformat(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except ValueError:
        return None


def movie_entry(title: str, genres: str = "", year: str = "") -> tuple[str, str]:
    """(raw title with its year, genres joined by ``|``) from a movie's cells."""
    found = re.search(r"(?:1[89]|20)\d\d", year)
    year = found[0] if found and not re.fullmatch(r"\d+", year) else re.sub(r"\.0*$", "", year)
    raw = f"{title} ({year})" if year.casefold() not in MISSING and not title.endswith(f"({year})") else title
    return raw, "|".join(_genres(genres))


def _genres(cell: str) -> Iterable[str]:
    """Genres from a list in any form: separated by signs, as JSON, or as Python would write it."""
    if cell.startswith("(no ") or cell.casefold() in MISSING:
        return []
    if cell[0] in "[{(" and len(cell) <= _LONGEST_LIST and (parts := _listed(cell)) is not None:
        return parts
    return [part for part in re.split(r"\s*[|,;/]\s*", cell) if part]


def _listed(cell: str) -> list[str] | None:
    try:
        entries = json.loads(cell)
    except (ValueError, RecursionError):
        try:
            entries = ast.literal_eval(cell)
        except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
            return None
    if not isinstance(entries, Sequence) or isinstance(entries, str):
        entries = [entries]
    names = [entry.get("name", next(iter(entry.values()), "")) if isinstance(entry, dict) else entry for entry in entries]
    return [name for entry in names if (name := str(entry).strip())]
