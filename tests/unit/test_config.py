import time
from dataclasses import fields

import numpy as np
import pytest

from cfrec import config as config_module
from cfrec.config import TrainConfig
from cfrec.errors import ConfigError

NUMBERS = {s.name: (s.metadata["low"], s.metadata["high"]) for s in fields(TrainConfig) if s.metadata["low"] is not None}


def test_every_setting_is_explained():
    assert all(len(setting.metadata["help"]) > 15 for setting in fields(TrainConfig))
    assert len(NUMBERS) == 18


@pytest.mark.parametrize("name", NUMBERS)
def test_each_limit_holds(name):
    low, high = NUMBERS[name]
    kind = type(getattr(TrainConfig(), name))
    assert getattr(TrainConfig(**{name: kind(high)}), name) == high
    assert getattr(TrainConfig(**{name: kind(low)}), name) == low
    for bad in (kind(low) - 1, kind(high) + 1):
        with pytest.raises(ConfigError, match=f"{name} must lie between"):
            TrainConfig(**{name: bad})


@pytest.mark.parametrize(
    "bad",
    [
        {"epochs": 3.0},
        {"epochs": True},
        {"epochs": "3"},
        {"learning_rate": "fast"},
        {"learning_rate": None},
        {"start_at_mean": 1},
        {"device": 0},
        {"learning_rate": float("nan")},
        {"learning_rate": float("inf")},
        {"schedule": "cosine"},
        {"device": "banana"},
        {"device": "cuda:x"},
        {"n_factors": 10**9},
        {"n_factors": 10**400},
        {"seed": np.int64(3)},
    ],
)
def test_wrong_values_name_their_field(bad):
    with pytest.raises(ConfigError, match=next(iter(bad))):
        TrainConfig(**bad)


def test_presets_can_be_changed_and_go_through_json():
    config = TrainConfig.preset("seed", epochs=3)
    assert (config.recipe, config.epochs, config.batch_size, config.learning_rate, config.weight_decay) == ("seed", 3, 100, 1.5e-3, 3e-4)
    assert TrainConfig.from_dict(config.to_dict()) == config
    assert TrainConfig.preset() == TrainConfig()


def test_unknown_presets_and_settings_are_refused():
    with pytest.raises(ConfigError, match="no preset 'best'"):
        TrainConfig.preset("best")
    with pytest.raises(ConfigError, match="no setting momentum"):
        TrainConfig.preset("quick", momentum=0.9)


def test_the_seed_recipe_has_the_post_s_range():
    assert TrainConfig.preset("seed").y_range((1, 5, 1)) == (0, 5.5)
    assert TrainConfig.preset("seed").y_range((0.5, 5, 0.5)) == (0, 5.25)


def test_memory_is_estimated_and_refused_before_anything_is_allocated(monkeypatch):
    config = TrainConfig(n_factors=1024)
    weights = 4 * (10**9 + 10**6) * 1025
    assert config.bytes_needed(10**9, 10**6, 10**6) > 14 * weights  # as measured on a run that improves each epoch
    started = time.perf_counter()
    with pytest.raises(ConfigError, match=r"GB of memory.*fewer factors"):
        config.check_memory(10**9, 10**6, 10**6)
    assert time.perf_counter() - started < 0.5
    monkeypatch.setattr(config_module, "free_memory", lambda: 10**18)
    config.check_memory(10**9, 10**6, 10**6)  # with memory enough it passes


@pytest.mark.parametrize(
    ("rate", "wanted"),
    [
        (0.007, 0.0007),
        (0.03, 0.003),
        (1.5e-3, 1.5e-4),
        (0.07, 0.0065),
        (0.1, 0.0065),
        (10.0, 0.0065),
        (0.0123, 0.0012),
        (1e-4, 1e-5),
        (1e-5, 1e-6),
        (5e-6, 1e-6),  # the least there is: it was once refused as out of range, and the run that asked for advice lost
        (1e-6, 1e-6),
    ],
)
def test_gentler_by_hand(rate, wanted):
    """A tenth, in two digits, and never more than the default."""
    config = TrainConfig.preset("seed", learning_rate=rate, n_factors=7, epochs=3)
    gentler = config.gentler()
    assert gentler.learning_rate == wanted
    assert gentler == TrainConfig.preset("seed", learning_rate=wanted, n_factors=7, epochs=3)  # all else is the same
    assert config.learning_rate == rate


def test_memory_of_many_factors_that_are_sampled_is_their_square():
    few, many = (TrainConfig.preset("accurate", n_factors=n, n_likeness=0).bytes_needed(943, 1_682, 80_000) for n in (100, 1_000))
    assert many > 4 * 1_682 * 1_000**2  # each movie has a matrix of a million numbers when it is drawn
    assert many > 50 * few
