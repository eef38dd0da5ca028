"""How far predictions miss: pure functions on arrays."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.floating]


def prediction_errors(predicted: Array, actual: Array) -> dict[str, float]:
    """Mean squared error (stars squared), its root and the mean absolute error (stars).

    Parameters
    ----------
    predicted, actual : float array (n,)
        In stars.

    Returns
    -------
    dict
        ``{"mse": mean((p - a)^2), "rmse": sqrt(mse), "mae": mean(|p - a|)}``

    Raises
    ------
    ValueError
        The arrays differ in shape or are empty.
    """
    if predicted.shape != actual.shape or predicted.size == 0:
        raise ValueError(f"predicted {predicted.shape} and actual {actual.shape} must be of one shape and not empty")
    miss = predicted.astype(np.float64) - actual
    mse = float(np.mean(miss**2))
    return {"mse": mse, "rmse": float(np.sqrt(mse)), "mae": float(np.mean(np.abs(miss)))}


def shares_within(predicted: Array, actual: Array) -> dict[str, float]:
    """Shares of predictions that miss by no more than half a star, and by no more than one: ``within_half`` and ``within_one``."""
    miss = np.abs(predicted.astype(np.float64) - actual)
    return {"within_half": float(np.mean(miss <= 0.5)), "within_one": float(np.mean(miss <= 1.0))}


def calibration(predicted: Array, actual: Array, n_groups: int = 10) -> list[tuple[float, float, int]]:
    """Mean predicted and mean actual stars of equally large groups, from the lowest predictions to the highest.

    Returns
    -------
    list of (mean predicted, mean actual, number)
        At most ``n_groups``; a well-calibrated model has the first two nearly equal.
    """
    groups = np.array_split(np.argsort(predicted, kind="stable"), n_groups)
    return [(float(predicted[g].mean(dtype=np.float64)), float(actual[g].mean(dtype=np.float64)), len(g)) for g in groups if len(g)]
