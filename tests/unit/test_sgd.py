import math
import os
from dataclasses import replace
from itertools import pairwise
from threading import Event

import numpy as np
import pytest

import cfrec
from cfrec import sgd, training
from cfrec.config import TrainConfig
from cfrec.kernels import BATCH


@pytest.fixture
def cells(monkeypatch):
    """Cut even small data into cells."""
    monkeypatch.setattr(sgd, "_CELL", 60)
    monkeypatch.setattr(sgd, "_ONE_CELL", 0)


def run_of(blocks, **changes):
    return sgd.SgdRun(*blocks.split(), TrainConfig.preset("quick", n_factors=4, **changes))


def fit(run):
    run.fit(lambda _: None, Event(), Event())
    return run.best_weights()


def test_an_epoch_goes_through_each_rating_once_and_rounds_share_no_rows(cells, blocks):
    run = run_of(blocks)
    assert run.n_blocks == 5
    for epoch in (1, 2):
        plan = run._plan(epoch)
        together = sorted(plan.places[:, :2].tolist())
        assert (together[0][0], together[-1][1]) == (0, len(run.ratings))
        assert all(a[1] == b[0] for a, b in pairwise(together))
        assert all(math.gcd(stride, -(-(stop - start) // BATCH)) == 1 for start, stop, stride in plan.places.tolist())
        assert plan.rounds.tolist() == [k for k in range(5) for _ in range(5)]
        rows = [[set(column[start:stop].tolist()) for start, stop, _ in plan.places] for column in (run.triples.users, run.triples.movies)]
        for k in range(5):
            here = slice(5 * k, 5 * k + 5)
            assert sorted(plan.blocks[here, 0]) == list(range(5))
            assert sorted(plan.blocks[here, 1]) == list(range(5, 10))
            assert all(sum(map(len, of_cells[here])) == len(set().union(*of_cells[here])) for of_cells in rows)
        for of_cells, blocks_of_cells in zip(rows, plan.blocks.T, strict=True):  # the blocks are told rightly
            of_blocks = {
                b: set().union(*(c for c, other in zip(of_cells, blocks_of_cells, strict=True) if other == b)) for b in blocks_of_cells
            }
            assert sum(map(len, of_blocks.values())) == len(set().union(*of_blocks.values()))


def test_epochs_take_the_ratings_in_different_orders(blocks):
    orders = [run_of(blocks)._plan(epoch).places.tolist() for epoch in range(1, 9)]
    assert len(set(map(str, orders))) > 4


def test_the_rate_goes_on_from_round_to_round(cells, blocks):
    run = run_of(blocks, epochs=2)
    rates = [rates for epoch in (1, 2) for rates in run._plan(epoch).rates[::5].tolist()]
    assert all(a[1] == pytest.approx(b[0]) for a, b in pairwise(rates))
    assert rates[0][0] == pytest.approx(run.learning_rate(0))
    assert rates[-1][1] == pytest.approx(run.learning_rate(1))


def test_there_are_no_more_threads_than_processors(blocks, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    assert [run_of(blocks, n_threads=n).n_threads for n in (1, 2, 64)] == [1, 2, 2]


def test_any_number_of_threads_gives_the_same_bits(cells, blocks, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 4)
    alone, together = fit(run_of(blocks, n_threads=1)), fit(run_of(blocks, n_threads=3))
    assert all((alone[name] == together[name]).all() for name in alone)
    assert not (alone["user_factors"] == fit(run_of(blocks, n_threads=3, seed=1))["user_factors"]).all()


def test_a_round_at_a_time_it_learns_the_same_and_can_be_stopped_sooner(cells, blocks, monkeypatch):
    asked = []
    whole = fit(run_of(blocks))
    assert run_of(blocks)._pass(1, lambda: asked.append(1)) is not None
    monkeypatch.setattr(sgd, "_AT_ONCE", 1)
    assert all((whole[name] == weights).all() for name, weights in fit(run_of(blocks)).items())
    assert run_of(blocks)._pass(1, lambda: asked.append(1)) is not None
    assert len(asked) == 1 + 5
    assert run_of(blocks)._pass(1, lambda: True) is None


def test_in_cells_it_learns_as_well(cells, blocks):
    run = run_of(blocks, epochs=12)
    fit(run)
    assert run.history[-1].valid_loss < 0.1 * blocks.rating.var()


def test_a_run_in_cells_is_resumed_bit_for_bit(cells, blocks):
    config, stop = TrainConfig.preset("quick", n_factors=4, n_threads=2), Event()
    whole = cfrec.train(*blocks.split(), config)
    first = cfrec.train(*blocks.split(), config, stop=stop, on_epoch=lambda m: m.epoch == 2 and stop.set())
    resumed = cfrec.train(*blocks.split(), config, resume=first)
    assert (resumed.movie_factors == whole.movie_factors).all()
    assert [m.valid_loss for m in resumed.history] == [m.valid_loss for m in whole.history]


def test_ratings_that_cannot_be_written_to_are_learned_from_alike(blocks):
    train, valid = blocks.split()
    frozen = replace(train, user_idx=train.user_idx.copy(), movie_idx=train.movie_idx.copy(), rating=train.rating.copy())
    for column in (frozen.user_idx, frozen.movie_idx, frozen.rating):
        column.flags.writeable = False
    config = TrainConfig.preset("quick", n_factors=4)
    assert (fit(sgd.SgdRun(frozen, valid, config))["user_bias"] == fit(sgd.SgdRun(train, valid, config))["user_bias"]).all()


def test_the_ratings_themselves_stay_as_they_are(blocks):
    train, valid = blocks.split()
    before = train.fingerprint(), valid.fingerprint()
    fit(sgd.SgdRun(train, valid, TrainConfig.preset("quick", n_factors=4)))
    assert (train.fingerprint(), valid.fingerprint()) == before


@pytest.mark.parametrize(("counts", "wanted"), [([1, 1, 1, 1], [0, 0, 1, 1]), ([9, 1, 1, 1], [0, 1, 1, 1]), ([0, 0, 5, 5], [0, 0, 0, 1])])
def test_blocks_hold_about_equally_many_ratings(counts, wanted):
    assert sgd._even_blocks(np.array(counts), 2).tolist() == wanted


def test_losses_are_those_of_the_finished_model(blocks):
    trained = cfrec.train(*blocks.split(), TrainConfig.preset("quick", n_factors=4))
    assert trained.history[trained.best_epoch - 1].valid_loss == pytest.approx(trained.metrics["mse"], rel=1e-3)


def test_without_compiled_code_adam_does_it_and_the_log_says_so(blocks, monkeypatch, caplog):
    monkeypatch.setattr(training, "load_kernels", lambda _: None)
    with caplog.at_level("INFO"):
        trained = cfrec.train(*blocks.split(), TrainConfig.preset("quick", n_factors=4, epochs=12, batch_size=64))
    assert trained.config.method == "adam"
    assert "the recipe quick is trained by Adam" in caplog.text
    assert trained.metrics["mse"] < 0.5 * blocks.rating.var()


def test_torch_is_not_needed():
    """Nor imported: it takes a second, and the fastest recipe a fiftieth of that."""
    import subprocess
    import sys

    code = """
import sys
import numpy as np
import cfrec
from cfrec.ratings import build_ratings
users, movies = (a.ravel() for a in np.meshgrid(np.arange(20), np.arange(10)))
cfrec.train(*build_ratings(users, movies, 1.0 + (users + movies) % 5).split(), cfrec.TrainConfig.preset("quick"))
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
