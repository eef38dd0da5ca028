import math
import threading

import numpy as np
import pytest

from cfrec.kernels import (
    BATCH,
    BIAS,
    L2,
    LANES,
    SQUARE,
    Cells,
    Link,
    Rows,
    Rule,
    Triples,
    Turns,
    add_squared_errors,
    arrange,
    learn,
    shuffle,
    sigmoid,
)

LINK = Link(np.float32(0.3), np.float32(0.5), np.float32(5.0))


def triples_of(users, movies, stars):
    return Triples(np.array(users, np.int32), np.array(movies, np.int32), np.array(stars, np.float32))


def rows_of(n, seed, n_factors=5, n_lanes=LANES):
    random = np.random.default_rng(seed)
    rows = np.zeros((n, n_lanes), np.float32)
    rows[:, :n_factors] = random.normal(0, 0.5, (n, n_factors))
    rows[:, -BIAS], rows[:, -SQUARE], rows[:, -L2] = random.normal(0, 0.3, n), random.uniform(0.1, 0.5, n), random.uniform(0.05, 0.3, n)
    return rows


def rule(bias_l2=0.02, n_factors=5):
    return Rule(LINK, *(np.float32(x) for x in (bias_l2, 0.9, 1 / n_factors)))


def turns_of(n_parts, n_blocks=1):
    return Turns(np.zeros(1, np.int64), np.zeros(2 * n_blocks, np.int64), np.zeros(n_parts))


def learn_all(triples, rows, how, rates, *, part=None, stride=1):
    places, turns = np.array([[*(part or (0, len(triples.stars))), stride]]), turns_of(1)
    learn(triples, Cells(places, np.array([[0, 1]]), np.zeros(1, np.int64), np.array([rates], np.float32)), turns, rows, how)
    assert turns.done.tolist() == [1, 1]
    return turns.squared[0]


def learned_by_the_formulas(triples, rows, rate_of, *, bias_l2=0.02, beta2=0.9, n_factors=5):
    """The docstring of cfrec.sgd in double precision, one rating after the other; returns rows and the squared errors' sum."""
    users, movies = rows.users.astype(np.float64), rows.movies.astype(np.float64)
    squared, factors = 0.0, slice(n_factors)
    offset, low, span = (float(x) for x in LINK)
    for n, (u, m, r) in enumerate(zip(*triples, strict=True)):
        p, q = users[u].copy(), movies[m].copy()
        share = 1 / (1 + math.exp(-(p[factors] @ q[factors] + p[-BIAS] + q[-BIAS] + offset)))
        miss = r - (low + span * share)
        squared += miss**2
        g = miss * span * share * (1 - share)
        for row, other, target in ((p, q, users[u]), (q, p, movies[m])):
            d = g * other[factors] - row[-L2] * row[factors]
            target[-SQUARE] = beta2 * row[-SQUARE] + (1 - beta2) * (d @ d) / n_factors
            target[factors] = row[factors] + rate_of(n) * d / math.sqrt(target[-SQUARE])
            target[-BIAS] = row[-BIAS] + rate_of(n) * (g - bias_l2 * row[-BIAS])
    return users, movies, squared


@pytest.mark.parametrize(("n", "n_factors"), [(1, 5), (BATCH, 61), (2 * BATCH + 3, 5), (BATCH + 1, 70)])
def test_learning_follows_the_formulas(n, n_factors):
    random, n_lanes = np.random.default_rng(1), LANES * (1 + (n_factors > 61))
    triples = triples_of(random.permutation(n), random.permutation(n), random.integers(1, 6, n))  # no row twice
    rows, n_batches = Rows(*(rows_of(n, seed, n_factors, n_lanes) for seed in (2, 3))), -(-n // BATCH)

    def rate_of(k):  # with a stride of one, the second batch is the first to be learned from
        return 0.01 + (0.03 - 0.01) * ((k // BATCH - 1) % n_batches) / n_batches

    wanted = learned_by_the_formulas(triples, rows, rate_of, n_factors=n_factors)
    squared = learn_all(triples, rows, rule(n_factors=n_factors), (0.01, 0.03))
    assert squared == pytest.approx(wanted[2], rel=1e-4)
    assert rows.users == pytest.approx(wanted[0], abs=2e-5)
    assert rows.movies == pytest.approx(wanted[1], abs=2e-5)


def test_a_row_that_comes_again_in_another_batch_goes_on_from_what_it_learned():
    random = np.random.default_rng(4)
    users, movies = [*range(BATCH), *range(BATCH)], [*range(BATCH), *range(1, BATCH), 0]
    triples = triples_of(users, movies, random.integers(1, 6, 2 * BATCH))
    rows = Rows(rows_of(BATCH, 2), rows_of(BATCH, 3))
    second_first = Triples(*(np.roll(column, BATCH) for column in triples))
    wanted = learned_by_the_formulas(second_first, rows, lambda _: 0.01)
    learn_all(triples, rows, rule(), (0.01, 0.01))
    assert rows.users == pytest.approx(wanted[0], abs=2e-5)
    assert rows.movies == pytest.approx(wanted[1], abs=2e-5)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_each_rating_is_learned_from_once_whatever_the_stride(stride):
    n = 5 * BATCH - 7
    triples, rows = triples_of(range(n), range(n), [5] * n), Rows(rows_of(n, 2), rows_of(n, 3))
    before = rows.users.copy()
    wanted = learned_by_the_formulas(triples, rows, lambda _: 0.01)
    learn_all(triples, rows, rule(), (0.01, 0.01), stride=stride)
    assert (rows.users != before).any(axis=1).all()
    assert rows.users == pytest.approx(wanted[0], abs=2e-5)


def test_only_the_part_that_is_named_is_learned_from():
    triples, rows = triples_of([0, 1, 2], [0, 1, 2], [5, 5, 5]), Rows(rows_of(3, 2), rows_of(3, 3))
    before = rows.users.copy()
    learn_all(triples, rows, rule(), (0.01, 0.01), part=(1, 2))
    assert (rows.users != before).any(axis=1).tolist() == [False, True, False]


def test_a_cell_waits_until_those_before_it_are_done():
    triples, rows, turns = triples_of([0], [0], [5]), Rows(rows_of(1, 2), rows_of(1, 3)), turns_of(1)
    cells = Cells(np.array([[0, 1, 1]]), np.array([[0, 1]]), np.ones(1, np.int64), np.array([[0.01, 0.01]], np.float32))
    before = rows.users.copy()
    learner = threading.Thread(target=learn, args=(triples, cells, turns, rows, rule()), daemon=True)
    learner.start()
    for block in (0, 1):
        learner.join(0.2)
        assert learner.is_alive()
        assert (rows.users == before).all()
        turns.done[block] = 1
    learner.join(10)
    assert not learner.is_alive()
    assert (rows.users != before).any()
    assert turns.done.tolist() == [2, 2]


def test_threads_that_share_the_work_learn_what_one_alone_learns():
    """Many small cells, so that threads meet: some hundreds of times each waits for another."""
    n, random = 8, np.random.default_rng(0)
    order = [(u, (u + shift) % n) for shift in range(n) for u in range(n)]
    movies = np.concatenate([m * 5 + random.integers(5, size=4) for _, m in order])
    users = np.concatenate([u * 5 + random.integers(5, size=4) for u, _ in order])
    triples, ends = triples_of(users, movies, random.integers(1, 6, len(users))), 4 * np.arange(n * n + 1)
    cells = Cells(
        np.column_stack([ends[:-1], ends[1:], np.ones(n * n, np.int64)]),
        np.array([[u, n + m] for u, m in order]),
        np.repeat(np.arange(n), n),
        np.full((n * n, 2), 0.01, np.float32),
    )

    def learned(n_threads):
        rows = Rows(rows_of(5 * n, 2), rows_of(5 * n, 3))
        for _ in range(20):
            turns = turns_of(n * n, n)
            threads = [threading.Thread(target=learn, args=(triples, cells, turns, rows, rule())) for _ in range(n_threads)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert turns.done.tolist() == [n] * 2 * n
        return rows, turns.squared

    (alone, squared), (together, squared_together) = learned(1), learned(4)
    assert (alone.users == together.users).all()
    assert (alone.movies == together.movies).all()
    assert (squared == squared_together).all()


def test_near_zero_a_row_grows_by_at_most_the_other():
    """Mean squares near zero would make any step: a batch with one user many times once exploded."""
    triples = triples_of([0] * BATCH, range(BATCH), [5] * BATCH)
    rows = Rows(rows_of(1, 2), rows_of(BATCH, 3))
    for table in rows:
        table[:, :5] *= 1e-4
        table[:, -SQUARE] = 0
    most = np.linalg.norm(rows.users[:, :5], axis=1).sum() + np.linalg.norm(rows.movies[:, :5], axis=1).sum()
    learn_all(triples, rows, rule(bias_l2=0.0), (0.02, 0.02))
    assert 1e-4 < np.linalg.norm(rows.users[0, :5]) <= 1.001 * most


def test_the_sigmoid_is_one():
    for z in np.linspace(-30, 30, 2001, dtype=np.float32):
        assert sigmoid(z) == pytest.approx(1 / (1 + math.exp(-float(z))), abs=1.3e-4 if abs(z) > 9 else 2.2e-5)


def test_squared_errors_by_hand():
    rows = Rows(np.zeros((1, LANES), np.float32), np.zeros((2, LANES), np.float32))
    rows.users[0, :2], rows.movies[0, :2] = (1, 2), (0.5, 0.25)
    rows.users[0, -BIAS], rows.movies[1, -BIAS] = 0.1, 20
    rows.users[:, -SQUARE], rows.movies[:, -SQUARE], rows.users[:, -L2], rows.movies[:, -L2] = 3, 4, 5, 6  # which count for nothing
    triples, turns = triples_of([0, 0], [0, 1], [4, 4]), turns_of(2)
    first = 0.5 + 5 / (1 + math.exp(-(1 + 0.1 + 0.3)))
    add_squared_errors(triples, np.array([[0, 1], [1, 2]]), turns, rows, (LINK, np.float32(1), np.float32(5)))
    assert turns.squared == pytest.approx([(4 - first) ** 2, 1.0], rel=1e-3)  # 5.5 stars count as 5


def test_shuffling_keeps_ratings_together_and_mixes_them():
    n = 1000
    triples = triples_of(range(n), range(n), np.arange(n))
    shuffle(triples, (100, 900), 7)
    users, movies, stars = triples
    assert (users == movies).all()
    assert (users == stars).all()
    assert (users[:100] == np.arange(100)).all()
    assert (users[900:] == np.arange(900, n)).all()
    assert sorted(users[100:900]) == list(range(100, 900))
    assert abs(np.corrcoef(users[100:900], np.arange(800))[0, 1]) < 0.1
    again = triples_of(range(n), range(n), np.arange(n))
    shuffle(again, (100, 900), 8)
    assert (again.users != users).mean() > 0.7


def test_shuffling_gives_every_order_alike():
    orders = {}
    for seed in range(1, 6001):
        triples = triples_of([0, 1, 2], [0, 1, 2], [0, 1, 2])
        shuffle(triples, (0, 3), seed * 2_654_435_761)
        orders[tuple(triples.users)] = orders.get(tuple(triples.users), 0) + 1
    assert len(orders) == 6
    assert min(orders.values()) > 850


def test_ratings_are_arranged_cell_by_cell():
    random = np.random.default_rng(0)
    source = triples_of(random.integers(0, 20, 200), random.integers(0, 30, 200), random.integers(1, 6, 200))
    user_block, movie_block = (np.arange(20) // 7).astype(np.int32), (np.arange(30) // 10).astype(np.int32)
    triples, starts = triples_of(np.zeros(200), np.zeros(200), np.zeros(200)), np.zeros(10, np.int64)
    arrange(source, user_block, movie_block, triples, starts)
    assert starts[0] == 0
    assert starts[-1] == 200
    for cell in range(9):
        part = slice(starts[cell], starts[cell + 1])
        assert (user_block[triples.users[part]] * 3 + movie_block[triples.movies[part]] == cell).all()
    assert sorted(zip(*source, strict=True)) == sorted(zip(*triples, strict=True))
