import numpy as np
import pytest

from cfrec.gibbs import _padded
from cfrec.kernels import Observed, Regression, Solution, solve_rows, subtract_dot_products


def regressions(random, n_rows=7, n_others=40, size=21, n_ridged=5):
    """Rows with 0 to 30 ratings, so that whole groups of eight, remainders and nothing at all occur."""
    counts = np.array([0, 1, 7, 8, 9, 16, 30])[:n_rows]
    starts = np.append(0, np.cumsum(counts))
    columns = np.concatenate([random.permutation(n_others)[:count] for count in counts]).astype(np.int32)
    observed = Observed(starts, columns, random.normal(size=len(columns)).astype(np.float32))
    root = random.normal(size=(size, size))
    regression = Regression(
        design=_padded(random.normal(size=(n_others, size))),
        base=(root @ root.T + np.eye(size)).astype(np.float32),
        weight=random.uniform(0.5, 2, n_rows).astype(np.float32),
        ridge=random.uniform(0.1, 3, n_rows).astype(np.float32),
        pull=random.normal(size=(n_rows, size)).astype(np.float32),
        noise=random.normal(size=(n_rows, size)).astype(np.float32),
        n_ridged=n_ridged,
    )
    return observed, regression


def solve(observed, regression, parts):
    shape = regression.pull.shape
    solution = Solution(np.zeros(shape, np.float32), np.zeros(shape, np.float32))
    for part in parts:
        solve_rows(part, observed, regression, solution)
    return solution


def by_numpy(observed, regression, row):
    """Mean, and draw, of one row in double precision."""
    size = regression.pull.shape[1]
    part = slice(observed.starts[row], observed.starts[row + 1])
    x, y = regression.design[observed.columns[part], :size].astype(float), observed.values[part].astype(float)
    ridge = np.diag(np.where(np.arange(size) < regression.n_ridged, regression.ridge[row], 0))
    matrix = regression.weight[row] * x.T @ x + regression.base + ridge
    mean = np.linalg.solve(matrix, regression.weight[row] * x.T @ y + regression.pull[row])
    return mean, mean + np.linalg.solve(np.linalg.cholesky(matrix).T, regression.noise[row].astype(float))


@pytest.mark.parametrize("size", [1, 4, 16, 21, 33])
def test_rows_are_the_solutions_that_numpy_finds(size):
    observed, regression = regressions(np.random.default_rng(size), size=size, n_ridged=min(size, 5))
    found = solve(observed, regression, [(0, 7)])
    for row in range(7):
        mean, draw = by_numpy(observed, regression, row)
        assert found.mean[row] == pytest.approx(mean, abs=2e-4)
        assert found.draw[row] == pytest.approx(draw, abs=2e-4)


def test_one_number_by_hand():
    """Ratings 1 and 3 of designs 2 and 1, weight 2, base 5, ridge 1, pull 3: (2 (2 + 3) + 3) / (2 (4 + 1) + 5 + 1), and 0.8 / sqrt(16)."""
    observed = Observed(np.array([0, 2]), np.array([1, 0], np.int32), np.array([1, 3], np.float32))
    one = np.ones(1, np.float32)
    table = [np.array([[value]], np.float32) for value in (5, 3, 0.8)]
    regression = Regression(_padded(np.array([[1], [2]])), table[0], 2 * one, one, table[1], table[2], 1)
    found = solve(observed, regression, [(0, 1)])
    assert found.mean[0, 0] == pytest.approx(13 / 16)
    assert found.draw[0, 0] == pytest.approx(13 / 16 + 0.2)


def test_how_rows_are_shared_out_changes_no_bit():
    observed, regression = regressions(np.random.default_rng(0))
    whole, parts = solve(observed, regression, [(0, 7)]), solve(observed, regression, [(4, 7), (0, 1), (1, 4)])
    assert (whole.mean == parts.mean).all()
    assert (whole.draw == parts.draw).all()


def test_residuals_by_hand():
    observed = Observed(np.array([0, 1, 3]), np.array([1, 0, 1], np.int32), np.array([5, 4, 3], np.float32))
    rows, others = np.array([[1, 2], [0, 1]], np.float32), np.array([[1, 1], [2, 0.5]], np.float32)
    left = np.empty(3, np.float32)
    subtract_dot_products((0, 2), observed, rows, others, left)
    assert left.tolist() == [2.0, 3.0, 2.5]
