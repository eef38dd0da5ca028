"""The manifest of a stored model: what it must hold to be believed. Nothing is opened or allocated before it passed.

It holds the SHA-256 of itself and of each other file: a damaged weights file often parses without an error.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from cfrec.config import TrainConfig
from cfrec.errors import CfrecError, ModelError
from cfrec.ratings import Source
from cfrec.trained import EpochMetrics

FORMAT_VERSION = 2  # written; 1, which is read too, had movie_likeness in place of user_choice and movie_traits
_READ = (1, FORMAT_VERSION)
MANIFEST, WEIGHTS, MOVIES, USERS, STATE = "manifest.json", "weights.safetensors", "movies.csv", "users.csv", "state.safetensors"
ALWAYS = {WEIGHTS, MOVIES, USERS}  # the files beside the manifest
LARGEST_MANIFEST = 512 << 10  # bytes: one of a thousand epochs, the most there are, takes 220 KB
LARGEST_HEADER = 64 << 10  # bytes: a giant safetensors header can take minutes and gigabytes to parse
PLAIN = {  # fields of TrainedModel that the manifest holds as they are
    **dict.fromkeys(("best_epoch", "n_train", "n_valid", "fingerprint"), int),
    **dict.fromkeys(("fit_seconds", "offset"), float),
    **dict.fromkeys(("outcome", "advice", "device", "created"), str),
}
_MOST_VALUES = 20_000  # in a manifest: a thousand epochs have 6,000
_MOST_STARS = 1e6  # either way: far beyond any scale, and far from where numbers overflow
_LONGEST_TEXT = 10_000  # characters
_STATE = 7  # copies of the weights that a resumable run stores, at most: last, best, and what its method remembers
_LARGEST_ROW = 4 << 10  # bytes of CSV


def seal(manifest: Mapping[str, Any]) -> bytes:
    """The bytes of a manifest, with its own SHA-256. Raises ValueError for what JSON cannot hold."""
    return json.dumps({**manifest, "sha256": _own_hash(manifest)}, indent=1, allow_nan=False).encode()


def _own_hash(manifest: Mapping[str, Any]) -> str:
    canonical = json.dumps({k: v for k, v in manifest.items() if k != "sha256"}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def read_manifest(data: bytes) -> dict[str, Any]:
    """Parse a manifest and check it by itself; what earlier versions left out is filled in. Raises ModelError, which says what is wrong."""
    if len(data) > LARGEST_MANIFEST or sum(map(data.count, (b",", b"[", b"{"))) > _MOST_VALUES:
        raise ModelError("its manifest is too large")
    try:
        manifest = json.loads(data.decode(), parse_constant=_refuse_constant)
        version = manifest["format_version"]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ModelError("its manifest cannot be read") from error
    if version not in _READ:
        known = " and ".join(map(str, _READ))
        raise ModelError(f"it has format version {version!r:.20} and this cfrec reads {known}: another version of cfrec is needed")
    try:
        manifest = _check_seal(manifest)
        _check_files(manifest)
        return manifest | {"config": read_facts(manifest)["config"].to_dict()}
    except (CfrecError, KeyError, TypeError, ValueError, AttributeError, OverflowError, IndexError, RecursionError) as error:
        raise ModelError(str(error) if isinstance(error, ModelError) else f"its manifest is not a model's ({reason(error)})") from error


def reason(error: Exception) -> str:
    """What an error says, as a page can show it: short, and without the halves of characters that JSON can hold."""
    return str(error)[:200].encode(errors="backslashreplace").decode()


def _check_seal(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest, if its own checksum is right. Those of the first models had none, and no fingerprint, which they are given."""
    own = _own_hash(manifest)
    later = {"sha256", "fingerprint"} & manifest.keys() or "n_likeness" in manifest["shapes"] or "method" in manifest["config"]
    newer = manifest["format_version"] > 1 or later
    if newer and manifest.get("sha256") != own:
        raise ModelError("its manifest does not have its SHA-256")
    if newer:
        return dict(manifest)
    of_ratings = (manifest["state"] or {}).get("fingerprint", int(own[:8], 16))  # a random one is no other model's
    return {**manifest, "fingerprint": of_ratings}


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not a number")


def _check_files(manifest: Mapping[str, Any]) -> None:
    """Which files there are, and each as large as its contents can be: checked before any is opened."""
    shapes, files = manifest["shapes"], manifest["files"]
    if 0 in (as_count(shapes[name]) for name in ("n_users", "n_movies", "n_factors")):
        raise ModelError("it knows no users, no movies or no factors")
    n_users, n_movies, n_factors = (shapes[name] for name in ("n_users", "n_movies", "n_factors"))
    weights = 4 * sum(map(math.prod, weight_shapes(shapes).values()))
    limits = {  # at least, at most
        WEIGHTS: (weights, weights + 8 + LARGEST_HEADER),
        STATE: (8, _STATE * (weights + 8 * (n_users + n_movies + (n_factors + 1) ** 2) + 8 + LARGEST_HEADER)),
        MOVIES: (2 * n_movies, _LARGEST_ROW * (n_movies + 1)),
        USERS: (2 * n_users, _LARGEST_ROW * (n_users + 1)),
    }
    if not ALWAYS <= files.keys() <= limits.keys() or (STATE in files) != (manifest["state"] is not None):
        raise ModelError("its manifest does not list the files of a model")
    for name, entry in files.items():
        least, most = limits[name]
        if not least <= as_count(entry["bytes"]) <= most or not isinstance(entry["sha256"], str):
            raise ModelError(f"{name} is larger or smaller than a model of its shape can be")


def weight_shapes(shapes: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the arrays in the file of weights, by what a manifest counts. Raises ModelError for what is no count."""
    n_users, n_movies, n_factors = (as_count(shapes[name]) for name in ("n_users", "n_movies", "n_factors"))
    wanted: dict[str, tuple[int, ...]] = {
        "user_factors": (n_users, n_factors),
        "user_bias": (n_users,),
        "movie_factors": (n_movies, n_factors),
        "movie_bias": (n_movies,),
    }
    if "n_traits" in shapes:  # of models that learned from who rated what too
        n_traits = as_count(shapes["n_traits"])
        wanted |= {"user_choice": (n_users, n_factors + n_traits), "movie_traits": (n_movies, n_traits)}
    if n_likeness := as_count(shapes.get("n_likeness", 0)):  # in format 1; no longer used
        wanted["movie_likeness"] = (n_movies, n_likeness)
    return wanted


def check_file(manifest: Mapping[str, Any], name: str, data: bytes) -> None:
    """Raise ModelError unless the manifest vouches for these bytes."""
    if hashlib.sha256(data).hexdigest() != manifest["files"][name]["sha256"]:
        raise ModelError(f"{name} does not have its SHA-256")


def read_facts(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a TrainedModel has besides arrays and tables, each of its type and finite."""
    low, high = map(_number, manifest["y_range"])
    lowest, highest, step = map(_number, manifest["scale"])
    if not (-_MOST_STARS < low < high < _MOST_STARS and -_MOST_STARS < lowest <= highest < _MOST_STARS and 0 < step < _MOST_STARS):
        raise ModelError("its ranges of stars are not ranges")
    fraction, seed = manifest["split"] or (None, None)
    config = TrainConfig.from_dict(_settings(manifest))
    _text(config.recipe)
    checks = {int: as_count, float: _number, str: _text}
    return {
        "y_range": (low, high),
        "scale": (lowest, highest, step),
        "source": Source(**{name: _text(value) for name, value in manifest["dataset"].items()}),
        "config": config,
        "history": [_epoch(entry) for entry in manifest["history"]],
        "metrics": {name: _number(manifest["metrics"][name]) for name in ("mse", "rmse", "mae")},
        "split": None if fraction is None else (_number(fraction), as_count(seed)),
        **{name: checks[kind](manifest[name]) for name, kind in PLAIN.items()},
    }


def _settings(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The settings by the names of today. Models of format 1 learned their factors from the stars alone, the first ones by adam."""
    settings = dict(manifest["config"])
    if manifest["format_version"] > 1:
        return settings
    settings.pop("n_likeness", None)
    if settings.get("method") == "sgd":  # what is learned in compiled code now
        settings["method"] = "gibbs"
    return {"method": "adam", "choice_weight": 0.0} | settings


def _epoch(entry: Mapping[str, Any]) -> EpochMetrics:
    epoch, *rest = (entry[field.name] for field in fields(EpochMetrics))
    return EpochMetrics(as_count(epoch), *map(_number, rest))


def _number(value: object) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):  # type: ignore[arg-type]  # the first test sees to it
        raise ModelError(f"{value!r:.40} stands where a number should")
    return value  # type: ignore[return-value]


def _integer(value: object) -> int:
    if type(value) is not int:
        raise ModelError(f"{value!r:.40} stands where a whole number should")
    return value


def as_count(value: object) -> int:
    """A value of a manifest, if it is a whole number that can count something. Raises ModelError."""
    if not 0 <= _integer(value) < 2**40:
        raise ModelError(f"{value!r:.40} stands where a count should")
    return _integer(value)


def _text(value: object) -> str:
    if type(value) is not str or len(value) > _LONGEST_TEXT:
        raise ModelError(f"{value!r:.40} stands where text should")
    value.encode()  # a ValueError for half a character, which no page could show
    return value
