import logging
import os
import subprocess
import sys

import numpy as np
import pytest

from cfrec.compiled import compiled, load_kernels


@compiled
def total(values):
    found = 0.0
    for value in values:
        found += value
    return found


def test_a_compiled_function_computes_what_it_says():
    assert total(np.array([1.0, 2.5, 4.0])) == 7.5
    assert np.isnan(total(np.array([1.0, np.nan])))


def test_kernels_are_loaded_once():
    kernels = load_kernels("kernels")
    assert kernels is not None
    assert kernels is load_kernels("kernels")


def test_without_numba_there_are_no_kernels_but_a_line_in_the_log(monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "numba", None)
    monkeypatch.delitem(sys.modules, "cfrec.kernels", raising=False)
    with caplog.at_level(logging.WARNING):
        assert load_kernels.__wrapped__("kernels") is None
    assert "compiled code cannot be used" in caplog.text


def test_small_files_are_read_without_numba(tmp_path):
    """It takes 0.4 s to load: a first page must not wait for it."""
    (tmp_path / "r.csv").write_text("user,item,rating\n1,2,3\n1,3,4\n")
    program = "import sys, cfrec; assert len(cfrec.read_ratings(sys.argv[1])) == 2; assert 'numba' not in sys.modules"
    subprocess.run([sys.executable, "-c", program, str(tmp_path / "r.csv")], check=True)


@pytest.mark.slow
def test_a_process_that_compiles_and_one_that_need_not_get_the_same_bits(tmp_path):
    program = """
import hashlib, cfrec
from cfrec import kernels
from tests.conftest import make_blocks
config = cfrec.TrainConfig.preset("quick", n_factors=4, choice_weight=0.5, epochs=10, device="cpu")
trained = cfrec.train(*make_blocks().split(), config)
print(sum(kernels.solve_rows.stats.cache_hits.values()), hashlib.sha256(trained.movie_factors.tobytes()).hexdigest())
"""
    environment = os.environ | {"NUMBA_CACHE_DIR": str(tmp_path)}
    runs = [subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True) for _ in range(2)]
    (n_found, bits), (n_found_again, bits_again) = (run.stdout.split() for run in runs)
    assert (n_found, n_found_again) == ("0", "1")
    assert bits == bits_again
