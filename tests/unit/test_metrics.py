import numpy as np
import pytest

from cfrec.metrics import calibration, prediction_errors, shares_within


def test_three_numbers_by_hand():
    # misses: 1, -0.5, 0  ->  squares 1, 0.25, 0
    errors = prediction_errors(np.array([4.0, 2.5, 3.0]), np.array([3.0, 3.0, 3.0]))
    assert errors == pytest.approx({"mse": 1.25 / 3, "rmse": (1.25 / 3) ** 0.5, "mae": 0.5})


@pytest.mark.parametrize("actual", [np.array([1.0, 2.0]), np.array([])])
def test_shapes_must_match_and_hold_something(actual):
    with pytest.raises(ValueError, match="one shape"):
        prediction_errors(np.array([1.0]) if actual.size else actual, actual)


def test_shares_within_by_hand():
    # misses: 0.25, exactly 0.5, 0.75, exactly 1, 1.5; on either side
    predicted = np.array([3.25, 2.5, 3.75, 2.0, 4.5], np.float32)
    assert shares_within(predicted, np.full(5, 3.0, np.float32)) == {"within_half": 0.4, "within_one": 0.8}


def test_calibration_by_hand():
    """Sorted by prediction: (1, 2), (2, 1), (2.5, 3), (4, 5), (4.5, 4), in groups of 2, 2 and 1."""
    predicted, actual = np.array([4.0, 1.0, 2.5, 4.5, 2.0]), np.array([5.0, 2.0, 3.0, 4.0, 1.0])
    assert calibration(predicted, actual, 3) == [(1.5, 1.5, 2), (3.25, 4.0, 2), (4.5, 4.0, 1)]
    assert calibration(predicted, actual, 1) == [(2.8, 3.0, 5)]
    assert predicted.tolist() == [4.0, 1.0, 2.5, 4.5, 2.0]  # left as it was


def test_calibration_of_fewer_ratings_than_groups_has_a_group_each():
    assert calibration(np.array([4.0, 1.0]), np.array([5.0, 2.0])) == [(1.0, 2.0, 1), (4.0, 5.0, 1)]
    assert calibration(np.array([]), np.array([])) == []


def test_calibration_has_ten_groups_and_ties_stay_in_order():
    groups = calibration(np.full(25, 3.0, np.float32), np.arange(25, dtype=np.float32))
    assert [n for _, _, n in groups] == [3] * 5 + [2] * 5
    assert [mean for _, mean, _ in groups] == [1, 4, 7, 10, 13, 15.5, 17.5, 19.5, 21.5, 23.5]
    assert {type(value) for group in groups for value in group} == {float, int}  # plain numbers, whatever came in


def test_a_model_that_exaggerates_shows_in_the_calibration():
    """Predictions twice as far from 3 as the truth: the outer groups are off by half their distance, to both sides."""
    actual = np.linspace(2, 4, 1_000)
    honest, exaggerated = (calibration(3 + factor * (actual - 3), actual, 4) for factor in (1, 2))
    assert [p - a for p, a, _ in honest] == pytest.approx([0] * 4)
    assert [p - a for p, a, _ in exaggerated] == pytest.approx([-0.75, -0.25, 0.25, 0.75], abs=0.001)


def test_means_of_many_float32_are_exact():
    many = np.full(100_000, 0.1, np.float32)
    wanted = pytest.approx(float(np.float32(0.1)), rel=1e-12)
    assert float(many.mean()) != wanted  # negative control: summed up as float32 they are not
    assert calibration(many, many, 1) == [(wanted, wanted, 100_000)]
