import numpy as np
import pytest

from cfrec.metrics import prediction_errors


def test_three_numbers_by_hand():
    # misses: 1, -0.5, 0  ->  squares 1, 0.25, 0
    errors = prediction_errors(np.array([4.0, 2.5, 3.0]), np.array([3.0, 3.0, 3.0]))
    assert errors == pytest.approx({"mse": 1.25 / 3, "rmse": (1.25 / 3) ** 0.5, "mae": 0.5})


@pytest.mark.parametrize("actual", [np.array([1.0, 2.0]), np.array([])])
def test_shapes_must_match_and_hold_something(actual):
    with pytest.raises(ValueError, match="one shape"):
        prediction_errors(np.array([1.0]) if actual.size else actual, actual)
