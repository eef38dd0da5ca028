import psutil
import pytest

from cfrec import memory
from cfrec.errors import DataError


def test_free_memory_is_what_the_machine_has_at_most():
    assert 0 < memory.free_memory() <= psutil.virtual_memory().total


def test_the_limit_of_a_container_counts(monkeypatch, tmp_path):
    group = tmp_path / "cgroup"
    group.mkdir()
    for name, text in {"memory.max": "5000\n", "memory.current": "4000\n", "memory.stat": "anon 9\ninactive_file 300\n"}.items():
        (group / name).write_text(text)
    monkeypatch.setattr(memory, "Path", lambda _: group)
    assert memory.free_memory() == 5000 - 4000 + 300
    (group / "memory.max").write_text("max\n")
    assert memory.free_memory() > 5000


def test_what_does_not_fit_is_refused_with_figures_and_advice(monkeypatch):
    monkeypatch.setattr(memory, "free_memory", lambda: 2_000_000)
    memory.check_fits(2_000_000, "x.csv")
    with pytest.raises(DataError, match=r"x\.csv would need about 3 MB of memory, and 2 MB are free\. Use a smaller file"):
        memory.check_fits(3_000_000, "x.csv")
