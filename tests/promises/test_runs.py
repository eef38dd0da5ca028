"""T1: a run that is killed loses one epoch at most, and goes on to the same bits. T5: one run at a time, whoever starts it."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cfrec
from cfrec.board import JobBoard
from cfrec.checkpoints import unfinished_runs
from cfrec.jobs import DONE, TrainingJob
from tests.promises.counts import counted

SOON = 30

RUN = """
import sys
from pathlib import Path
import cfrec
from cfrec import jobs, training
from cfrec.jobs import TrainingJob

jobs.CHECKPOINT_SECONDS, training._SHARE = 0.0, 0
ratings, config = cfrec.read_ratings(sys.argv[1]), cfrec.TrainConfig.preset("quick", **eval(sys.argv[3]))

class Told(TrainingJob):
    def _keep(self, unfinished):
        super()._keep(unfinished)
        print(len(unfinished.history), flush=True)  # what is on disk now

training.prepare()
print("ready", flush=True)
job = Told(lambda _: ratings, config, "Blocks", models=Path(sys.argv[2]))
job.start()
job.wait()
"""
SETTINGS = {"n_factors": 4, "choice_weight": 0.0, "epochs": 1000, "batch_size": 64, "device": "cpu"}


@pytest.fixture(scope="module")
def table(blocks, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("runs") / "blocks.csv"
    rows = zip(blocks.user_ids[blocks.user_idx], 100 + blocks.movie_idx, blocks.rating, strict=True)
    path.write_text("user,movie,rating\n" + "".join(f"{u},{m},{s:g}\n" for u, m, s in rows))
    return path


def kill_a_run(table: Path, models: Path, seconds: float) -> int:
    """Let a run go on for so long and kill it; the last epoch that it said was on disk."""
    child = subprocess.Popen([sys.executable, "-c", RUN, str(table), str(models), repr(SETTINGS)], stdout=subprocess.PIPE, text=True)
    try:
        assert child.stdout.readline() == "ready\n"
        threading.Timer(seconds, child.send_signal, [signal.SIGKILL]).start()
        told = child.stdout.read().split()
    finally:
        child.kill()
        child.wait()
    return int(told[-1]) if told else 0


@counted(sample=2, full=200)
def test_a_killed_run_loses_at_most_one_epoch_and_goes_on_to_the_same_bits(n, table, tmp_path):
    ratings, random, n_resumed = cfrec.read_ratings(table), np.random.default_rng(0), 0
    for k in range(n):
        models = tmp_path / str(k)
        kept = kill_a_run(table, models, float(random.uniform(0.01, 0.4)))
        found = unfinished_runs(models)
        assert len(found) == (kept > 0) or (kept == 0 and len(found) == 1)  # killed between the first one on disk and saying so
        for checkpoint in found:
            unfinished = cfrec.load_model(checkpoint.folder)
            assert kept <= len(unfinished.history) <= kept + 1
            whole = replace(unfinished.config, epochs=1000)
            goal = len(unfinished.history) + 2  # a thousand epochs would tell no more than two
            assert not _differences(ratings, whole, unfinished, goal)
            n_resumed += 1
    assert n_resumed >= n // 2


def _differences(ratings, config, unfinished, goal) -> dict[str, float]:
    """Where a run resumed from a checkpoint and one that was never stopped differ after so many epochs, and by how much."""
    models = []
    for resume in (unfinished, None):
        stop = threading.Event()
        after = lambda m, stop=stop: stop.set() if m.epoch == goal else None  # noqa: E731
        models.append(cfrec.train(*ratings.split(), config, on_epoch=after, stop=stop, resume=resume))
    resumed, whole = models
    found = {name: float(np.abs(resumed.state.arrays[name] - whole.state.arrays[name]).max(initial=0)) for name in whole.state.arrays}
    found["epochs"] = len(resumed.history) - len(whole.history)
    return {name: size for name, size in found.items() if size != 0}


def test_the_comparison_is_not_blind(table):
    """Negative control: another seed gives other weights."""
    ratings, config = cfrec.read_ratings(table), cfrec.TrainConfig.preset("quick", **SETTINGS)
    kept = []
    stop = threading.Event()
    cfrec.train(*ratings.split(), replace(config, seed=1), on_epoch=lambda m: stop.set(), stop=stop, on_checkpoint=kept.append)
    forged = replace(kept[0], config=config)
    assert _differences(ratings, config, forged, 3)["memory.drawn.movie"] > 0


@counted(sample=5, full=100)
def test_two_who_start_at_once_get_one_run(n, blocks, block_config):
    """Each time with the same data and settings: exactly one is started, and both look at it."""
    for _ in range(n):
        board, gate, both = JobBoard(), threading.Event(), threading.Barrier(2)
        loads: list[int] = []

        def start(_, board=board, gate=gate, both=both, loads=loads) -> TrainingJob:
            def load(_):
                loads.append(1)
                gate.wait(SOON)
                return blocks

            job = TrainingJob(load, replace(block_config, epochs=1), "Blocks", data="blocks")
            both.wait(SOON)
            return board.submit(job)

        with ThreadPoolExecutor(2) as pool:
            first, second = pool.map(start, range(2))
        assert first is second is board.running()
        assert board.waiting() == []
        gate.set()
        assert first.wait(SOON).phase == DONE
        assert loads == [1]
