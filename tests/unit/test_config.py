import time
from dataclasses import fields, replace

import numpy as np
import pytest

from cfrec import config as config_module
from cfrec.config import TrainConfig
from cfrec.errors import ConfigError

NUMBERS = {s.name: (s.metadata["low"], s.metadata["high"]) for s in fields(TrainConfig) if s.metadata["low"] is not None}


def test_every_setting_is_explained():
    assert all(len(setting.metadata["help"]) > 15 for setting in fields(TrainConfig))
    assert len(NUMBERS) == 21


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
    assert config.bytes_needed(10**9, 10**6, 10**6) > 24 * weights  # as measured on a run that improves each epoch
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


def test_data_of_up_to_two_million_ratings_leaves_a_recipe_as_it_is():
    for name in TrainConfig.preset_names():
        config = TrainConfig.preset(name)
        assert all(config.fitted_to(n) is config for n in (1, 100_000, 2_000_000))


@pytest.mark.parametrize(
    ("preset", "n_ratings", "wanted"),
    [
        ("balanced", 2_000_001, (26, 7)),
        ("balanced", 3_000_000, (26, 5)),
        ("balanced", 32_000_000, (26, 3)),  # no fewer than three
        ("quick", 20_000_000, (min(26, TrainConfig.preset("quick").n_factors), 3)),
        ("accurate", 20_000_000, (26, round(TrainConfig.preset("accurate").epochs / 10))),
        ("accurate", 10**9, (26, 3)),
        ("seed", 32_000_000, (50, 30)),  # adam goes through all of it as often as it is told
    ],
)
def test_large_data_gets_fewer_sweeps_and_factors_by_hand(preset, n_ratings, wanted):
    config = TrainConfig.preset(preset)
    fitted = config.fitted_to(n_ratings)
    assert (fitted.n_factors, fitted.epochs) == wanted
    assert replace(fitted, n_factors=config.n_factors, epochs=config.epochs) == config  # all else is the same
    assert fitted.fitted_to(n_ratings) == fitted  # so that a run can be resumed


@pytest.mark.parametrize("change", [{"n_factors": 47}, {"epochs": 13}, {"n_factors": 200, "epochs": 100}])
def test_numbers_that_somebody_chose_stay_on_large_data(change):
    config = TrainConfig.preset("balanced", **change)
    assert config.fitted_to(32_000_000) is config
    assert TrainConfig.preset("balanced", seed=7).fitted_to(32_000_000).n_factors == 26  # negative control: what has no say in it


def test_by_gibbs_the_sigmoid_reaches_far_beyond_the_scale_whatever_is_asked_for():
    config = TrainConfig(margin_below=1.0, margin_above=60.0)
    assert config.y_range((1, 5, 1)) == (-24, 65)
    assert config.for_adam().y_range((1, 5, 1)) == (0.5, 5.5)
