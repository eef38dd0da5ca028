"""M1: a hostile model never runs code, crashes or hangs. M2: damage never passes silently. M3: resource bombs are refused early."""

import io
import json
import os
import random
import shutil
import subprocess
import sys
import time
import tracemalloc
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load, save

import cfrec
from cfrec.packing import unpack_model
from tests.forgery import forged, with_file, zipped
from tests.promises.counts import counted
from tests.promises.hostile import FOUND, NAMES, SEEDS, Case, build, build_found, remove, trap

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="pipes, devices and limits as Linux has them")
A_BATCH = 500
REFUSED, WHOLE = "refused", {"same", "vouched", "unsealed"}


class Result(NamedTuple):
    """What the child said of a case."""

    kind: str
    outcome: str
    why: str
    seconds: float
    doors: list[str]  # that a reader must not open: see hostile_child


def run(cases, loader, where):
    """All cases by child processes: one that dies over a case has failed it, and another goes on after it."""
    results, left = [], list(cases)
    while left:
        (where / "list.json").write_text(json.dumps(left))
        child = subprocess.run(
            [sys.executable, "-W", "ignore", "-m", "tests.promises.hostile_child", loader, str(where / "list.json")],
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        lines = [json.loads(line) for line in child.stdout.splitlines()]
        results += [Result(case.kind, *line[1:]) for case, line in zip(left, lines, strict=False)]
        if len(lines) < len(left):
            results.append(Result(left[len(lines)].kind, "died", child.stderr[-500:], 20.0, []))
        left = left[len(lines) + 1 :]
    return results


def run_corpus(n, loader, where):
    """All that were found, then n mutations, in batches."""
    results = run(build_found(where, FOUND), loader, where)
    for start in range(0, n, A_BATCH):
        cases = [build(number, where) for number in range(start, min(start + A_BATCH, n))]
        results += run(cases, loader, where)
        for case in cases:
            remove(case)
    return results


def escapes(results):
    """Whatever was neither refused in words nor loaded whole, took a second, or opened a door."""
    in_words = [r for r in results if r.outcome in WHOLE or (r.outcome == REFUSED and len(r.why) > 20 and r.why[0].isupper())]
    return [r for r in results if r not in in_words or r.seconds >= 1 or r.doors]


@counted(sample=60, full=5_000)
def test_m1_m2_no_mutation_of_a_model_escapes(n, tmp_path):
    results = run_corpus(n, "safe", tmp_path)
    assert len(results) == n + len(FOUND)
    assert escapes(results) == []
    outcomes = Counter(result.outcome for result in results)
    assert outcomes["refused"] > 0.8 * n  # most of them are no models any more
    assert outcomes["same"] > 0.02 * n  # and some changes touch nothing that counts
    assert not any(str(tmp_path) in result.why for result in results)  # strangers read these messages


def traps(where):
    """Models with a pickle for a table that runs a command, opens a socket or writes a file when it is loaded."""
    cases = [Case(str(shutil.copytree(SEEDS[-1], where / f"trap-{k}")), "trap", str(SEEDS[-1]), vouched=False) for k in range(16)]
    for number, case in enumerate(cases):
        (Path(case.path) / "users.csv").write_bytes(trap(random.Random(number)))
    return cases


@counted(sample=40, full=1_000)
def test_m1_m2_a_reader_that_believes_what_it_reads_is_caught(n, tmp_path):
    """Negative control: without checksums and the checks of files, and with pickles, the same corpus breaks everything, and it is seen."""
    cases = [*traps(tmp_path), *build_found(tmp_path, ["a pipe for a manifest"]), *(build(number, tmp_path) for number in range(n))]
    results = run(cases, "unsafe", tmp_path)
    doors = {door for result in results for door in result.doors}
    assert {"pickle.find_class", "os.system", "socket.__new__", "open /dev/null", "subprocess.Popen"} <= doors
    outcomes = Counter(result.outcome for result in results)
    assert outcomes["different"] > 0.04 * n  # loaded, with other numbers
    assert outcomes["crashed"] > 0.2 * n  # errors that no page expects
    assert outcomes["hung"] + outcomes["died"] >= 1  # a pipe
    assert len(escapes(results)) > 0.3 * n


# M3


def a_giant_header(files, n=60_000):
    """Valid, and what safetensors takes 35 seconds and gigabytes for at twenty times the size."""
    header = b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % k for k in range(n)) + b"}"
    return with_file(files, "weights.safetensors", len(header).to_bytes(8, "little") + header)


def a_header_said_to_be_giant(files):
    return with_file(files, "weights.safetensors", (1 << 40).to_bytes(8, "little") + files["weights.safetensors"][8:])


def a_billion_users(files):
    return forged(files, lambda m: m["shapes"].update(n_users=10**9, n_factors=64))


def a_billion_users_and_their_bytes(files):
    def announce(manifest):
        manifest["shapes"] |= {"n_users": 10**9, "n_factors": 64}
        manifest["files"]["weights.safetensors"]["bytes"] = 4 * 65 * 10**9 + 60_000
        manifest["files"]["users.csv"]["bytes"] = 4 * 10**9

    return forged(files, announce)


def weights(files, change):
    arrays = load(files["weights.safetensors"])
    change(arrays)
    return with_file(files, "weights.safetensors", save(arrays))


def a_wrong_shape(files):
    return weights(files, lambda a: a.update(user_factors=np.ascontiguousarray(a["user_factors"].T)))


def another_type(files):
    return weights(files, lambda a: a.update(movie_bias=a["movie_bias"].view(np.int32)))


def one_that_is_no_number(files):
    return weights(files, lambda a: a["movie_bias"].__setitem__(3, np.nan))


def tables_that_disagree(files):
    return with_file(files, "users.csv", files["users.csv"] + b'"one more"\n')


def a_table_of_many_columns(files):
    return with_file(files, "users.csv", b'"user_id"' + b",a" * 35_000 + b"\n" + b"1\n" * 20)


def a_table_of_wide_rows(files):
    return with_file(files, "users.csv", b'"user_id"\n' + (b"1," * 1_800 + b"1\n") * 20)


def four_megabytes_of_lists(files):
    return files | {"manifest.json": b'{"format_version": 1, "history": [' + b"[]," * 1_300_000 + b"[]]}"}


def as_many_lists_as_may_be(files):
    """Within what a manifest may hold, and with a checksum that is right."""
    return forged(files, lambda m: m.update(history=[[]] * 19_800))


def deep_lists(files):
    return files | {"manifest.json": b'{"format_version": ' + b"[" * 200_000 + b"]" * 200_000 + b"}"}


BOMBS = [
    *(a_giant_header, a_header_said_to_be_giant, a_billion_users, a_billion_users_and_their_bytes, a_wrong_shape, another_type),
    *(one_that_is_no_number, tables_that_disagree, a_table_of_many_columns, a_table_of_wide_rows),
    *(four_megabytes_of_lists, as_many_lists_as_may_be, deep_lists),
]


def measure(act, n):
    """What an act says, the least of its seconds in n times, and the most of its bytes."""
    seconds, peaks, why = [], [], ""
    for _ in range(n + 1):  # the first time does not count: modules may be imported
        tracemalloc.start()
        start = time.perf_counter()
        try:
            act()
        except cfrec.CfrecError as error:
            why = str(error)
        seconds.append(time.perf_counter() - start)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    return why, min(seconds[1:]), max(peaks[1:])


@pytest.fixture(scope="module")
def seed_files():
    return {name: (SEEDS[-1] / name).read_bytes() for name in NAMES}


@counted(sample=1, full=9)
@pytest.mark.parametrize("bomb", BOMBS)
def test_m3_bombs_are_refused_early(n, bomb, seed_files, tmp_path):
    """In a folder and in a zip. Time is bounded with room for other work on the machine, unless it is measured alone."""
    files = bomb(seed_files)
    (tmp_path / "bomb").mkdir()
    for name, data in files.items():
        (tmp_path / "bomb" / name).write_bytes(data)
    packed = zipped(files)
    for act in (lambda: cfrec.load_model(tmp_path / "bomb"), lambda: unpack_model(packed)):
        why, seconds, peak = measure(act, n)
        assert "damaged: " in why or "not a whole model: " in why
        assert peak < 20e6
        assert seconds < (0.05 if n > 1 else 1.0)


def test_m3_the_same_things_in_a_parser_that_believes_them(seed_files):
    """Negative control: what is measured is seen where it is not refused, at a small part of the sizes that were found."""
    _, _, peak = measure(lambda: json.loads(b"[" + b"[]," * 350_000 + b"[]]"), 1)
    assert peak > 20e6
    wide = b"user_id" + b",a" * 2_000 + b"\n" + b"1\n" * 20
    _, seconds, _ = measure(lambda: pd.read_csv(io.BytesIO(wide)), 1)
    assert seconds > 0.1
    _, seconds, _ = measure(lambda: load(a_giant_header(seed_files, 12_000)["weights.safetensors"]), 1)
    assert seconds > 0.05


@pytest.mark.parametrize("n_bytes", [10 << 20, 10 << 30])
def test_m3_a_sparse_giant_is_listed_at_once(n_bytes, seed_files, tmp_path):
    """Ten gigabytes that take no space, vouched for or not: a list of models must not wait for them to be read."""
    for name, files in (("plain", seed_files), ("vouched", a_billion_users_and_their_bytes(seed_files))):
        (tmp_path / name).mkdir()
        for file, data in files.items():
            (tmp_path / name / file).write_bytes(data)
        os.truncate(tmp_path / name / "weights.safetensors", n_bytes)
    start = time.perf_counter()
    entries = cfrec.list_models(tmp_path)
    assert time.perf_counter() - start < 1
    assert [entry.problem[:8] for entry in entries] == ["damaged:", "damaged:"]


@counted(sample=2_000, full=100_000)
def test_m1_a_folder_of_a_great_many_things_is_no_model(n, seed_files, tmp_path):
    """It is listed, not loaded, and neither deleted nor written over."""
    (tmp_path / "giant").mkdir()
    for k in range(n):
        (tmp_path / "giant" / f"{k}").touch()
    trained = cfrec.load_model(SEEDS[-1])
    acts = [
        lambda: cfrec.load_model(tmp_path / "giant"),
        lambda: cfrec.save_model(trained, tmp_path / "giant"),
        lambda: cfrec.delete_model(tmp_path / "giant"),
    ]
    for act in acts:
        start = time.perf_counter()
        with pytest.raises(cfrec.CfrecError):
            act()
        assert time.perf_counter() - start < 1
    start = time.perf_counter()
    assert [entry.name for entry in cfrec.list_models(tmp_path)] == ["giant"]
    assert time.perf_counter() - start < 1
    assert sum(1 for _ in (tmp_path / "giant").iterdir()) == n
