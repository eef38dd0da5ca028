from dataclasses import replace

import numpy as np
import pytest

import cfrec
from cfrec.errors import ConfigError, NotFoundError
from cfrec.recommend import _Choice, _highest, _prior, fold_in


def test_someone_who_loves_a_block_is_recommended_its_films(trained):
    table = cfrec.recommend(trained, {100: 5.0, 101: 5.0, 112: 2.0}, k=8)
    assert set((table["movie_id"] - 100) // 12) == {0}
    assert not set(table["movie_id"]) & {100, 101}  # what was rated is not recommended


def test_the_parts_add_up(shipped):
    table = cfrec.recommend(shipped, {50: 5.0, 181: 5.0, 100: 1.0}, k=1682)
    parts = table[["average", "movie", "visitor", "taste"]].sum(axis=1)
    assert parts.to_numpy() == pytest.approx(table["predicted"].to_numpy(), abs=1e-9)
    assert table["predicted"].between(1, 5).all()
    assert table["score"].is_monotonic_decreasing
    assert table["average"].nunique() == 1


def test_fold_in_is_at_the_bottom_of_its_loss(chosen):
    """No small step in any direction makes the loss smaller."""
    stars = {100: 5.0, 112: 4.0, 130: 2.0, 135: 3.0}
    rows = [chosen.movie_row(m) for m in stars]
    newcomer = fold_in(chosen, stars)
    known = _Choice.of(chosen)
    expected, penalty = _prior(chosen, len(rows), known, newcomer.choice.astype(float))

    def loss(weights):
        score = chosen.movie_factors[rows].astype(float) @ weights[:-1] + weights[-1] + chosen.movie_bias[rows] + chosen.offset
        low, high = chosen.y_range
        missed = (low + (high - low) / (1 + np.exp(-score))) - list(stars.values())
        return (missed**2).sum() + (weights - expected) @ penalty @ (weights - expected)

    best = np.append(newcomer.factors.astype(float), newcomer.bias)
    rng = np.random.default_rng(0)
    for _ in range(50):
        assert loss(best + 0.02 * rng.normal(size=best.size)) > loss(best)


def test_what_a_newcomer_chooses_by_is_at_the_bottom_of_the_loss_held_as_users_choices_are_spread(chosen):
    stars = {100: 5.0, 101: 5.0}  # alike, so that both weigh the most a liked film can
    design = np.hstack([chosen.movie_factors, chosen.movie_traits]).astype(float)
    rows = [chosen.movie_row(m) for m in stars]
    config, best = chosen.config, fold_in(chosen, stars).choice.astype(float)
    usual = float(chosen.to_stars(np.float32([chosen.offset]))[0])
    products = chosen.user_choice.T.astype(float) @ chosen.user_choice / chosen.n_users
    products += 1e-6 * np.trace(products) / len(products) * np.eye(len(products))
    weight = min(1 + 0.6 * (5 - usual) / ((chosen.scale[1] - chosen.scale[0]) / 4), 1.9)

    def loss(choice):
        t = design @ choice
        return weight * ((1 - t[rows]) ** 2).sum() + config.unseen_weight * (t**2).sum() + 0.04 * choice @ np.linalg.solve(products, choice)

    rng = np.random.default_rng(0)
    for _ in range(50):
        assert loss(best + 0.02 * rng.normal(size=best.size)) > loss(best)


def test_fold_in_with_one_factor_by_hand(trained):
    """q = 0 leaves only the bias: minimise (s(b) - 5)^2 + c b^2 over b, here by a fine grid."""
    flat = replace(trained, movie_factors=np.zeros_like(trained.movie_factors), movie_bias=np.zeros_like(trained.movie_bias))
    bias = fold_in(flat, {100: 5.0}).bias
    grid = np.linspace(-3, 3, 60_001)
    low, high = flat.y_range
    loss = (low + (high - low) / (1 + np.exp(-(grid + flat.offset))) - 5) ** 2 + _prior(flat, 1)[1][-1, -1] * grid**2
    assert bias == pytest.approx(grid[loss.argmin()], abs=1e-3)


def test_the_score_adds_up_and_the_dial_turns_it_to_what_is_loved(chosen):
    asked = {100: 5.0, 101: 5.0}
    suits, loved = (cfrec.recommend(chosen, asked, k=1_000, loved=dial) for dial in (0.0, 1e6))
    for table in (suits, loved):
        assert (table["chosen"] + table["liked"]).to_numpy() == pytest.approx(table["score"].to_numpy(), rel=1e-12, abs=1e-12)
        assert table["score"].is_monotonic_decreasing
    assert suits["chosen"].is_monotonic_decreasing
    assert loved["predicted"].is_monotonic_decreasing
    assert suits["movie_id"].tolist() != loved["movie_id"].tolist()
    one = cfrec.recommend(chosen, asked, k=1, loved=6.0).iloc[0]  # by hand: of two stars given, a predicted star weighs 6 * 2 / 12 = 1
    assert one["liked"] == pytest.approx((one["predicted"] - chosen.scale[0]) / ((chosen.scale[1] - chosen.scale[0]) / 4))


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
    newcomer = fold_in(perfect, {100: 5.0})
    factors, bias = newcomer.factors, newcomer.bias
    assert np.isfinite([*factors, bias]).all()
    assert cfrec.recommend(perfect, {100: 5.0})["predicted"].between(*trained.scale[:2]).all()


def test_of_equal_scores_the_first_come_first_and_no_more_than_asked_for():
    score, rows = np.array([1.0, 3.0, 2.0, 3.0, 2.0, 9.0]), np.arange(5)
    assert [_highest(score, rows, k).tolist() for k in (0, 1, 3, 5, 9)] == [[], [1], [1, 3, 2], [1, 3, 2, 4, 0], [1, 3, 2, 4, 0]]
