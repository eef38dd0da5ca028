"""How often a promise is tested: a sample in every run, the full count under ``pytest -m stress``."""

import pytest


def counted(*, sample: int, full: int) -> pytest.MarkDecorator:
    """Give a test the argument ``n``: the sample, and in a run of its own the full count."""
    return pytest.mark.parametrize("n", [sample, pytest.param(full, marks=pytest.mark.stress)])
