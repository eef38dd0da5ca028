"""D2: an uploaded file gives a right table or a precise error; every row is counted."""

from __future__ import annotations

import io
import logging
import subprocess
import sys
from collections import Counter

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import cfrec
from cfrec import tables
from cfrec.errors import CfrecError
from cfrec.report import ReadReport
from cfrec.tables import RowError
from tests.promises import mutants, oracle
from tests.promises.counts import counted

logger = logging.getLogger(__name__)

LONGEST_MESSAGE = 700  # characters
FOUND = [  # what once broke the reader, or differed from the oracle
    b"\n" * 25 + b"user,item,rating\n1,2,3\n",
    b" " * 21_000 + b"1,2,3\n",
    b"user,item,rating,time\n1,2,3," + b"0" * 5_000 + b"7\n",
    b"user,item,rating,time\n1,2,3," + b"0" * 25 + b"9" * 25 + b"\n",
    b'user,item,rating\n"1"2,5,4\n1,5,3\n',
    b'user,item,rating,title\n1,5,4,"Heat',
    b'user,item,rating\n1,5,4\n"',
    b'user,item,rating,title\n1,5,4,"a"b,c"\n2,5,4,"x',
    "user,item,rating\n1,2,3\n".encode("utf-16")[:-1],
    b"\xff\xfe" + "user,item,rating\n1\ud800,2,3\n".encode("utf-16-le", "surrogatepass"),
    "1,2,3\n\ufeff1,3,4\n".encode(),
    "\ufeff\ufeffuser,item,rating\n1,2,3\n".encode(),
    b"[,0,0\n",
    b"0::0::0\x1f\n",
    b"rating,title,user,year\n0,0,0\n0,0,0,",
    b"user,item,rating\n1,9e99,3\n",
    b"x" * 100_000 + b",y,z\n",
]


CUT = tables._cut


def cut_slowly(rows, used, times):
    """What is done where quotation marks break the rules; it has no use for which column holds times."""
    return tables._cut_slowly(rows, used)


class Reading:
    """Reads files in every way, compares each with the oracle, and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, read=cfrec.read_ratings) -> None:
        self.monkeypatch, self.read = monkeypatch, read
        self.counts: Counter[str] = Counter()
        self.problems: list[str] = []

    def check(self, data: bytes, name: object) -> None:
        for drop_bad in (False, True):
            wanted = outcome(lambda drop_bad=drop_bad: oracle.read(data, drop_bad=drop_bad))
            for slowly in (False, True):
                with self.monkeypatch.context() as patch:
                    patch.setattr(tables, "_cut", cut_slowly if slowly else self._counting)
                    try:
                        found = outcome(lambda drop_bad=drop_bad: self.read(io.BytesIO(data), drop_bad=drop_bad))
                        wrong = self._judge(found, wanted)
                    except Exception as error:  # noqa: BLE001  # whatever escapes is what is looked for
                        wrong = [f"uncaught: {error!r:.200}"]
                        self.counts["uncaught"] += 1
                self.problems += [f"{name}, drop_bad={drop_bad}, slowly={slowly}: {problem}" for problem in wrong]

    def _counting(self, *args):
        self.counts["by pyarrow"] += 1
        return CUT(*args)

    def _judge(self, found: object, wanted: object) -> list[str]:
        if isinstance(found, CfrecError) != isinstance(wanted, Exception):
            self.counts["silent"] += 1
            return [f"found {found!r:.300}, wanted {wanted!r:.300}"]
        if not isinstance(found, CfrecError):
            self.counts["read"] += 1
            wrong = oracle.differences(found, wanted)
            self.counts["silent"] += bool(wrong)
            return wrong
        self.counts["refused"] += 1
        return judge_message(found, wanted)


def outcome(action):
    try:
        return action()
    except (oracle.RefusedError, CfrecError) as error:
        return error


def judge_message(found: CfrecError, wanted: Exception) -> list[str]:
    """What an error's message lacks: the place, where the oracle knows one; and it stays short."""
    message, line, column = str(found), getattr(wanted, "line", None), getattr(wanted, "column", None)
    if len(message) > LONGEST_MESSAGE or len(message) < 30:
        return [f"a message of {len(message)} characters"]
    if line is not None and f"line {line}:" not in message and f"line {line}, column {column}:" not in message:
        return [f"{message} does not name line {line}, {column}"]
    if isinstance(found, RowError) and (found.line, found.column or "row") != (line, column):
        return [f"{message} instead of line {line}, {column}"]
    return []


@pytest.fixture
def reading(monkeypatch):
    return Reading(monkeypatch)


def assert_right(reading: Reading, n: int) -> None:
    assert not reading.problems, "\n".join(reading.problems[:10])
    assert sum(reading.counts[kind] for kind in ("read", "refused")) == 4 * n


@pytest.mark.parametrize("k", range(len(FOUND)))
def test_what_once_broke_it(reading, k):
    reading.check(FOUND[k], k)
    assert_right(reading, 1)


@counted(sample=80, full=5_000)
def test_mutated_files_are_read_right_or_refused_precisely(reading, n):
    for seed in range(n):
        reading.check(mutants.make(seed), seed)
    logger.info("%d files: %s", n, dict(reading.counts))
    assert_right(reading, n)
    assert reading.counts["by pyarrow"] > n / 10
    assert reading.counts["read"] > n
    assert reading.counts["refused"] > n


@counted(sample=40, full=2_000)
def test_mutated_tables_of_movies_give_the_right_titles_or_are_refused(n):
    """Ids, and ratings, never change with them."""
    movie_ids, counts = range(1, 9), Counter()
    ratings = "user,item,rating\n" + "".join(f"1,{k},3\n" for k in movie_ids)
    for seed in range(n):
        data = mutants.make_movies(seed, movie_ids)
        wanted = outcome(lambda data=data: oracle.read_titles(data))
        found = outcome(lambda data=data: cfrec.read_ratings(io.StringIO(ratings), movies=io.BytesIO(data)))
        known = not isinstance(wanted, Exception) and wanted.keys() & set(movie_ids)
        assert isinstance(found, CfrecError) == (not known), (seed, found, wanted)
        counts[type(found).__name__] += 1
        if known:
            assert found.movies["movie_id"].tolist() == list(movie_ids)
            names = [wanted.get(k, (str(k), "")) for k in movie_ids]
            assert [*zip(found.movies["raw_title"], found.movies["genres"], strict=True)] == names, seed
        else:
            assert not judge_message(found, wanted), seed
    assert min(counts["Ratings"], counts["DataError"]) > n / 10


CELLS = st.one_of(st.integers(-3, 30).map(str), st.sampled_from(mutants.STRANGE_CELLS + mutants.PLAIN_CELLS), st.text(max_size=4))
ROWS = st.lists(st.lists(CELLS, min_size=3, max_size=4), max_size=6)
HEADERS = [[], *([names.split()] for names in ("user item rating", "userId movieId rating timestamp", "rating title user year"))]
FILES = st.builds(
    lambda header, rows, separator, end: end.join(separator.join(row) for row in [*header, *rows]).encode("utf-8", "replace"),
    st.sampled_from(HEADERS),
    ROWS,
    st.sampled_from(mutants.SEPARATORS),
    st.sampled_from(["\n", "\r\n", "\r"]),
)


@counted(sample=40, full=5_000)
def test_tables_of_anything_are_read_right_or_refused_precisely(reading, n):
    """Hypothesis makes the cells, and shrinks what is read wrong."""

    @settings(max_examples=n, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(FILES)
    def check(data):
        reading.problems.clear()
        reading.check(data, data)
        assert not reading.problems, reading.problems[0]

    check()
    assert reading.counts["read"] + reading.counts["refused"] >= 4 * n


def naive(file, *, drop_bad):
    """Negative control: what a plain pandas.read_csv makes of a file."""
    table = pd.read_csv(file).iloc[:, :3].dropna()
    table.columns = ["user", "movie", "rating"]
    return cfrec.ratings.build_ratings(table["user"].to_numpy(), table["movie"].to_numpy(), table["rating"].to_numpy(np.float64))


def careless(file, *, drop_bad):
    """Negative control: bad rows are left out and not counted."""
    ratings = cfrec.read_ratings(file, drop_bad=True)
    report = ReadReport(ratings.report.n_used + ratings.report.n_duplicates, len(ratings), 0, ratings.report.n_duplicates)
    return cfrec.ratings.replace(ratings, report=report)


@pytest.mark.filterwarnings("ignore:invalid value")  # of the naive one
@counted(sample=25, full=1_000)
@pytest.mark.parametrize("bad_reader", [naive, careless])
def test_the_check_is_not_blind(monkeypatch, bad_reader, n):
    reading = Reading(monkeypatch, bad_reader)
    for seed in range(n):
        reading.check(mutants.make(seed), seed)
    logger.info("%s, %d files: %s", bad_reader.__name__, n, dict(reading.counts))
    assert reading.counts["silent"] > n / 10


MEASURE = """
import io, random, sys
import cfrec
from cfrec import assembly, columns, ratings, sheets, tables

def status(key):
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith(key))

cfrec.read_ratings(io.BytesIO(b"user,item,rating\\n1,2,3\\n"))
row, n, whole = eval(sys.argv[1]), int(sys.argv[2]), random.Random(0).randint
first = row(1, whole)
names = "user,item,rating,timestamp,title,genres".split(",")
names = names[: first.count(",") + 1] if first.count(",") < 10 else ["user", *map("Film {}".format, range(first.count(",")))]
upload = io.BytesIO("\\n".join([",".join(names)] * (first[0] != "{") + [row(k, whole) for k in range(n)]).encode())
before, needed = status("VmRSS"), []
for module in (sheets, tables, columns, assembly, ratings):
    module.check_fits = lambda size, what: needed.append(status("VmRSS") - before + size)
open("/proc/self/clear_refs", "w").write("5")
cfrec.read_ratings(upload)
print(max(needed), status("VmHWM") - before)
"""
TABLES = {
    "numbers": ("f'{r(1, 30_000)},{r(1, 9_999)},{r(1, 5)},{r(0, 10**9)}'", 1_000_000),
    "short numbers": ("f'{r(1, 30_000)},{r(1, 999)},{r(1, 5)}'", 1_000_000),
    "long ids": ("f'{r(1, 10**17)},{r(1, 999)},{r(1, 5)},{r(0, 10**9)}'", 1_000_000),
    "a movie a row": ("f'{r(1, 999)},{k},{r(1, 5)}'", 1_000_000),
    "text": ("f'u{r(1, 9_999)},m{r(1, 999)},{r(1, 5)}'", 300_000),
    "a user a row": ("f'user-{k},m{r(1, 9_999)},{r(1, 5)},{r(0, 10**9)}'", 300_000),
    "titles": ("f'{k % 999},{k % 99},{r(1, 5)},7,\"Film {k % 99}, The (1999)\",Drama'", 300_000),
    "a title a row": ("f'{k % 999},{k},{r(1, 5)},{k},F{k},D'", 300_000),
    "marks in titles": ("f'{k % 999},{k % 99},{r(1, 5)},7,A \"Film\" {k % 99},Drama'", 300_000),
    "pivot": ("f'u{k},' + ','.join(str(r(0, 5)) for _ in range(200))", 10_000),
    "objects": ("str({'user': r(1, 999), 'movie': r(1, 99), 'rating': r(1, 5)})", 300_000),
    "wide letters": ("f'🎬{r(1, 9_999)},m{r(1, 999)},{r(1, 5)}'", 300_000),
}


@pytest.mark.stress
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads its own peak from /proc")
@pytest.mark.parametrize("name", TABLES)
def test_the_memory_that_is_asked_for_is_what_reading_takes(name):
    """At least, and about twice at most: measured in a process of its own."""
    row, n = TABLES[name]
    run = subprocess.run([sys.executable, "-c", MEASURE, f"lambda k, r: {row}", str(n)], capture_output=True, text=True, check=True)
    needed, peak = map(int, run.stdout.split())
    logger.info("%s: %.0f MB are asked for, %.0f MB are taken: %.2f times", name, needed / 1e6, peak / 1e6, needed / peak)
    assert 1 < needed / peak < 2.2
