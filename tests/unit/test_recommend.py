from dataclasses import replace

import numpy as np
import pytest

import cfrec
from cfrec.errors import ConfigError, NotFoundError
from cfrec.recommend import _prior, fold_in


def test_someone_who_loves_a_block_is_recommended_its_films(trained):
    table = cfrec.recommend(trained, {100: 5.0, 101: 5.0, 112: 2.0}, k=8)
    assert set((table["movie_id"] - 100) // 12) == {0}
    assert not set(table["movie_id"]) & {100, 101}  # what was rated is not recommended


def test_the_parts_add_up(shipped):
    table = cfrec.recommend(shipped, {50: 5.0, 181: 5.0, 100: 1.0}, k=1682)
    parts = table[["average", "movie", "visitor", "taste"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(table["predicted"].to_numpy(), abs=1e-9)
    assert table["predicted"].between(1, 5).all()
    assert table["predicted"].is_monotonic_decreasing
    assert table["average"].nunique() == 1


def test_fold_in_is_at_the_bottom_of_its_loss(shipped):
    """No small step in any direction makes the loss smaller."""
    stars = {50: 5.0, 181: 4.0, 100: 1.0, 258: 3.0}
    rows = [shipped.movie_row(m) for m in stars]
    penalty = _prior(shipped, len(rows))[1]

    def loss(weights):
        score = shipped.movie_factors[rows].astype(float) @ weights[:-1] + weights[-1] + shipped.movie_bias[rows] + shipped.offset
        low, high = shipped.y_range
        return (((low + (high - low) / (1 + np.exp(-score))) - list(stars.values())) ** 2).sum() + penalty @ weights**2

    factors, bias = fold_in(shipped, stars)
    best = np.append(factors.astype(float), bias)
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert loss(best + 0.02 * rng.normal(size=best.size)) > loss(best)


def test_fold_in_with_one_factor_by_hand(trained):
    """q = 0 leaves only the bias: minimise (s(b) - 5)^2 + c b^2 over b, here by a fine grid."""
    flat = replace(trained, movie_factors=np.zeros_like(trained.movie_factors), movie_bias=np.zeros_like(trained.movie_bias))
    _, bias = fold_in(flat, {100: 5.0})
    grid = np.linspace(-3, 3, 60_001)
    low, high = flat.y_range
    loss = (low + (high - low) / (1 + np.exp(-(grid + flat.offset))) - 5) ** 2 + _prior(flat, 1)[1][-1] * grid**2
    assert bias == pytest.approx(grid[loss.argmin()], abs=1e-3)


def test_generous_and_strict_visitors_differ_in_their_part(shipped):
    generous = cfrec.recommend(shipped, {50: 5.0, 1: 5.0, 100: 5.0}, k=5)
    strict = cfrec.recommend(shipped, {50: 2.0, 1: 2.0, 100: 2.0}, k=5)
    assert generous["visitor"].iloc[0] > 0 > strict["visitor"].iloc[0]


def test_one_rating_does_not_explain_everything_by_generosity(shipped):
    """One five-star rating used to lift every film to five stars, and one single star to push all down to one."""
    one_high, one_low = cfrec.recommend(shipped, {50: 5.0}, k=20), cfrec.recommend(shipped, {100: 1.0}, k=20)
    assert one_high["predicted"].max() < 4.9
    assert one_low["predicted"].max() > 3.5
    assert one_high["taste"].abs().max() > 0.02


def test_different_tastes_get_different_films(shipped):
    disney = cfrec.recommend(shipped, {99: 5.0, 501: 5.0, 404: 5.0, 50: 2.0, 172: 2.0, 181: 2.0}, k=10, min_ratings=50)
    space = cfrec.recommend(shipped, {99: 2.0, 501: 2.0, 404: 2.0, 50: 5.0, 172: 5.0, 181: 5.0}, k=10, min_ratings=50)
    assert len(set(disney["movie_id"]) & set(space["movie_id"])) <= 7


def test_refusals(shipped):
    with pytest.raises(ConfigError, match="at least one"):
        cfrec.recommend(shipped, {})
    with pytest.raises(ConfigError, match="between 1 and 5, not be 6"):
        cfrec.recommend(shipped, {50: 6.0})
    with pytest.raises(ConfigError, match="nan"):
        cfrec.recommend(shipped, {50: float("nan")})
    with pytest.raises(NotFoundError, match="99999"):
        cfrec.recommend(shipped, {99999: 4.0})


def test_stars_fold_into_a_model_without_any_error(trained):
    """Ratings that are all the same leave none, and so no penalty: a LinAlgError once escaped."""
    perfect = replace(trained, config=cfrec.TrainConfig.preset("accurate"), metrics={"mse": 0.0, "rmse": 0.0, "mae": 0.0})
    factors, bias = fold_in(perfect, {100: 5.0})
    assert np.isfinite([*factors, bias]).all()
    assert cfrec.recommend(perfect, {100: 5.0})["predicted"].between(*trained.scale[:2]).all()
