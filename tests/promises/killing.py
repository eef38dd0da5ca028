"""Savers that are killed, at every call to the file system and at random: ``python -m tests.promises.killing N_CALLS N_RANDOM FOLDER``.

It runs in a process of its own, since it forks: each child does one thing to a folder of models and is killed over it.
A line of JSON tells what was wrong with the folder afterwards, before and after the next start.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np

import cfrec
from cfrec.encoding import encode
from cfrec.storage import list_models, rename_model, sweep

FIXTURE = Path("tests/fixtures/models/4-likeness")
HARMLESS = {"fspath", "getpid", "urandom", "get_terminal_size", "getcwd", "getppid", "sched_yield", "cpu_count", "strerror", "WIFSIGNALED"}
A = cfrec.load_model(FIXTURE)
B = replace(A, device="other", movie_bias=A.movie_bias + np.float32(1))
BYTES = {"A": encode(A), "B": encode(B)}


class Scenario(NamedTuple):
    """What is there, what is done, and which folders may come of it (each a dict of names to A or B)."""

    prepare: Callable[[Path], object]
    act: Callable[[Path], object]
    allowed: tuple[dict[str, str], ...]


def store(trained: cfrec.TrainedModel, *names: str) -> Callable[[Path], None]:
    def prepare(models: Path) -> None:
        for name in names:
            cfrec.save_model(trained, models / name)

    return prepare


def save(models: Path) -> None:
    cfrec.save_model(B, models / "mine")


def leave_a_mess(models: Path) -> None:
    """What savers leave that were killed at their worst moments, under several names."""
    store(A, "mine", "other")(models)
    shutil.copytree(models / "mine", models / ".other.old")
    (models / ".other.old" / "manifest.json").unlink()
    shutil.copytree(models / "mine", models / ".third.gone-1")
    shutil.copytree(models / "mine", models / ".mine.new-1")
    (models / ".mine.new-2").mkdir()
    (models / "mine").rename(models / ".mine.old")


def save_in_place(models: Path) -> None:
    """Negative control: how files are often saved."""
    (models / "mine").mkdir(exist_ok=True)
    for name, data in BYTES["B"].items():
        (models / "mine" / name).write_bytes(data)


def delete_in_place(models: Path) -> None:
    """Negative control: how folders are often deleted."""
    shutil.rmtree(models / "mine")


HAVE_A, HAVE_B = {"mine": "A"}, {"mine": "B"}
SCENARIOS = {
    "first save": Scenario(lambda _: None, save, ({}, HAVE_B)),
    "replace": Scenario(store(A, "mine"), save, (HAVE_A, HAVE_B)),
    "replace beside others": Scenario(store(A, "mine", "mine.new-1"), save, (HAVE_A | {"mine.new-1": "A"}, HAVE_B | {"mine.new-1": "A"})),
    "replace what a killed one left": Scenario(leave_a_mess, save, (HAVE_A | {"other": "A"}, HAVE_B | {"other": "A"})),
    "delete": Scenario(store(A, "mine"), lambda models: cfrec.delete_model(models / "mine"), (HAVE_A, {})),
    "rename": Scenario(store(A, "mine"), lambda models: rename_model(models / "mine", "other"), (HAVE_A, {"other": "A"})),
    "sweep": Scenario(leave_a_mess, sweep, (HAVE_A | {"other": "A"},)),
    "save in place": Scenario(store(A, "mine"), save_in_place, (HAVE_A, HAVE_B)),
    "delete in place": Scenario(store(A, "mine"), delete_in_place, (HAVE_A, {})),
}


class KillAt:
    """Counts this process's calls to the file system, and ends it without warning before the k-th."""

    def __init__(self, k: int = 0) -> None:
        self.k, self.n = k, 0

    def __call__(self, frame: object, event: str, function: object) -> None:
        module = getattr(function, "__module__", None) or type(getattr(function, "__self__", None)).__module__
        if event == "c_call" and module in ("posix", "_io", "fcntl") and getattr(function, "__name__", "") not in HARMLESS:
            self.n += 1
            if self.n == self.k:
                os.kill(os.getpid(), signal.SIGKILL)


def in_child(act: Callable[[], object]) -> int:
    """Do something in a child process; the signal that ended it."""
    pid = os.fork()
    if pid == 0:
        try:
            act()
        finally:
            os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def contents(models: Path) -> dict[str, str]:
    """Which model is stored under each name that is listed: A, B, or what is wrong."""
    found = {}
    for entry in list_models(models):
        if entry.problem:
            found[entry.name] = entry.problem
        else:
            files = encode(cfrec.load_model(entry.path))
            found[entry.name] = next((name for name, known in BYTES.items() if files == known), "another model")
    return found


def problems(models: Path, scenario: Scenario) -> list[str]:
    """What is wrong with a folder after a kill: at once, after the next start, and with the next save."""
    wrong = []
    at_once = contents(models)
    if at_once not in scenario.allowed:
        wrong.append(f"at once: {at_once}")
    sweep(models)
    if (found := contents(models)) not in scenario.allowed or found != at_once:
        wrong.append(f"after the next start: {found}")
    if hidden := sorted(path.name for path in models.iterdir() if path.name.startswith(".") and path.name != ".cfrec.lock"):
        wrong.append(f"temporaries: {hidden}")
    try:
        save(models)
        if contents(models) != found | HAVE_B:
            wrong.append(f"after the next save: {contents(models)}")
    except cfrec.CfrecError as error:
        wrong.append(f"the next save: {error}")
    return wrong


def fresh(folder: Path, scenario: Scenario) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    scenario.prepare(folder)
    return folder


def count_calls(scenario: Scenario, folder: Path) -> int:
    counter, (reading, writing) = KillAt(), os.pipe()

    def act() -> None:
        sys.setprofile(counter)
        scenario.act(folder)
        sys.setprofile(None)
        os.write(writing, str(counter.n).encode())

    fresh(folder, scenario)
    assert in_child(act) == 0
    return int(os.read(reading, 20))


def kill_at_calls(scenario: Scenario, n: int, folder: Path) -> dict[str, object]:
    """Kill once at every call, or at n of them from the first to the last."""
    n_calls = count_calls(scenario, folder)
    calls = range(1, n_calls + 1) if n >= n_calls else sorted({round(1 + k * (n_calls - 1) / (n - 1)) for k in range(n)})
    wrong, n_killed = {}, 0
    for k in calls:
        fresh(folder, scenario)

        def act(k: int = k) -> None:
            sys.setprofile(KillAt(k))
            scenario.act(folder)

        n_killed += in_child(act) == -signal.SIGKILL
        if found := problems(folder, scenario):
            wrong[k] = found
    return {"calls": n_calls, "kills": n_killed, "wrong": wrong}


def kill_at_random(scenario: Scenario, n: int, folder: Path) -> dict[str, object]:
    """Kill a child that does it again and again, A and B in turns."""
    rng, wrong, n_killed = random.Random(1), {}, 0
    for k in range(n):
        fresh(folder, scenario)
        pid = os.fork()
        if pid == 0:
            while True:
                scenario.act(folder)
                scenario.prepare(folder)
        time.sleep(rng.uniform(0.0005, 0.025))
        os.kill(pid, signal.SIGKILL)
        n_killed += os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        if found := problems(folder, scenario):
            wrong[k] = found
    return {"kills": n_killed, "wrong": wrong}


def main() -> None:
    n_calls, n_random, folder = int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3])
    problems(
        fresh(folder, SCENARIOS["sweep"]), SCENARIOS["sweep"]
    )  # imports what is imported late: children are to count calls of their own
    results = {name: kill_at_calls(scenario, n_calls, folder) for name, scenario in SCENARIOS.items()}
    for name in ("replace", "save in place"):
        results[f"{name}, at random"] = kill_at_random(SCENARIOS[name], n_random, folder)
    sys.stdout.write(json.dumps(results) + "\n")


if __name__ == "__main__":
    main()
