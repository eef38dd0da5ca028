"""Kernels compiled to machine code by Numba, kept from one process to the next; and what to do where Numba cannot be loaded."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable
from functools import cache
from types import ModuleType
from typing import TypeVar, cast

logger = logging.getLogger(__name__)
Kernel = TypeVar("Kernel", bound=Callable[..., object])

# Sums may be reordered, so that they use all lanes; but infinities and NaNs stay what they are: a diverged run is told by them.
_FAST_MATH = {"reassoc", "contract", "arcp", "nsz"}


def compiled(function: Kernel) -> Kernel:
    """Compile a function on its first call; it holds no lock of the interpreter while it runs, and checks no bounds."""
    return _compile(function, part=False)


def compiled_within(function: Kernel) -> Kernel:
    """Like ``compiled``, for what only compiled functions call: it becomes a part of each of them.

    Left apart, it would be there twice, optimised for itself and again for its caller, and the two round differently: which of them runs
    would depend on whether this process has compiled the caller or an earlier one, and so would the last bits of a result.
    """
    return _compile(function, part=True)


def _compile(function: Kernel, *, part: bool) -> Kernel:
    from numba import njit

    compile_it = njit(cache=not part, forceinline=part, nogil=True, fastmath=_FAST_MATH, error_model="numpy", boundscheck=False)
    return cast(Kernel, compile_it(function))


@cache
def load_kernels(module: str) -> ModuleType | None:
    """A module of cfrec whose functions are compiled; None, with a line in the log, where Numba cannot be loaded."""
    try:
        return importlib.import_module(f"cfrec.{module}")
    except (ImportError, OSError, RuntimeError) as error:  # no wheel for this machine; a library that is missing or refused
        logger.warning("compiled code cannot be used, so this is slower: %s", error)
        return None
