import pytest

from cfrec.config import TrainConfig
from cfrec.footprint import Sizes, bytes_needed

SMALL = Sizes(943, 1_682, 100_000)
LIBRARIES = 64_000_000


def of(preset, sizes, **changes):
    return bytes_needed(TrainConfig.preset(preset, **changes), sizes) - LIBRARIES


def test_sgd_by_hand():
    assert of("balanced", Sizes(10, 20, 1_000), n_factors=6, n_likeness=0) == 48 * 1_000 + 14 * 4 * 30 * 8


def test_adam_by_hand():
    """A batch is at least a hundredth of the ratings, and never more than all."""
    weights = 48 * 10_000 + 20 * 4 * 30 * 8
    for batch_size, n in ((1, 100), (500, 500), (1_000_000, 10_000)):
        assert of("seed", Sizes(10, 20, 10_000), n_factors=6, batch_size=batch_size) == weights + 4 * n * (5 * 8 + 40)


def test_gibbs_by_hand():
    """Whole, a table of guesses; of many, as many samples as are kept: of 90 sweeps every third."""
    common = 108 * 1_000 + 8 * 4 * 30 * 32 + 4 * 7**2 * (10 + 60)
    assert of("accurate", Sizes(10, 20, 1_000), n_factors=6, n_likeness=0) == common + 12 * 200
    many = Sizes(30_000, 10_000, 1_000)
    rows = 8 * 4 * 40_000 * 32 + 4 * 7**2 * (10_000 + 90_000) + 30 * (6 * 40_000 * 6 + 2 * 4 * 30_000 * 32)
    assert of("accurate", many, n_factors=6, n_likeness=0) == 108 * 1_000 + rows


def test_likeness_is_counted_where_it_takes_more_than_the_fit(monkeypatch):
    monkeypatch.setattr("cfrec.footprint.n_threads", lambda: 2)
    likeness = 48 * 100_000 + 48 * 943**2 + 24 * 2_625 * (128 + 64) + 9 * 2 * 1_682**2
    without, both = of("balanced", SMALL, n_likeness=0), of("balanced", SMALL)
    assert both - without == likeness
    large = Sizes(200_000, 90_000, 32_000_000)
    more = 48 * 32_000_000 + 24 * 290_000 * 192 + 9 * 2 * 2_048 * 8_000
    assert of("balanced", large) - of("balanced", large, n_likeness=0) == more


@pytest.mark.parametrize("preset", TrainConfig.preset_names())
@pytest.mark.parametrize("change", [{"n_factors": 200}, {"n_likeness": 500, "epochs": 3}])
def test_more_numbers_and_more_ratings_never_need_less(preset, change):
    config, more = TrainConfig.preset(preset), TrainConfig.preset(preset, **change)
    sizes = [Sizes(k * 943, k * 1_682, k * 100_000) for k in (1, 2, 10, 100)]
    needed = [bytes_needed(config, s) for s in sizes]
    assert needed == sorted(needed)
    assert all(bytes_needed(more, s) >= bytes_needed(config, s) for s in sizes)
