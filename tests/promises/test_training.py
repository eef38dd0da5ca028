"""T2: divergence is caught. T3: a device that is not there, or goes away, is named. T4: the same seed gives the same model, to the bit."""

import hashlib
import itertools
import json
import logging
import math
import os
import random
import shutil
import subprocess
import sys
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
import pytest
import torch
from streamlit.testing.v1 import AppTest

import cfrec
from app_pages import _state, _train_form
from cfrec import TrainConfig, cli, devices
from cfrec.adam import AdamRun
from cfrec.benchmark import made_up_ratings
from cfrec.errors import ConfigError, DeviceError
from cfrec.fitting import Run
from cfrec.ratings import build_ratings
from tests.conftest import make_blocks
from tests.promises.counts import counted

# T2: divergence


@cache
def data(kind):
    blocks = make_blocks()
    stars = {
        "blocks": blocks.rating,
        "constant": np.full(len(blocks), 3.0),
        "noise": np.random.default_rng(0).integers(1, 6, len(blocks)),
        "huge": 1e6 * np.random.default_rng(0).integers(1, 6, len(blocks)),
        "one outlier": np.where(np.arange(len(blocks)) == 7, 1e6, blocks.rating),
    }[kind]
    return build_ratings(blocks.user_idx.astype(np.int64), blocks.movie_idx.astype(np.int64), stars.astype(np.float64)).split()


@dataclass(frozen=True)
class Case:
    method: str
    kind: str
    changes: tuple

    def config(self):
        config = TrainConfig.preset("balanced", choice_weight=0.0, device="cpu", epochs=12, **dict(self.changes))
        return config if self.method == "gibbs" else config.for_adam()


def cases(n):
    """So many of all combinations, the same ones each time; at first those with the largest step there is."""
    kinds = ["blocks", "constant", "noise", "huge", "one outlier"]
    schedules = [("schedule", s) for s in ("one_cycle", "constant", "linear")]
    starts = [
        (),
        (("factor_std", 2.0), ("bias_std", 2.0)),
        (("user_l2", 10.0), ("movie_l2", 10.0)),
        (("bias_l2", 10.0),),
        (("n_factors", 3),),
    ]
    gibbs = [Case("gibbs", kind, (("n_factors", f),)) for kind in kinds for f in (1, 16, 50)]
    found = []
    for rates in ((10.0,), (3.0, 1.0, 0.3)):
        some = [
            Case(method, kind, (("learning_rate", rate), schedule, ("batch_size", 64), *start))
            for method, kind, rate, schedule, start in itertools.product(("adam",), kinds, rates, schedules, starts)
        ]
        random.Random(0).shuffle(some)
        found += some
    few = gibbs[: n // 10]
    return few + found[: n - len(few)]


def train(case):
    return cfrec.train(*data(case.kind), case.config())


def is_finite(trained):
    """All that was learned, and all that is told of it."""
    losses = [loss for m in trained.history for loss in (m.train_loss, m.valid_loss)]
    return all(np.isfinite(w).all() for w in trained.weights().values()) and all(map(math.isfinite, [*losses, *trained.metrics.values()]))


def first_exploded(history, variance, step):
    """The first epoch whose loss is no number, or thrice what it was at its lowest and thrice that of guessing; None: there is none."""
    lowest = math.inf
    for m in history:
        if not math.isfinite(m.train_loss + m.valid_loss) or m.train_loss > 3 * max(lowest, variance, 0.01 * step**2):
            return m.epoch
        lowest = min(lowest, m.train_loss)
    return None


@pytest.fixture
def unchecked(monkeypatch):
    """Train without looking for divergence."""

    def train_on(case):
        with monkeypatch.context() as patch:
            patch.setattr(Run, "_divergence", lambda *_: "")
            return train(case)

    return train_on


@counted(sample=60, full=450)
def test_divergence_ends_a_run_within_its_epoch_with_the_last_good_weights_and_advice(n, unchecked):
    """Beside each run goes the same run without the check: negative control, and what tells when it should have been stopped."""
    outcomes, exploded = [], 0
    for case in cases(n):
        trained, control = train(case), unchecked(case)
        ratings = data(case.kind)[0]
        assert is_finite(trained), case
        assert len(trained.history) <= len(control.history)
        assert trained.history == [
            replace(m, seconds=t.seconds, ratings_per_second=t.ratings_per_second)
            for m, t in zip(control.history, trained.history, strict=False)
        ]
        bad = first_exploded(control.history, float(ratings.rating.var()), ratings.scale[2])
        starts_well = dict(case.changes).get("factor_std") is None
        if bad and starts_well:  # else its loss was so high from the start
            assert trained.outcome == "diverged", case
            assert len(trained.history) < bad, case
        if trained.outcome == "diverged":
            check_advice(case, trained)
        outcomes.append(trained.outcome)
        exploded += bad is not None
    assert set(outcomes) == {"completed", "diverged"}
    assert exploded >= n // 30  # few: the steps of Adam have a limit


def check_advice(case, trained):
    """It names the epoch and a smaller step; who follows it until nothing diverges comes to an end."""
    assert f"diverged in epoch {len(trained.history) + 1}" in trained.advice
    assert f"The weights of epoch {trained.best_epoch} are kept." in trained.advice
    assert "nan" not in trained.advice
    assert trained.metrics["mse"] <= min([m.valid_loss for m in trained.history], default=math.inf) * (1 + 1e-4)
    for _ in range(8):
        gentler = case.config().gentler().learning_rate
        assert f"smaller learning rate, such as {gentler:g}" in trained.advice
        assert gentler < dict(case.changes)["learning_rate"]
        case = replace(case, changes=tuple((dict(case.changes) | {"learning_rate": gentler}).items()))
        trained = train(case)
        if trained.outcome == "completed":
            return
    pytest.fail(f"following the advice leads nowhere: {case}")


@pytest.mark.parametrize("rate", [1e3, math.inf, -math.inf, math.nan, 10.1])
def test_steps_beyond_the_limit_are_refused(rate):
    with pytest.raises(ConfigError, match="learning_rate"):
        TrainConfig(learning_rate=rate)


@pytest.mark.parametrize("preset", TrainConfig.preset_names())
def test_ratings_that_are_all_alike_are_learned(preset):
    changes = {"epochs": 4} if preset == "seed" else {}
    trained = cfrec.train(*data("constant"), TrainConfig.preset(preset, device="cpu", **changes))
    assert trained.outcome == "completed"
    assert is_finite(trained)
    assert trained.metrics["rmse"] < 0.01


def test_a_run_that_ends_worse_than_guessing_says_so():
    """It began at random, so far off that it never diverged, and was said to have gone well."""
    case = Case("adam", "blocks", (("learning_rate", 10.0), ("factor_std", 2.0), ("bias_std", 2.0)))
    trained = train(case)
    assert trained.outcome == "completed"
    assert trained.metrics["mse"] > 1.2 * data("blocks")[0].rating.var()
    assert trained.advice.startswith("It learned too little: always guessing the average rating misses by less.")
    assert "such as 0.0065" in trained.advice
    assert cfrec.train(*data("blocks"), TrainConfig.preset("quick", device="cpu")).advice == ""


@pytest.mark.parametrize("method", ["gibbs", "adam"])
@pytest.mark.parametrize("wider", [2.0**-8, 0.25, 32.0, 2.0**20])
def test_the_width_of_the_scale_changes_nothing(method, wider):
    """On a scale from 0 to 100 the recipes diverged, and advised ever smaller steps; on one to a hundredth they learned nothing."""
    train, valid = data("blocks")
    config = TrainConfig.preset("quick", device="cpu")
    config = config if method == "gibbs" else config.for_adam()
    low, high, step = train.scale
    widened = [
        replace(part, rating=part.rating * np.float32(wider), scale=(low * wider, high * wider, step * wider)) for part in (train, valid)
    ]
    usual, other = cfrec.train(train, valid, config), cfrec.train(*widened, config)
    assert all(np.array_equal(other.weights()[name], array) for name, array in usual.weights().items())
    assert [m.valid_loss for m in other.history] == [m.valid_loss * wider**2 for m in usual.history]
    assert [m.train_loss for m in other.history] == [m.train_loss * wider**2 for m in usual.history]
    assert other.metrics["rmse"] == pytest.approx(usual.metrics["rmse"] * wider)


# T3: devices


def cli_error(capsys, *arguments):
    """What the command line says on stderr, with which exit code."""
    code = cli.main(list(arguments))
    printed = capsys.readouterr()
    assert not printed.out or printed.out.startswith("Taken: ")  # what was read, before training is refused
    return code, printed.err.strip().splitlines()


MISSING = ["cuda", "cuda:0", "cuda:7", "mps"]
no_gpu = pytest.mark.skipif(torch.cuda.is_available() or torch.backends.mps.is_available(), reason="there is a GPU here")


@pytest.fixture
def csv(tmp_path):
    blocks = make_blocks()
    rows = [f"{u},{m},{r:g}" for u, m, r in zip(blocks.user_idx, blocks.movie_idx, blocks.rating, strict=True)]
    path = tmp_path / "ratings.csv"
    path.write_text("\n".join(["user,movie,rating", *rows]))
    return str(path)


@no_gpu
@pytest.mark.parametrize("preset", TrainConfig.preset_names())
@pytest.mark.parametrize("wanted", MISSING)
def test_a_device_that_is_not_there_is_refused_with_the_reason_and_what_there_is(wanted, preset):
    with pytest.raises(DeviceError) as caught:
        cfrec.train(*data("blocks"), TrainConfig.preset(preset, device=wanted))
    message = str(caught.value)
    assert message.startswith(f"The device '{wanted}' cannot be used: ")
    assert any(reason in message for reason in ("NVIDIA GPU", "built without", "Apple", "none of that name"))
    assert message.endswith("cpu: ready).")


@no_gpu
def test_the_command_line_says_so_in_one_line(capsys, csv):
    code, lines = cli_error(capsys, "train", "--ratings", csv, "--device", "cuda", "--epochs", "1")
    assert code == 2
    assert len(lines) == 1
    assert "The device 'cuda' cannot be used" in lines[0]


@no_gpu
def test_auto_falls_back_and_says_so(capsys, csv, caplog):
    """On the command line, and in the log."""
    with caplog.at_level(logging.INFO):
        assert cli.main(["train", "--ratings", csv, "--preset", "seed", "--epochs", "3"]) == 0
    assert "on cpu (chosen by auto)" in capsys.readouterr().out
    assert "device auto: using cpu (CPU)" in caplog.text


@no_gpu
def test_the_page_says_what_is_there_and_refuses_what_is_not(tmp_path, cache, monkeypatch):
    shutil.copytree("models/ml-100k", tmp_path / "models" / "ml-100k")
    monkeypatch.setattr(_state, "MODELS", tmp_path / "models")
    monkeypatch.setattr(_train_form, "is_warm", lambda: True)
    page = AppTest.from_file("../../streamlit_app.py", default_timeout=60).switch_page("app_pages/train.py").run()
    captions = dict(zip(page.radio("device").options, page.radio("device").proto.captions, strict=True))
    assert captions["Automatic"] == "The one that suits the recipe best"
    assert captions["CPU"] == "Ready"
    assert captions["NVIDIA GPU"].startswith("Not available: ")
    assert not page.error
    page.radio("device").set_value("cuda").run()
    assert not page.exception
    assert [error.value.partition("\\")[0] for error in page.error] == ["The device 'cuda' cannot be used"]
    assert next(button for button in page.button if button.label == "Train").disabled


@pytest.mark.stress
@pytest.mark.parametrize("visible", ["", "-1", "99", None])
@pytest.mark.parametrize("wanted", [*MISSING, "auto"])
@no_gpu
def test_in_a_process_that_sees_no_gpu(wanted, visible, csv):
    environment = {name: value for name, value in os.environ.items() if name != "CUDA_VISIBLE_DEVICES"}
    environment |= {} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}
    command = [sys.executable, "-m", "cfrec", "train", "--ratings", csv, "--device", wanted, "--epochs", "1", "--json"]
    process = subprocess.run(command, check=False, capture_output=True, text=True, env=environment, timeout=120)
    if wanted == "auto":
        assert process.returncode == 0
        assert json.loads(process.stdout)["device"] == "cpu"
    else:
        assert process.returncode == 2
        assert f"The device '{wanted}' cannot be used" in process.stderr
        assert "Traceback" not in process.stderr


@pytest.fixture
def false_gpu(monkeypatch):
    """A GPU that answers by its name; arrays stay in this machine's memory."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "False GPU")
    monkeypatch.setattr(devices, "choose_device", lambda _: devices.Device("cuda:0", "False GPU"))
    original = AdamRun.__init__

    def start(self, *arguments):
        original(self, *arguments[:3], "cpu")
        self.device = arguments[3]

    monkeypatch.setattr(AdamRun, "__init__", start)
    monkeypatch.setattr("cfrec.training.choose_device", devices.choose_device)


FAILURES = [
    "CUDA error: the launch timed out and was terminated\nCUDA kernel errors might be …",
    "CUDA out of memory. Tried to allocate 2 GiB.",
]


@pytest.mark.parametrize("message", FAILURES)
@pytest.mark.parametrize("preset", ["balanced", "seed"])
def test_a_device_that_goes_away_while_it_trains_is_named(false_gpu, monkeypatch, preset, message):
    """It ended in a traceback, and on the page in “something went wrong”."""
    done, original = [], AdamRun._pass

    def fail(self, epoch, must_stop):
        if epoch == 3:
            self.device = "cuda:0"
            raise torch.AcceleratorError(message) if "error" in message else torch.OutOfMemoryError(message)
        self.device = "cpu"
        return original(self, epoch, must_stop)

    monkeypatch.setattr(AdamRun, "_pass", fail)
    with pytest.raises(DeviceError) as caught:
        cfrec.train(*data("blocks"), TrainConfig.preset(preset, epochs=12, device="cuda:0"), on_epoch=done.append)
    first = message.partition("\n")[0].rstrip(".")
    assert str(caught.value) == f"The device cuda:0 failed: {first}. Train on the CPU, or again when it is back."
    assert len(done) == 2


def test_a_gpu_that_is_counted_but_does_not_answer_is_not_chosen(monkeypatch):
    def lost(_):
        raise RuntimeError("CUDA error: device not ready\nmore")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda k: lost(k) if k == 0 else "Good GPU")
    assert devices.choose_device("auto").name == "cuda:1"
    with pytest.raises(DeviceError, match=r"'cuda' cannot be used: it does not answer \(CUDA error: device not ready\)"):
        devices.choose_device("cuda")


def test_an_error_of_cfrec_itself_is_not_blamed_on_the_device(monkeypatch):
    """Negative control."""

    def fail(*_):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(AdamRun, "_pass", fail)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        cfrec.train(*data("blocks"), TrainConfig.preset("seed", device="cpu"))


def test_a_machine_without_room_says_so_as_memory(monkeypatch):
    def fail(*_):
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:124] data. DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"
        )

    monkeypatch.setattr(AdamRun, "_pass", fail)
    with pytest.raises(MemoryError):
        cfrec.train(*data("blocks"), TrainConfig.preset("seed", device="cpu"))


# T4: the same seed

HASHED = """
import sys
from tests.promises.test_training import hash_of
print(hash_of(sys.argv[1], int(sys.argv[2]), seed=int(sys.argv[3])))
"""
N_RATINGS = {"quick": 400_000, "balanced": 400_000, "accurate": 100_000, "seed": 20_000}  # more than one part, or one batch


def hash_of(preset, n_ratings, *, seed=42, n_threads=2):
    """Of all that a run learns, and of how it went."""
    config = TrainConfig.preset(preset, seed=seed, n_threads=n_threads, device="cpu", epochs=3)
    trained = cfrec.train(*ratings_of(n_ratings).split(), config)
    value = hashlib.sha256(repr([(m.train_loss, m.valid_loss) for m in trained.history]).encode())
    for name, array in sorted(trained.weights().items()):
        value.update(name.encode() + np.ascontiguousarray(array).tobytes())
    return value.hexdigest()


@cache
def ratings_of(n_ratings):
    return made_up_ratings(n_ratings)


@counted(sample=3, full=20)
@pytest.mark.parametrize("preset", TrainConfig.preset_names())
def test_the_same_seed_gives_the_same_model_to_the_bit(preset, n):
    n_ratings = N_RATINGS[preset] if n > 3 else 3_000
    n_processes = 5 if n > 3 else 0
    hashes = [hash_of(preset, n_ratings) for _ in range(n - n_processes)]
    for k in range(n_processes):
        command = [sys.executable, "-c", HASHED, preset, str(n_ratings), "42"]
        hashes.append(
            subprocess.run(command, check=True, capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": str(k)}).stdout.strip()
        )
    assert len(set(hashes)) == 1
    assert hash_of(preset, n_ratings, seed=43) not in hashes  # negative control


@pytest.mark.parametrize("n_threads", [pytest.param((1, 2), id="two"), pytest.param((1, 2, 3, 5, 8), id="five", marks=pytest.mark.stress)])
def test_by_gibbs_the_number_of_threads_changes_nothing(n_threads):
    n_ratings = 130_000 if len(n_threads) == 2 else 400_000
    assert len({hash_of("quick", n_ratings, n_threads=n) for n in n_threads}) == 1
