"""Formats written by earlier versions keep loading, bit-identical to what the code that wrote them read."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cfrec
from cfrec.packing import pack_model, unpack_model

MODELS = Path("tests/fixtures/models")
KNOWN = json.loads((MODELS / "known.json").read_text())
FORMATS = sorted(KNOWN["models"])


def short_hash(array):
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()[:16]


def without_likeness(arrays):
    """A second block of movie factors, which is dropped as it is read: it was never part of the network."""
    return {name: array for name, array in arrays.items() if name != "movie_likeness"}


def assert_known(model, known):
    assert {name: short_hash(array) for name, array in model.weights().items()} == without_likeness(known["arrays"])
    assert model.user_ids.tolist() == KNOWN["users"]
    columns = ["movie_id", "title", "year", "genres", "n_ratings", "mean_rating"]
    rows = [[None if cell is pd.NA else cell for cell in row] for row in model.movies[columns].astype(object).to_numpy().tolist()]
    assert [[*row[:5], round(float(row[5]), 6)] for row in rows] == KNOWN["movies"]
    assert model.predict_rows(np.array([0, 3, 19]), np.array([1, 5, 13])).tolist() == pytest.approx(known["predicted"], rel=1e-6)
    assert (model.offset, model.n_train, model.created) == (known["offset"], known["n_train"], known["created"])
    assert model.history[-1].valid_loss == known["last_loss"]


@pytest.mark.parametrize("name", FORMATS)
def test_a_model_of_each_format_loads_bit_identical_to_what_was_saved(name):
    model, known = cfrec.load_model(MODELS / name), KNOWN["models"][name]
    assert_known(model, known)
    assert {key: short_hash(array) for key, array in model.state.arrays.items()} == known["state"]
    assert model.fingerprint == 4069347168  # the same ratings, so that they can be compared
    assert model.config.method == ("adam" if name < "3" else "gibbs")  # the successor of sgd
    assert model.config.choice_weight == 0
    assert model.user_choice is model.movie_traits is None


def test_every_format_is_among_them():
    assert [entry.name for entry in cfrec.list_models(MODELS)] == FORMATS
    assert not any(entry.problem for entry in cfrec.list_models(MODELS))
    manifests = [json.loads((MODELS / name / "manifest.json").read_text()) for name in FORMATS]
    assert ["sha256" in m for m in manifests] == ["fingerprint" in m for m in manifests] == [False, True, True, True]
    assert ["method" in m["config"] for m in manifests] == [False, False, True, True]
    assert ["n_likeness" in m["shapes"] for m in manifests] == [False, False, False, True]


@pytest.mark.parametrize("name", FORMATS)
def test_it_is_the_same_when_it_is_stored_or_packed_anew(name, tmp_path):
    model, known = cfrec.load_model(MODELS / name), KNOWN["models"][name]
    assert_known(cfrec.load_model(cfrec.save_model(model, tmp_path / name, resumable=True)), known)
    assert_known(unpack_model(pack_model(model)), known)


@pytest.mark.parametrize("name", FORMATS)
def test_a_format_with_one_other_bit_is_told_apart(name, tmp_path):
    """Negative control: the comparison above sees the last bit of one weight, and loading refuses it."""
    model = cfrec.load_model(MODELS / name)
    bits = model.movie_bias.copy().view(np.uint32)
    bits[0] ^= 1
    object.__setattr__(model, "movie_bias", bits.view(np.float32))
    with pytest.raises(AssertionError):
        assert_known(model, KNOWN["models"][name])
    damaged = shutil.copytree(MODELS / name, tmp_path / name)
    data = (damaged / "weights.safetensors").read_bytes()
    (damaged / "weights.safetensors").write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    with pytest.raises(cfrec.CfrecError, match=r"weights\.safetensors does not have its SHA-256"):
        cfrec.load_model(damaged)
