"""Whatever is given for an argument, public functions raise a CfrecError that says what they want."""

import inspect
import re
from pathlib import Path

import pandas as pd
import pytest

import cfrec

WRONG = {
    "None": lambda: None,
    "text": lambda: "x",
    "number": lambda: 3,
    "fraction": lambda: 2.5,
    "table": lambda: pd.DataFrame({"a": [1]}),
    "path": lambda: Path("x"),
    "list": lambda: [[1]],
    "dictionary": lambda: {"x": "y"},
}
MODEL, RATINGS, CONFIG = "a trained model, which train", "ratings, which read_ratings", "training settings, such as"
MOVIE, USER, WHOLE, NUMBER, TEXT = "no movie with the id", "no user with the id", "a whole number", "a number", "a text"
FOLDER = "the path of a folder"
RIGHT = {
    MODEL: {"model"},
    RATINGS: {"ratings"},
    USER: {"number"},
    WHOLE: {"number"},
    NUMBER: {"number", "fraction"},
    TEXT: {"text"},
    FOLDER: {"text", "path"},
}
# function -> argument -> what the message says
ARGUMENTS = {
    cfrec.cross_validate: {"ratings": RATINGS, "config": CONFIG, "n_folds": WHOLE},
    cfrec.delete_model: {"folder": f"{FOLDER}|no model in"},
    cfrec.evaluate: {"trained": MODEL, "ratings": RATINGS},
    cfrec.explain_prediction: {"trained": MODEL, "user_id": USER, "movie_id": MOVIE},
    cfrec.list_models: {"folder": FOLDER},
    cfrec.load_dataset: {"name": f"{TEXT}|no data set"},
    cfrec.load_model: {"folder": f"{FOLDER}|no model in"},
    cfrec.mean_rating_histogram: {"trained": MODEL, "step": NUMBER},
    cfrec.movie_biases: {"trained": MODEL, "min_ratings": WHOLE, "genre": TEXT, "years": r"two numbers, such as \(1990, 1999\)"},
    cfrec.predict_ratings: {"trained": MODEL, "user_ids": f"a list of ids|do not make pairs|{USER}", "movie_ids": f"a list of ids|{MOVIE}"},
    cfrec.project_factors: {"trained": MODEL, "n_components": WHOLE},
    cfrec.recommend: {"trained": MODEL, "stars": "a dictionary of movie ids and stars", "k": WHOLE, "loved": NUMBER},
    cfrec.save_model: {"trained": MODEL, "folder": FOLDER, "resumable": "True or False"},
    cfrec.search_movies: {"trained": MODEL, "text": TEXT, "k": WHOLE},
    cfrec.similar_movies: {"trained": MODEL, "movie_id": MOVIE, "k": WHOLE},
    cfrec.train: {"train": RATINGS, "valid": RATINGS, "config": CONFIG, "on_epoch": "a function", "resume": MODEL},
}
CASES = [
    (function, name, wrong)
    for function, names in ARGUMENTS.items()
    for name, wanted in names.items()
    for wrong in [*WRONG, "model", "ratings"]
    if wrong not in RIGHT.get(wanted, ()) and not (wrong == "None" and inspect.signature(function).parameters[name].default is None)
]


def test_every_public_function_is_tried():
    public = {value for name in cfrec.__all__ if inspect.isfunction(value := getattr(cfrec, name))}
    assert ARGUMENTS.keys() == public - {cfrec.read_ratings}  # which test_readers tries


@pytest.fixture
def good(trained, blocks, block_config, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    train, valid = blocks.split()
    return {
        **{"trained": trained, "ratings": blocks, "config": block_config, "train": train, "valid": valid, "folder": tmp_path / "m"},
        **{"name": "ml-100k", "user_id": 1, "movie_id": 100, "user_ids": [1], "movie_ids": [100], "stars": {100: 5.0}, "text": "film"},
    }


@pytest.mark.parametrize(("function", "name", "wrong"), CASES, ids=lambda case: getattr(case, "__name__", case))
def test_the_wrong_kind_of_thing_is_refused_in_words(function, name, wrong, good):
    value = {**WRONG, "model": lambda: good["trained"], "ratings": lambda: good["ratings"]}[wrong]()
    given = {key: value for key, value in good.items() if key in inspect.signature(function).parameters} | {name: value}
    with pytest.raises(cfrec.CfrecError) as caught:
        function(**given)
    assert re.search(ARGUMENTS[function][name], str(caught.value))
    assert "\n" not in str(caught.value)
