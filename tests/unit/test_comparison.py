from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cfrec.comparison import (
    bias_movers,
    changed_settings,
    differing_settings,
    groups_by_test,
    miss_by_round,
    neighbour_changes,
    overview,
    readable_top,
    same_test,
)
from cfrec.config import TrainConfig
from cfrec.errors import NotFoundError
from cfrec.storage import StoredModel

LN2, LN5 = np.log(2), np.log(5)


def small(trained, movie_ids, *, bias=None, factors=None, n_ratings=None):
    """A model of a few movies called Film 1, Film 2, …: the stars of a bias b are 6 / (1 + exp(-b)), clipped to 1 and 5."""
    n = len(movie_ids)
    movies = trained.movies.iloc[:n].assign(movie_id=movie_ids, title=[f"Film {i}" for i in movie_ids], n_ratings=n_ratings or [10] * n)
    return replace(
        trained,
        movies=movies,
        movie_bias=np.array(bias if bias is not None else [0.0] * n, np.float32),
        movie_factors=np.array(factors if factors is not None else np.eye(n), np.float32),
        user_bias=np.array([-0.5, 0.5], np.float32),
        user_factors=np.zeros((2, 2), np.float32),
        user_ids=np.array([1, 2]),
        offset=0.0,
        y_range=(0.0, 6.0),
        scale=(1.0, 5.0, 1.0),
    )


@pytest.fixture
def old(trained):
    """Film 1 has the neighbours 2, 3, 4 in this order."""
    return small(trained, [1, 2, 3, 4], bias=[0, LN2, LN5, 0], factors=[[1, 0], [1, 0.1], [1, 1], [-1, 0]])


@pytest.fixture
def new(trained):
    """Film 1 has the neighbours 3 and 2 in this order, and nothing was learned of film 5; film 4 is not there."""
    return small(trained, [1, 2, 3, 5], bias=[LN2, -LN2, LN5, 9], factors=[[1, 0], [0, 1], [1, 0.1], [0, 0]], n_ratings=[10, 20, 30, 40])


def test_errors_compare_only_on_the_same_ratings(trained):
    assert same_test(trained, replace(trained, movie_bias=trained.movie_bias + 1, config=TrainConfig()))
    assert not same_test(trained, replace(trained, fingerprint=trained.fingerprint + 1))
    assert not same_test(trained, replace(trained, n_valid=trained.n_valid + 1))


def test_another_split_is_another_test(blocks, block_config, trained):
    from cfrec import train

    config = replace(block_config, epochs=1)
    assert same_test(trained, train(*blocks.split(), config))
    assert not same_test(trained, train(*blocks.split(seed=1), config))


def test_changed_settings_are_listed_in_the_order_of_the_settings():
    before, after = TrainConfig(), TrainConfig(seed=7, n_factors=20, start_at_mean=False)
    table = changed_settings(before, after)
    assert table.to_numpy().tolist() == [
        ["n_factors", str(before.n_factors), "20"],
        ["start_at_mean", "True", "False"],
        ["seed", "42", "7"],
    ]
    assert changed_settings(after, before)["old"].tolist() == ["20", "False", "7"]


def test_of_equal_settings_none_is_listed():
    table = changed_settings(TrainConfig(), TrainConfig())
    assert list(table) == ["setting", "old", "new"]
    assert table.empty


def test_neighbours_by_hand_with_blanks_where_there_are_fewer(old, new):
    table = neighbour_changes(old, new, [1], k=3)
    assert list(table) == ["movie_id", "title", "rank", "old", "new"]
    assert table.to_numpy().tolist() == [
        [1, "Film 1", 1, "Film 2", "Film 3"],
        [1, "Film 1", 2, "Film 3", "Film 2"],
        [1, "Film 1", 3, "Film 4", ""],
    ]


def test_neighbours_of_several_movies_come_in_the_order_asked(old, new):
    table = neighbour_changes(old, new, [3, 1], k=1)
    assert table.to_numpy().tolist() == [[3, "Film 3", 1, "Film 2", "Film 1"], [1, "Film 1", 1, "Film 2", "Film 3"]]
    assert neighbour_changes(old, new, [], k=1).empty


def test_more_neighbours_than_there_are_movies(old, new):
    table = neighbour_changes(old, new, [1], k=5)
    assert table["rank"].tolist() == [1, 2, 3, 4, 5]
    assert table["old"].tolist() == ["Film 2", "Film 3", "Film 4", "", ""]
    assert table["new"].tolist() == ["Film 3", "Film 2", "", "", ""]


def test_neighbours_with_few_ratings_are_left_out_in_each_model(old, new):
    table = neighbour_changes(old, new, [1], k=2, min_ratings=25)
    assert table["old"].tolist() == ["", ""]  # all have 10 there
    assert table["new"].tolist() == ["Film 3", ""]  # it has 30


@pytest.mark.parametrize("only_one_knows", [4, 5, 99])
def test_a_movie_that_not_both_know_is_named(old, new, only_one_knows):
    with pytest.raises(NotFoundError, match=f"no movie with the id {only_one_knows}"):
        neighbour_changes(old, new, [1, only_one_knows])


def test_the_same_model_has_the_same_neighbours(trained):
    table = neighbour_changes(trained, trained, trained.movies["movie_id"].tolist())
    assert len(table) == 36 * 5
    assert table["old"].tolist() == table["new"].tolist()
    assert "" not in table["old"].tolist()


def test_movers_by_hand(old, new):
    """Stars before 3, 4, 5 and after 4, 2, 5; films 4 and 5 are known to one model alone."""
    table = bias_movers(old, new)
    assert list(table) == ["movie_id", "title", "old", "new", "change"]
    assert table["movie_id"].tolist() == [2, 1, 3]
    assert table["title"].tolist() == ["Film 2", "Film 1", "Film 3"]
    assert table["old"].tolist() == pytest.approx([4, 3, 5])
    assert table["new"].tolist() == pytest.approx([2, 4, 5])
    assert table["change"].tolist() == pytest.approx([-2, 1, 0], abs=1e-6)
    assert table.index.tolist() == [0, 1, 2]


def test_the_other_way_round_all_changes_turn(old, new):
    assert bias_movers(new, old)["change"].tolist() == pytest.approx([2, -1, 0], abs=1e-6)


def test_movers_are_the_first_k_with_enough_ratings_in_the_new_model(old, new):
    assert bias_movers(old, new, 1)["movie_id"].tolist() == [2]
    assert bias_movers(old, new, min_ratings=25)["movie_id"].tolist() == [3]
    assert bias_movers(old, new, min_ratings=100).empty


def test_equal_changes_stay_in_the_order_of_the_new_biases(trained):
    before = small(trained, [1, 2, 3], bias=[0, 0, 0])
    after = small(trained, [1, 2, 3], bias=[-LN2, 0, LN2])
    assert bias_movers(before, after)["movie_id"].tolist() == [3, 1, 2]


def test_models_without_a_movie_in_common(trained, old):
    """One has numbers for ids and the other text: pandas refuses to merge such columns."""
    named = small(trained, np.array(["1", "tt2"], object))
    for movers in (bias_movers(old, named), bias_movers(named, old), bias_movers(old, small(trained, [8, 9]))):
        assert list(movers) == ["movie_id", "title", "old", "new", "change"]
        assert movers.empty


def test_models_with_text_for_ids(trained):
    before, after = (small(trained, np.array(["a", "b"], object), bias=bias) for bias in ([0, 0], [0, LN2]))
    assert bias_movers(before, after).iloc[0].tolist() == ["b", "Film b", 3, pytest.approx(4), pytest.approx(1)]


# Stored models side by side


def stored(name="mine", *, losses=(1.44, 0.81), config=None, **facts):
    """A stored model of 3 users and 5 movies."""
    manifest = {
        "dataset": {"name": "ratings", "title": "Ratings"},
        "shapes": {"n_users": 3, "n_movies": 5, "n_factors": 2},
        "config": (config or TrainConfig()).to_dict(),
        "metrics": {"mse": 0.81, "rmse": 0.9, "mae": 0.7},
        "history": [{"epoch": epoch, "valid_loss": loss} for epoch, loss in enumerate(losses, 1)],
        **{"best_epoch": 2, "fit_seconds": 1.5, "device": "cpu", "created": "2026-01-02T03:04:05+00:00"},
        **{"n_train": 80, "n_valid": 20, "fingerprint": 1},
    }
    return StoredModel(name, Path(name), manifest | facts)


def test_an_overview_has_one_row_a_model():
    table = overview([stored(), stored("other", losses=[1], device="cuda", metrics={"rmse": 1})])
    assert table.iloc[0].to_dict() == {
        **{"model": "mine", "dataset": "Ratings", "recipe": "balanced", "rmse": 0.9, "rounds": 2, "best_epoch": 2, "n_factors": 2},
        **{"fit_seconds": 1.5, "device": "cpu", "created": "2026-01-02", "n_movies": 5, "n_users": 3, "n_train": 80, "n_valid": 20},
    }
    assert table.loc[1, ["model", "rmse", "rounds", "device"]].tolist() == ["other", 1, 1, "cuda"]
    assert overview([]).empty


def test_an_overview_of_a_forged_manifest_still_fits_into_a_table():
    table = overview([stored(fit_seconds=10**200, metrics={"rmse": -(10**200)})])
    assert table["fit_seconds"].dtype == table["rmse"].dtype == "float64"


def test_models_are_grouped_by_what_they_were_tested_on():
    models = [stored("a"), stored("b", fingerprint=2), stored("c"), stored("d", n_valid=10)]
    assert groups_by_test(models) == [["a", "c"], ["b"], ["d"]]
    assert groups_by_test([]) == []


def test_settings_that_differ_among_three():
    configs = [TrainConfig(seed=7), TrainConfig(n_factors=20, start_at_mean=False), TrainConfig(learning_rate=1.5e-3, weight_decay=0.0)]
    table = differing_settings([stored(name, config=config) for name, config in zip("abc", configs, strict=True)])
    assert table.index.tolist() == ["n_factors", "learning_rate", "start_at_mean", "seed"]
    assert table["a"].tolist() == [str(TrainConfig().n_factors), "0.0065", "yes", "7"]
    assert table["b"].tolist() == ["20", "0.0065", "no", "42"]
    assert table["c"].tolist() == [str(TrainConfig().n_factors), "0.0015", "yes", "42"]


def test_a_model_called_setting_is_a_column_like_any_other():
    assert list(differing_settings([stored("setting"), stored("a", config=TrainConfig(seed=7))])) == ["setting", "a"]


def test_of_equal_models_no_setting_differs():
    assert differing_settings([stored("a"), stored("b")]).empty
    assert differing_settings([stored("a")]).empty


def test_miss_by_round_by_hand():
    """The roots of 1.44 and 0.81 are 1.2 and 0.9."""
    table = miss_by_round([stored("a"), stored("b", losses=[4])])
    assert table.to_numpy().tolist() == [["a", 1, pytest.approx(1.2)], ["a", 2, pytest.approx(0.9)], ["b", 1, 2]]
    assert miss_by_round([stored("a"), stored("b", losses=[4])], 1.0).to_numpy().tolist() == [["a", 2, pytest.approx(0.9)]]
    assert list(miss_by_round([stored(losses=[])])) == ["model", "epoch", "stars"]


def test_a_loss_below_zero_has_no_root():
    assert miss_by_round([stored(losses=[-1])])["stars"].tolist() == [0]
    assert readable_top([stored(losses=[-1])]) == 0


def test_the_best_round_of_each_model_is_within_the_readable():
    """A fifth above the worst of the best, which are 0.9 and 1.0: the 1.2 of the first is just within, the 3 of the second is not."""
    models = [stored("a"), stored("b", losses=[9, 1.0, 1.21])]
    assert readable_top(models) == pytest.approx(1.2)
    assert miss_by_round(models, readable_top(models))["model"].tolist() == ["a", "a", "b", "b"]
    assert readable_top([]) == readable_top([stored(losses=[])]) == 0
