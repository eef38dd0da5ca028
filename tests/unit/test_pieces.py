import hashlib
import sys

import numpy as np
import pytest

from cfrec import pieces
from cfrec.pieces import for_each, hash_file, map_file, pays_to_compile, slices


def test_results_come_in_order_and_the_first_error_is_raised():
    assert for_each(lambda k: k * k, range(50)) == [k * k for k in range(50)]
    with pytest.raises(ZeroDivisionError):
        for_each(lambda k: 1 // k, [1, 0, 2])


def test_slices_cover_everything_once():
    assert slices(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert slices(0, 3) == [slice(0, 0)]


def test_a_mapped_file_is_its_bytes_and_cannot_be_written(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")
    data = map_file(tmp_path / "f")
    assert data.tobytes() == b"abc"
    assert not data.flags.writeable


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 25])
def test_the_hash_is_that_of_the_hashes_of_the_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr(pieces, "_PIECE", 10)
    monkeypatch.setattr(pieces, "_BLOCK", 4)
    data = np.arange(size, dtype=np.uint8).tobytes()
    (tmp_path / "f").write_bytes(data)
    parts = [data[k : k + 10] for k in range(0, max(size, 1), 10)]
    wanted = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    assert hash_file(tmp_path / "f") == hash_file(tmp_path / "f", in_threads=False) == wanted


def test_more_is_needed_to_load_numba_than_to_use_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "numba", sys)
    assert pays_to_compile(10, 10)
    assert not pays_to_compile(9, 10)
    monkeypatch.delitem(sys.modules, "numba")
    assert not pays_to_compile(29, 10)
    assert pays_to_compile(30, 10)
