import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd
import pytest

from cfrec.errors import DataError
from cfrec.keeping import Keeper, size_of


def block(n_bytes):
    return np.zeros(n_bytes, np.uint8)


def kept_keys(keeper):
    return list(keeper._kept)


def test_a_thing_is_made_once_and_given_again():
    keeper, first = Keeper(100, 10), block(40)
    assert keeper.get("a", lambda: first) is first
    assert keeper.get("a", lambda: pytest.fail("it is there")) is first
    assert keeper.n_bytes == 40


def test_what_was_used_longest_ago_makes_way():
    keeper = Keeper(100, 10)
    for key in "ab":
        keeper.get(key, lambda: block(40))
    keeper.get("a", lambda: pytest.fail("it is there"))
    keeper.get("c", lambda: block(40))
    assert kept_keys(keeper) == ["a", "c"]
    assert keeper.n_bytes == 80


def test_a_hundred_large_things_stay_within_the_bytes_at_every_moment():
    keeper = Keeper(1_000, 1_000)
    for k in range(100):
        keeper.get(k, lambda k=k: block(90 + k))
        assert keeper.n_bytes <= 1_000
    assert kept_keys(keeper) == [95, 96, 97, 98, 99]  # 185 to 189 bytes: 935 in all, and one more would not fit


def test_many_small_things_are_bounded_by_their_number():
    keeper = Keeper(1_000, 3)
    for k in range(10):
        keeper.get(k, lambda: block(1))
    assert kept_keys(keeper) == [7, 8, 9]


def test_what_is_larger_than_all_that_may_be_kept_is_kept_alone_until_the_next():
    keeper = Keeper(100, 10)
    for key, size in (("a", 10), ("large", 101), ("b", 20)):
        assert len(keeper.get(key, lambda size=size: block(size))) == size
        if key == "large":
            assert kept_keys(keeper) == ["large"]
            keeper.get("large", lambda: pytest.fail("it is there"))
    assert kept_keys(keeper) == ["b"]


def test_of_twenty_who_ask_at_once_one_makes_it_and_all_get_it():
    keeper, all_ask, made = Keeper(100, 10), threading.Barrier(20), []

    def make():
        made.append(block(1))
        return made[-1]

    def ask(_):
        all_ask.wait(10)
        return keeper.get("a", make)

    with ThreadPoolExecutor(20) as pool:
        got = list(pool.map(ask, range(20)))
    assert len(made) == 1
    assert all(thing is made[0] for thing in got)


def test_one_thing_does_not_wait_for_another():
    keeper, slow = Keeper(100, 10), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(keeper.get, "slow", lambda: slow.wait(10) and block(1))
        assert len(keeper.get("quick", lambda: block(2))) == 2
        slow.set()
        assert len(waiting.result(10)) == 1


def test_an_error_is_raised_and_not_kept_and_the_next_may_try():
    keeper = Keeper(100, 10)

    def fail():
        raise DataError("damaged")

    for _ in range(2):
        with pytest.raises(DataError, match="damaged"):
            keeper.get("a", fail)
    assert keeper.n_bytes == 0
    assert len(keeper.get("a", lambda: block(5))) == 5
    assert keeper._being_made == {}


def test_who_waits_for_one_that_fails_tries_in_turn():
    """It is not left waiting for ever."""
    keeper, begun, fail_now = Keeper(100, 10), threading.Event(), threading.Event()

    def fail():
        begun.set()
        fail_now.wait(10)
        raise DataError("damaged")

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(keeper.get, "a", fail)
        begun.wait(10)
        second = pool.submit(keeper.get, "a", lambda: block(7))
        fail_now.set()
        assert len(second.result(10)) == 7
        with pytest.raises(DataError):
            first.result(10)


@dataclass
class Part:
    table: pd.DataFrame
    ids: np.ndarray
    more: dict
    note: str = "x" * 10_000


def test_sizes_by_hand(trained, blocks):
    assert size_of(np.zeros((3, 5), np.float32)) == 60
    assert size_of(None) == size_of("text") == 0
    part = Part(pd.DataFrame({"a": np.zeros(10)}, index=range(10)), np.zeros(4, np.int64), {"b": np.zeros(2)})
    assert size_of(part) == pytest.approx(80 + 32 + 16, abs=200)  # and the table's index
    assert size_of(np.array(["a" * 1_000, "b" * 1_000], object)) > 2_000
    arrays = sum(array.nbytes for array in [*trained.weights().values(), *trained.state.arrays.values()])
    assert arrays < size_of(trained) < arrays + 20_000  # and 36 films
    assert size_of(blocks) > 12 * len(blocks)


def test_without_counting_bytes_memory_would_grow():
    """Negative control: bounded by number alone, as Streamlit's caches are, four of a kind hold four times as much."""
    keeper = Keeper(10**12, 4)
    for k in range(4):
        keeper.get(k, lambda: block(1_000))
    assert keeper.n_bytes == 4_000
