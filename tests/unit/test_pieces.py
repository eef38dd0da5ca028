import hashlib

import numpy as np
import pytest

from cfrec import pieces
from cfrec.pieces import for_each, hash_file, slices


def test_results_come_in_order_and_the_first_error_is_raised():
    assert for_each(lambda k: k * k, range(50)) == [k * k for k in range(50)]
    with pytest.raises(ZeroDivisionError):
        for_each(lambda k: 1 // k, [1, 0, 2])


def test_slices_cover_everything_once():
    assert slices(7, 3) == [slice(0, 3), slice(3, 6), slice(6, 7)]
    assert slices(0, 3) == [slice(0, 0)]


@pytest.mark.parametrize("size", [0, 1, 9, 10, 11, 25])
def test_the_hash_is_that_of_the_hashes_of_the_pieces(tmp_path, monkeypatch, size):
    monkeypatch.setattr(pieces, "_PIECE", 10)
    monkeypatch.setattr(pieces, "_BLOCK", 4)
    data = np.arange(size, dtype=np.uint8).tobytes()
    (tmp_path / "f").write_bytes(data)
    parts = [data[k : k + 10] for k in range(0, max(size, 1), 10)]
    wanted = hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()
    assert hash_file(tmp_path / "f") == hash_file(tmp_path / "f", in_threads=False) == wanted
