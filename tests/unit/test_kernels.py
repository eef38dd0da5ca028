from dataclasses import dataclass

import numpy as np
import pytest

from cfrec.kernels import Observed, Regression, Solution, solve_rows

COUNTS = np.array([0, 1, 7, 16, 511, 512, 1_100])  # none, and less than, just, and more than a block


@dataclass
class Problem:
    observed: Observed
    regression: Regression
    noise: np.ndarray

    def solve(self, parts=((0, 7),), *, draws=True):
        noise = self.noise if draws else self.noise[:0]
        solution = Solution(np.zeros_like(self.noise), noise.copy(), np.zeros(len(noise), np.float32))
        for part in parts:
            solve_rows(part, self.observed, self.regression, solution)
        return solution


def problem(size=21, n_given=2, n_others=40):
    random, n = np.random.default_rng(size), len(COUNTS)
    columns = random.integers(0, n_others, COUNTS.sum()).astype(np.int32)
    root = random.normal(size=(size, size))
    arrays = {
        "design": random.normal(size=(n_others, size + n_given)),
        "trust": random.uniform(0.5, 2, n_others),
        "base": root @ root.T + np.eye(size),
        "weight": random.uniform(0.5, 2, n),
        "ridge": random.uniform(0.1, 3, n),
        "pull": random.normal(size=(n, size)),
        "given": random.normal(size=(n, n_given)),
    }
    regression = Regression(**{name: array.astype(np.float32) for name, array in arrays.items()})
    observed = Observed(np.append(0, np.cumsum(COUNTS)), columns, random.normal(size=len(columns)).astype(np.float32))
    return Problem(observed, regression, random.normal(size=(n, size)).astype(np.float32))


def by_numpy(problem, row):
    """Mean, draw, and squared misses of the draw, of one row in double precision."""
    observed, regression, size = problem.observed, problem.regression, problem.noise.shape[1]
    part = slice(observed.starts[row], observed.starts[row + 1])
    columns = observed.columns[part]
    x, given = np.split(regression.design[columns].astype(float), [size], axis=1)
    y = observed.values[part].astype(float) * regression.trust[columns] - given @ regression.given[row]
    matrix = regression.weight[row] * x.T @ x + regression.base + regression.ridge[row] * np.eye(size)
    mean = np.linalg.solve(matrix, regression.weight[row] * x.T @ y + regression.pull[row])
    draw = mean + np.linalg.solve(np.linalg.cholesky(matrix).T, problem.noise[row].astype(float))
    return mean, draw, np.square(y - x @ draw).sum()


@pytest.mark.parametrize("n_given", [0, 1, 5])
@pytest.mark.parametrize("size", [1, 4, 16, 21, 33])
def test_rows_are_the_solutions_that_numpy_finds(size, n_given):
    given = problem(size, n_given)
    found = given.solve()
    for row in range(7):
        mean, draw, missed = by_numpy(given, row)
        assert found.mean[row] == pytest.approx(mean, abs=5e-4)
        assert found.draw[row] == pytest.approx(draw, abs=5e-4)
        assert found.missed[row] == pytest.approx(missed, rel=1e-3, abs=1e-3)


def test_one_number_by_hand():
    """Values 1 and 3 of designs 2 and 1, of which the last number's coefficient 1 explains 0.5 and 0; weight 2, base 5, ridge 1, pull 3.

    (2 (2 * 0.5 + 1 * 3) + 3) / (2 (4 + 1) + 5 + 1) = 11/16; the draw is 0.8 / sqrt(16) more; it misses 0.5 by 1.275 and 3 by 2.1125.
    """
    observed = Observed(np.array([0, 2]), np.array([1, 0], np.int32), np.array([1, 3], np.float32))
    one, draw = np.ones(1, np.float32), np.float32([[0.8]])
    regression = Regression(
        np.float32([[1, 0], [2, 0.5]]), np.ones(2, np.float32), np.float32([[5]]), 2 * one, one, np.float32([[3]]), one[:, None]
    )
    found = Solution(np.zeros((1, 1), np.float32), draw, np.zeros(1, np.float32))
    solve_rows((0, 1), observed, regression, found)
    assert found.mean[0, 0] == pytest.approx(11 / 16)
    assert found.draw[0, 0] == pytest.approx(11 / 16 + 0.2)
    assert found.missed[0] == pytest.approx(1.275**2 + 2.1125**2)


def test_how_rows_are_shared_out_changes_no_bit():
    given = problem()
    whole, parts = given.solve(), given.solve([(4, 7), (0, 1), (1, 4)])
    for one, other in zip(whole, parts, strict=True):
        assert (one == other).all()


def test_without_noise_nothing_is_drawn_and_the_means_are_the_same():
    given = problem()
    drawn, solved = given.solve(), given.solve(draws=False)
    assert (solved.mean == drawn.mean).all()
    assert solved.draw.shape == (0, 21)
