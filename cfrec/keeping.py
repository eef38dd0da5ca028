"""An LRU cache bounded by bytes."""

from __future__ import annotations

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import fields, is_dataclass
from threading import Event, Lock
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd

Thing = TypeVar("Thing")


class Keeper:
    """Keeps what was used last. Safe to use from any thread.

    Parameters
    ----------
    most_bytes : int
        What is kept takes no more than this, by ``size_of``. Only the latest may be larger: then it is kept alone.
    most : int
        How many things, at most.
    """

    def __init__(self, most_bytes: int, most: int) -> None:
        self.most_bytes, self.most = most_bytes, most
        self._lock = Lock()
        self._kept: OrderedDict[Hashable, tuple[object, int]] = OrderedDict()  # with its size; what was used last stands last
        self._being_made: dict[Hashable, Event] = {}

    @property
    def n_bytes(self) -> int:
        """What is kept now takes so much."""
        with self._lock:
            return self._n_bytes()

    def get(self, key: Hashable, make: Callable[[], Thing]) -> Thing:
        """What is kept under the key; made if there is nothing.

        Others who ask for it meanwhile wait, and get the same. What ``make`` raises goes to who asked; nothing is kept of it.
        """
        while True:
            with self._lock:
                if key in self._kept:
                    self._kept.move_to_end(key)
                    return cast(Thing, self._kept[key][0])
                others = self._being_made.get(key)
                if others is None:
                    made = self._being_made[key] = Event()
                    break
            others.wait()
        try:
            thing = make()
            size = size_of(thing)
            with self._lock:
                self._keep(key, thing, size)
            return thing
        finally:
            with self._lock:
                del self._being_made[key]
            made.set()

    def _keep(self, key: Hashable, thing: object, size: int) -> None:
        self._kept[key] = thing, size
        while len(self._kept) > 1 and (len(self._kept) > self.most or self._n_bytes() > self.most_bytes):
            self._kept.popitem(last=False)

    def _n_bytes(self) -> int:
        return sum(size for _, size in self._kept.values())


def size_of(thing: object) -> int:
    """Bytes of the arrays and tables in a dataclass, in a mapping, or in what those hold; what is worked out later is not counted."""
    if isinstance(thing, np.ndarray):
        return thing.nbytes + (sum(map(sys.getsizeof, thing.ravel())) if thing.dtype == object else 0)
    if isinstance(thing, pd.DataFrame):
        return int(thing.memory_usage(deep=True).sum())
    parts: Any = ()
    if isinstance(thing, Mapping):
        parts = thing.values()
    elif is_dataclass(thing):
        parts = [getattr(thing, field.name) for field in fields(thing)]
    return sum(map(size_of, parts))
