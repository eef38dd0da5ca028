"""What each column of a table is: found by its name, given by the caller, or guessed by its values."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from cfrec.errors import ColumnsError, DataError
from cfrec.report import ColumnUse

# The names that people's files have, in lower case and without blanks and punctuation; of two that are there the earlier one is taken.
NAMES = {
    "user": "userid user uid userno users username reviewerid reviewer reader readerid customerid customername customer personid "
    "person memberid member raterid rater accountid account profileid profilename criticname critic respondent student "
    "viewer usr voter nickname who",
    "movie": "movieid itemid movie item iid filmid film bookid book isbn productid product parentasin asin businessid business "
    "animeid anime mangaid songid song trackid track artistid artist gameid game appid showid show const tconst imdbid "
    "tmdbid jokeid joke recipeid recipe beerid beerbeerid beer placeid venueid venue restaurantid contentid courseid "
    "podcastid sku gmapid",
    "rating": "userrating yourrating myrating myscore userscore rating score stars ratings overall bookrating movierating reviewscore "
    "reviewrating reviewoverall starrating ratingvalue star grade mark vote preference pref feedback liked like reaction "
    "thumb thumbs verdict opinion sentiment rate isrecommended recommended recommendation votedup thumbsup",
    "count": "plays playcount playscount listencount listens views viewcount watchcount timesplayed nplays clicks purchases quantity "
    "hours hoursplayed playtime weight count scrobbles",
    "timestamp": "timestamp time date unixtime ratedat daterated ratingdate ratingtimestamp unixreviewtime reviewtime reviewdate created "
    "createdat datetime watcheddate when ts",
    "title": "title movietitle moviename itemname filmname filmtitle booktitle bookname originaltitle primarytitle producttitle "
    "itemtitle trackname songname animetitle gametitle name",
    "genres": "genres genre class category categories tags",
    "year": "year releaseyear yearofpublication publicationyear yearofrelease releasedate startyear movieyear filmyear published",
}
TABLE = {role: tuple(names.split()) for role, names in NAMES.items()}
MISSING = frozenset(("", "nan", "null", "none", "na", "n/a", "#n/a", "<na>", r"\n"))  # what stands for nothing, in lower case
_NEEDED = {"user": {"user"}, "movie": {"movie", "title"}, "rating": {"rating", "count"}}
LOOKS = {  # what ids of movies and of users look like, where nothing else tells
    "movie": re.compile(r"tt\d{6,}|B0[0-9A-Z]{8}|\d{9}[\dX]|(?:i|m|item|movie|film|book)[_-]?\d+|.* \((?:18|19|20)\d\d\)", re.IGNORECASE),
    "user": re.compile(r"A[0-9A-Z]{7,20}|(?:u|p|user|person|reviewer|customer)[_-]?\d+|.+@.+", re.IGNORECASE),
}
_SCALE = re.compile(r"[+-]?(?:\d{1,4}(?:[.,]\d*)?|[.,]\d+)")
_TIME = re.compile(r"\d{4}-\d\d-\d\d.*|\d{1,2}[/.]\d{1,2}[/.]\d{2,4}.*|[3-9]\d{8}(?:\.\d*)?|[1-7]\d{9}(?:\.\d*)?|1\d{12}")
_MOST_STARS = 21  # distinct values of a rating scale: 0 to 10 by halves
_USUAL_STARS = 11  # 0 to 10, or 0.5 to 5 by halves
_FEW = 20  # rows that are too few to tell columns apart by their values
HOW = 'Say which column is which, counted from 1: columns={"user": 1, "movie": 2, "rating": 3}, or --columns user=1,movie=2,rating=3.'
_ALONE = (
    "If these are one person's own ratings: a network learns from many people's. "
    'For recommendations from your own: python -m cfrec recommend --rate "Fargo=4.5".'
)


@dataclass(frozen=True)
class Roles:
    """What a table's columns are: role -> column, and how each was found."""

    places: Mapping[str, int]
    found: Mapping[str, str]
    names: tuple[str, ...]

    def report(self) -> tuple[ColumnUse, ...]:
        """What each column was taken for."""
        by_place = {place: role for role, place in self.places.items()}
        uses = [(name, by_place.get(k, "")) for k, name in enumerate(self.names)]
        return tuple(ColumnUse(name, role, self.found.get(role, "")) for name, role in uses)


def plain(name: str) -> str:
    """A column's name as it is compared: lower case, no blanks or punctuation, no type behind a colon."""
    return re.sub(r"[\W_]", "", re.sub(r":(?:token|token_seq|float|float_seq)$", "", name.strip().casefold()))


def names_known(row: Sequence[str]) -> int:
    """How many roles the names in a row stand for."""
    return len(by_name(row, TABLE))


def by_name(row: Sequence[str], known: Mapping[str, tuple[str, ...]]) -> dict[str, int]:
    """Role -> place of the name that stands for it."""
    names = [plain(cell) for cell in row]
    return {role: names.index(name) for role, options in known.items() for name in options[::-1] if name in names}


def find_movie_roles(header: Sequence[str]) -> tuple[dict[str, int], list[int]]:
    """Which column of a table of movies holds title, genres and year, by name; and the columns that may hold the ids of ratings."""
    roles = by_name(header, {role: TABLE[role] for role in ("title", "genres", "year")})
    names = [plain(cell) for cell in header]
    ids = [names.index(name) for name in (*TABLE["movie"], "id") if name in names]
    return roles, [place for place in ids if place not in roles.values()]


def find_roles(
    header: Sequence[str] | None, sample: list[list[str]], n_fields: int, name: str, given: Mapping[str, str | int | None] | None = None
) -> Roles:
    """What each column of a table of ratings is.

    Parameters
    ----------
    header : names, or None
    sample : list of rows of text
        The first rows.
    n_fields : int
    name : str
        What to call the table in messages.
    given : mapping role -> name or number of a column (from 1), or None for a role that is not to be used

    Raises
    ------
    DataError
        There is no such column, or none for user, movie and rating: says what was found and how to name them.
    """
    names = tuple(header) if header is not None else tuple(f"column {k + 1}" for k in range(n_fields))
    places = _given(given or {}, names, header is not None, name)
    found = dict.fromkeys(places, "given")
    refused = {role for role, column in (given or {}).items() if column is None}
    for role, place in by_name(header or [], TABLE).items():
        if role not in found and role not in refused and place not in places.values():
            places[role], found[role] = place, "name"
    _settle(places, found, names, refused)
    if not _complete(places):
        guess = _guess(header is not None, sample, n_fields, places, refused)
        places |= guess
        found |= dict.fromkeys(guess, "guess")
    missing = [what for what, roles in _NEEDED.items() if not roles & places.keys()]
    only_choices = missing == ["rating"] and ("rating" in refused or (header is not None and len(places) == n_fields))
    if missing and not only_choices:
        seen = [cell[:40] for cell in (header if header is not None else sample[0] if sample else [])[:8]]
        kind = "its header is" if header is not None else "its first row is"
        alone = f" {_ALONE}" if missing == ["user"] and header is not None else ""
        none = ' Where there are only choices: "rating": None, or rating=none.' if missing == ["rating"] else ""
        raise ColumnsError(f"{name} has no column for {' and '.join(missing)}; {kind} {seen}.{alone}", HOW + none, places)
    return Roles(places, found, names)


def _complete(places: Mapping[str, int]) -> bool:
    return all(roles & places.keys() for roles in _NEEDED.values())


def _given(given: Mapping[str, str | int | None], names: tuple[str, ...], has_header: bool, name: str) -> dict[str, int]:
    """The columns that the caller named."""
    places = {}
    for role, column in given.items():
        if role not in TABLE:
            raise DataError(f"There is no role {role!r} for a column. There are: {', '.join(TABLE)}.")
        if column is None:
            continue
        text = str(column).strip()
        if has_header and isinstance(column, str) and text in [cell.strip() for cell in names]:
            places[role] = [cell.strip() for cell in names].index(text)
        elif has_header and isinstance(column, str) and plain(text) and plain(text) in map(plain, names):
            places[role] = [plain(cell) for cell in names].index(plain(text))
        elif text.isdecimal() and 1 <= int(text) <= len(names):
            places[role] = int(text) - 1
        else:
            shown = ", ".join(f"{k + 1}: {cell[:40]}" for k, cell in enumerate(names[:12]))
            raise DataError(f"{name} has no column {text[:40]!r}. It has: {shown}. Columns are counted from 1.")
    if len(set(places.values())) < len(places):
        raise DataError(f"A column of {name} is given two roles: {', '.join(f'{r}={p + 1}' for r, p in places.items())}.")
    return places


def _settle(places: dict[str, int], found: dict[str, str], names: tuple[str, ...], refused: set[str]) -> None:
    """A lone ``name`` beside a movie is the person's; a film without an id is known by its title, and choices by nothing else."""
    lone = [k for k, name in enumerate(names) if plain(name) == "name" and (k not in places.values() or places.get("title") == k)]
    if lone and "user" not in places and "user" not in refused and ("movie" in places or places.get("title", lone[0]) != lone[0]):
        if places.get("title") == lone[0]:
            del places["title"]
        places["user"], found["user"] = lone[0], "name"
    if "rating" in places:
        places.pop("count", None)


def _guess(header: bool, sample: list[list[str]], n_fields: int, known: Mapping[str, int], refused: set[str]) -> dict[str, int]:
    """Roles for the columns that have none, by their values; by their order where there are too few rows to tell."""
    rows = [row for row in sample if len(row) == n_fields]
    columns = [list(column) for column in zip(*rows, strict=True)]
    free = [k for k in range(n_fields) if k not in known.values() and columns and any(cell.strip() for cell in columns[k])]
    if header and {"rating", "count"} & known.keys() and {"movie", "title"} & known.keys():
        return {}  # people are what every such table has; where no name stands for them, these may be one person's ratings
    settled = known.keys() | refused | ({"rating"} if "count" in known else set()) | ({"movie"} if "title" in known else set())
    wanted = [role for role in ("user", "movie", "rating", "timestamp") if role not in settled]
    if len(rows) < _FEW:
        if not header and not known:
            return dict(zip(wanted, free, strict=False)) if len(sample[0]) > 2 and _is_scale([sample[0][2]]) else {}
        return {role: place for role, place in zip(wanted, free, strict=False) if role != "rating" or _is_scale(columns[place])}
    guess: dict[str, int] = {}

    def take(role: str, options: Sequence[int]) -> None:
        if options and role in wanted and role not in guess:
            guess[role] = options[0]
            free.remove(options[0])

    if len(free) > 3:
        free = [k for k in free if not numbers_rows(columns[k]) or _is_time(columns[k])]
    take("rating", _rating_first([k for k in free if _is_scale(columns[k])], columns, len(rows)))
    n_ids = len({"user", "movie"} & set(wanted))
    if len(free) > n_ids:
        take("timestamp", [k for k in free if _is_time(columns[k])])
    looks = {role: [k for k in free if mostly(columns[k], look)] for role, look in LOOKS.items()}
    for role in ("movie", "user"):
        take(role, [k for k in looks[role] if k in free and k not in looks["user" if role == "movie" else "movie"]])
    if header:  # a column in which nothing comes twice is no person's
        free = [k for k in free if len(set(columns[k])) < len(columns[k]) and not mostly(columns[k], re.compile(r"https?://.*"))]
    take("user", free)
    take("movie", free)
    return guess


def mostly(cells: Sequence[str], look: re.Pattern[str]) -> bool:
    """Whether nine of ten cells that are not missing look like this: some may be damaged."""
    cells = [cell.strip() for cell in cells if cell.strip().casefold() not in MISSING]
    return bool(cells) and sum(look.fullmatch(cell) is not None for cell in cells) >= 0.9 * len(cells)


def _is_scale(column: Sequence[str]) -> bool:
    return mostly(column, _SCALE)


def _rating_first(options: list[int], columns: list[list[str]], n_rows: int) -> list[int]:
    """The third column first, unless another has the look of a scale and it has not."""
    distinct = {k: len(set(columns[k])) for k in options}
    few = [k for k in options if 1 < distinct[k] <= min(_MOST_STARS, n_rows // 2)] or [k for k in options if distinct[k] <= _MOST_STARS]
    return sorted(few, key=lambda k: (distinct[k] > _USUAL_STARS, k != 2, distinct[k])) or options


def _is_time(column: Sequence[str]) -> bool:
    return mostly(column, _TIME)


def numbers_rows(column: Sequence[str]) -> bool:
    """Whether a column numbers the rows."""
    return all(cell.strip().isdecimal() for cell in column) and [int(c) for c in column] == [
        *range(int(column[0]), int(column[0]) + len(column))
    ]


def guess_movie_roles(sample: list[list[str]], n_fields: int) -> tuple[dict[str, int], list[int]]:
    """The same for a table without a header: an id, perhaps a year, a title, perhaps genres."""
    columns = [list(column) for column in zip(*(row for row in sample if len(row) == n_fields), strict=True)]
    years = [k for k in range(1, len(columns)) if mostly(columns[k], re.compile(r"(?:18|19|20)\d\d(?:\.0)?"))]
    titles = [k for k in range(1, len(columns)) if k not in years and mostly(columns[k], re.compile(r".*[^\W\d].*"))]
    roles = dict(zip(("title", "genres"), titles, strict=False)) | ({"year": years[0]} if years else {})
    return roles, [0] if titles else []
