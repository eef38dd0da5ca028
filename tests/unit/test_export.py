from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from cfrec.errors import CfrecError, ConfigError
from cfrec.export import export_model, spreadsheet_safe


def test_projector_files_match_row_by_row(trained, tmp_path):
    vectors, metadata = export_model(trained, "projector", tmp_path)
    assert np.loadtxt(vectors, delimiter="\t") == pytest.approx(trained.movie_factors, abs=1e-6)
    table = pd.read_csv(metadata, sep="\t")
    assert table["title"].tolist() == trained.movies["title"].tolist()
    assert table["bias"].to_numpy() == pytest.approx(trained.movie_bias, abs=1e-6)


def test_csv_files_hold_the_whole_model(trained, tmp_path):
    paths = {path.name: pd.read_csv(path) for path in export_model(trained, "csv", tmp_path / "new")}
    assert paths["movies.csv"]["movie_id"].tolist() == trained.movies["movie_id"].tolist()
    assert paths["users.csv"]["bias"].to_numpy() == pytest.approx(trained.user_bias, abs=1e-6)
    assert paths["movie_factors.csv"].drop(columns="movie_id").to_numpy() == pytest.approx(trained.movie_factors, abs=1e-6)
    assert paths["user_factors.csv"].drop(columns="user_id").to_numpy() == pytest.approx(trained.user_factors, abs=1e-6)


def test_no_cell_runs_as_a_formula():
    table = spreadsheet_safe(pd.DataFrame({"title": ["=1+1", "+x", "-x", "@x", "\tx", "a=b", "é"], "n": [-1, 2, 3, 4, 5, 6, 7]}))
    assert table["title"].tolist() == ["'=1+1", "'+x", "'-x", "'@x", "'\tx", "a=b", "é"]
    assert table["n"].tolist() == [-1, 2, 3, 4, 5, 6, 7]


def test_the_map_is_one_page_that_needs_no_network(trained, tmp_path):
    (page,) = export_model(trained, "html", tmp_path)
    html = page.read_text()
    assert "Block 2 film 35" in html
    assert "<script src" not in html


def test_refusals(trained, tmp_path):
    with pytest.raises(ConfigError, match="no export format 'pdf'"):
        export_model(trained, "pdf", tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(CfrecError, match="Could not write"):
        export_model(trained, "csv", tmp_path / "file")


def test_rows_are_a_table_too():
    assert spreadsheet_safe([{"word": "=1", "n": 1}, {"word": "b", "n": 2}]).values.tolist() == [["'=1", 1], ["b", 2]]


def test_the_projector_s_titles_have_no_quotation_marks_but_their_own(trained, tmp_path):
    """That format has no quoting; every such title had three of them at its beginning."""
    titles = trained.movies["title"].where(trained.movies.index > 1, ['"Crocodile" Dundee', 'a "b"\tc\r\nd', *trained.movies["title"][2:]])
    _, metadata = export_model(replace(trained, movies=trained.movies.assign(title=titles)), "projector", tmp_path)
    lines = metadata.read_text().splitlines()
    assert [line.split("\t")[0] for line in lines[1:3]] == ['"Crocodile" Dundee', 'a "b" c d']
    assert {line.count("\t") for line in lines} == {6}
