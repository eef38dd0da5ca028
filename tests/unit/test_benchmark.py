import json

import numpy as np
import pytest

from cfrec.benchmark import made_up_ratings, measure_speed
from cfrec.cli import main
from cfrec.config import TrainConfig


@pytest.fixture(scope="module")
def ratings():
    return made_up_ratings(20_000)


def test_made_up_ratings_have_the_shape_of_real_ones(ratings):
    pairs = ratings.user_idx.astype(np.int64) * ratings.n_movies + ratings.movie_idx
    assert len(np.unique(pairs)) == len(ratings) > 12_000
    assert (ratings.n_users, ratings.n_movies) == (600, 1697)  # 20,000 / 160 is less than 600; 12 sqrt(20,000)
    assert set(np.unique(ratings.rating)) == {k / 2 for k in range(1, 11)}
    counts = np.sort(np.bincount(ratings.movie_idx, minlength=ratings.n_movies))[::-1]
    assert counts[:17].sum() > 5 * counts[-170:].sum()  # the first hundredth is rated more than the last tenth


def test_made_up_ratings_are_the_same_for_a_seed(ratings):
    assert made_up_ratings(20_000).fingerprint() == ratings.fingerprint() != made_up_ratings(20_000, seed=1).fingerprint()


@pytest.mark.parametrize("method", ["gibbs", "adam"])
def test_speed_of_a_run(ratings, method):
    config = TrainConfig.preset("quick", n_factors=8, epochs=6, device="cpu")
    config = config if method == "gibbs" else config.for_adam()
    speed = measure_speed(config, ratings)
    assert speed.n_ratings == len(ratings) - len(ratings) // 10
    assert (speed.method, speed.device) == (method, "cpu")
    assert speed.nanoseconds > 0
    assert 0.01 < speed.peak_gigabytes < 100
    assert speed.mse < 0.9 * speed.guessing_mse  # there is something to learn


def test_the_command_tells_each_size(capsys):
    assert main(["bench", "2e3", "4000", "--preset", "quick", "--n-factors", "4", "--json"]) == 0
    first, second = json.loads(capsys.readouterr().out)
    assert first["n_ratings"] < second["n_ratings"] <= 3_600
    with pytest.raises(SystemExit):
        main(["bench", "12"])
