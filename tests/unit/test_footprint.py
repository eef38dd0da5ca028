import pytest

from cfrec.adam import in_large_batches
from cfrec.config import TrainConfig
from cfrec.footprint import Sizes, bytes_needed

LIBRARIES = 64_000_000


def of(preset, sizes, **changes):
    return bytes_needed(TrainConfig.preset(preset, **changes), sizes) - LIBRARIES


def test_gibbs_by_hand():
    """Each rating 48 bytes and 60; each of 30 rows 24 times 6 + 2 numbers, and 8 times 6 + 10 where it learns from choice."""
    stars = (48 + 60) * 1_000 + 4 * 30 * 24 * 8
    assert of("balanced", Sizes(10, 20, 1_000), n_factors=6, choice_weight=0.0) == stars
    assert of("balanced", Sizes(10, 20, 1_000), n_factors=6) == stars + 4 * 30 * 8 * 16


def adam_by_hand(n_ratings, batch, *, choice):
    return 48 * n_ratings + 4 * 30 * 44 * (8 + 16 * choice) + 4 * batch * (10 * 8 + 40)


@pytest.mark.parametrize(
    ("n_ratings", "batch_size", "batch", "changes"),
    [
        (10_000, 1, 1, {}),
        (10_000, 1_000_000, 10_000, {}),
        (300_000, 500, 500, {}),
        (1_000_000, 500, 10_000, {}),  # of large data a hundredth
        (1_000_000, 500, 500, {"weight_decay": 0.1}),
        (1_000_000, 50_000, 50_000, {}),
        (10_000, 100, 500, {"choice_weight": 1.0}),  # with choice a twentieth
        (200_000, 100, 4_096, {"choice_weight": 1.0}),  # of which this is the most
        (200_000, 100, 100, {"choice_weight": 1.0, "weight_decay": 0.1}),
    ],
)
def test_adam_by_hand(n_ratings, batch_size, batch, changes):
    changes = {"weight_decay": 0.0} | changes
    needed = of("seed", Sizes(10, 20, n_ratings), n_factors=6, batch_size=batch_size, **changes)
    assert needed == adam_by_hand(n_ratings, batch, choice="choice_weight" in changes)
    run_with = in_large_batches(TrainConfig.preset("seed", batch_size=batch_size, **changes), n_ratings)
    assert min(run_with.batch_size, n_ratings) == batch  # the run itself does the same


@pytest.mark.parametrize("preset", TrainConfig.preset_names())
@pytest.mark.parametrize("change", [{"n_factors": 200}, {"n_factors": 80, "choice_weight": 6.0, "epochs": 3}])
def test_more_numbers_and_more_ratings_never_need_less(preset, change):
    config, more = TrainConfig.preset(preset), TrainConfig.preset(preset, **change)
    sizes = [Sizes(k * 943, k * 1_682, k * 100_000) for k in (1, 2, 10, 100)]
    needed = [bytes_needed(config, s) for s in sizes]
    assert needed == sorted(needed)
    assert all(bytes_needed(more, s) >= bytes_needed(config, s) for s in sizes)
