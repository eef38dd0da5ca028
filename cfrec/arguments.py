"""Arguments of the wrong kind are refused in words: the folder of a model is easily given for the model."""

from __future__ import annotations

import functools
import inspect
import os
import reprlib
from collections.abc import Callable, Collection, Mapping, Sequence
from itertools import chain
from numbers import Integral, Real
from pathlib import Path
from types import UnionType
from typing import Any, ParamSpec, TypeVar, Union, get_args, get_origin, get_type_hints

from cfrec.errors import CfrecError, ConfigError, DataError, ModelError

P = ParamSpec("P")
T = TypeVar("T")

_WORDS = {  # the name of a type -> what is wanted
    "TrainedModel": "a trained model, which train() and load_model() return",
    "Ratings": "ratings, which read_ratings(), load_dataset() and Ratings.split() return",
    "TrainConfig": 'training settings, such as TrainConfig.preset("quick")',
    "Sequence": "a list of ids",
    "Mapping": "a dictionary of movie ids and stars, such as {50: 4.5}",
    "tuple": "two numbers, such as (1990, 1999)",
    "Callable": "a function",
    "Path": "the path of a folder",
    "Event": "a threading.Event",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "True or False",
}
_ERRORS: dict[str, type[CfrecError]] = {"TrainedModel": ModelError, "Ratings": DataError}  # all others are ConfigErrors
_WIDER: dict[type, type] = {int: Integral, float: Real, Path: os.PathLike}  # NumPy's numbers are numbers too


def checked(function: Callable[P, T]) -> Callable[P, T]:
    """Compare the arguments of each call with the function's annotations; the call raises a CfrecError where one does not fit."""
    names, kinds = tuple(inspect.signature(function).parameters), get_type_hints(function)

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        for name, value in chain(zip(names, args, strict=False), kwargs.items()):  # Python itself refuses too many arguments
            if name in kinds and not _fits(value, kinds[name]):
                raise _refusal(name, value, kinds[name])
        return function(*args, **kwargs)

    return call


def _fits(value: object, kind: Any) -> bool:
    origin, parts = get_origin(kind) or kind, get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(value, part) for part in parts)
    if origin is Sequence:  # or an array, or a column of a table
        return isinstance(value, Collection) and not isinstance(value, str | bytes | Mapping) and getattr(value, "ndim", 1) == 1
    if origin is Mapping:
        return isinstance(value, Mapping) and all(_fits(key, parts[0]) and _fits(each, parts[1]) for key, each in value.items())
    if origin is tuple:
        return isinstance(value, tuple | list) and len(value) == len(parts) and all(map(_fits, value, parts))
    return isinstance(value, _WIDER.get(origin, origin))


def _refusal(name: str, value: object, kind: Any) -> CfrecError:
    wanted = [part for part in get_args(kind) if part is not type(None)][-1] if get_origin(kind) in (Union, UnionType) else kind
    type_name = (get_origin(wanted) or wanted).__name__
    given = " ".join(reprlib.repr(value).split()) if type(value).__module__ == "builtins" else f"a {type(value).__name__}"
    return _ERRORS.get(type_name, ConfigError)(f"{name} must be {_WORDS.get(type_name, type_name)}, not {given}.")
