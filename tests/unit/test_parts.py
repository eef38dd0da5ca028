from dataclasses import replace

import numpy as np
import pytest

import cfrec
from cfrec.errors import NotFoundError


@pytest.fixture
def two(trained):
    """Two users and two movies whose biases and factors are known; movie 100 counts three times as much as movie 101."""
    movies = trained.movies.iloc[:2].assign(n_ratings=[3, 1])
    return replace(
        trained,
        user_factors=np.array([[1.0, 2.0], [0.0, 0.0]], np.float32),
        user_bias=np.array([0.5, -0.1], np.float32),
        movie_factors=np.array([[0.5, -0.25], [1.0, 0.5]], np.float32),
        movie_bias=np.array([0.2, 1.0], np.float32),
        offset=0.3,
        y_range=(0.0, 5.5),
        scale=(1.0, 5.0, 1.0),
        user_ids=np.array([1, 2]),
        movies=movies,
    )


def stars(score):
    return 5.5 / (1 + np.exp(-score))


def test_parts_by_hand(two):
    # offset 0.3, mean user 0.2, mean movie (3 * 0.2 + 1) / 4 = 0.4: 0.9; movie 1.0 - 0.4; user 0.5 - 0.2; taste 1 * 1 + 2 * 0.5 = 2
    table = cfrec.explain_prediction(two, 1, 101)
    assert table["part"].tolist() == ["average", "movie", "user", "taste", "prediction"]
    ends = [stars(0.9), stars(1.5), stars(1.8), 5.0, 5.0]  # the last would be 5.38: predictions end with the scale
    assert table["end"].tolist() == pytest.approx(ends, abs=1e-6)
    assert table["start"].tolist() == pytest.approx([0, *ends[:3], 0], abs=1e-6)
    assert table["stars"].tolist() == pytest.approx([ends[0], ends[1] - ends[0], ends[2] - ends[1], ends[3] - ends[2], 5], abs=1e-6)


def test_a_user_without_taste_has_no_part_for_it(two):
    assert cfrec.explain_prediction(two, 2, 101)["stars"].iloc[3] == pytest.approx(0, abs=1e-6)


def test_after_the_second_part_stands_the_popularity_score(two, shipped):
    for model, user in ((two, 1), (shipped, 196)):
        scores = cfrec.movie_biases(model).set_index("movie_id")["stars"]
        for movie in scores.index[:5]:
            assert cfrec.explain_prediction(model, user, movie)["end"].iloc[1] == pytest.approx(scores[movie], abs=1e-5)


def test_the_parts_add_up_exactly_to_the_prediction(shipped):
    rng = np.random.default_rng(0)
    users, movies = rng.choice(shipped.user_ids, 200).tolist(), rng.choice(shipped.movies["movie_id"], 200).tolist()
    for user, movie, predicted in zip(users, movies, cfrec.predict_ratings(shipped, users, movies), strict=True):
        table = cfrec.explain_prediction(shipped, user, movie)
        assert table["end"].iloc[-1] == predicted
        assert table["stars"].iloc[:4].sum() == pytest.approx(float(predicted), abs=1e-12)
        rounded = cfrec.explain_prediction(shipped, user, movie, decimals=2)
        shown = [round(value, 2) for value in rounded["stars"]]
        assert rounded["stars"].tolist() == pytest.approx(shown, abs=1e-9)  # nothing is lost when they are written with two decimals
        assert sum(round(100 * value) for value in shown[:4]) == round(100 * shown[4])
        assert shown[4] == pytest.approx(float(predicted), abs=0.0051)


def test_where_all_begins_is_near_the_average_rating_whatever_the_offset(blocks):
    """A network without an offset holds the average in its biases: that is nobody's generosity and no film's popularity."""
    config = cfrec.TrainConfig.preset(
        "quick", n_factors=4, epochs=12, batch_size=64, device="cpu", method="adam", start_at_mean=False, margin_below=0.5, margin_above=0.5
    )
    trained = cfrec.train(*blocks.split(), config)
    assert trained.offset == 0
    average = cfrec.explain_prediction(trained, 1, 100)["stars"].iloc[0]
    assert average == pytest.approx(float(blocks.rating.mean()), abs=0.4)


def test_unknown_ids(shipped):
    with pytest.raises(NotFoundError, match="user"):
        cfrec.explain_prediction(shipped, 0, 50)
    with pytest.raises(NotFoundError, match="movie"):
        cfrec.explain_prediction(shipped, 196, 0)
