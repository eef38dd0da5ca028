"""Runs that PyTorch computes: they set the number of its CPU threads, and name the device that fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Event

import torch

from cfrec.config import TrainConfig
from cfrec.devices import cpu_threads, failures_named
from cfrec.fitting import OnEpoch, Run
from cfrec.ratings import Ratings


@contextmanager
def use_threads(n: int) -> Iterator[None]:
    """Let torch use n CPU threads for calls from this thread, and restore their number afterwards."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class TorchRun(Run):
    """A run computed by torch, with ``config.n_threads`` CPU threads."""

    def __init__(self, train: Ratings, valid: Ratings, config: TrainConfig, device: str) -> None:
        super().__init__(train, valid, config, device)
        self.n_threads = cpu_threads(config.n_threads, len(train))

    def fit(self, on_epoch: OnEpoch, stop: Event, pause: Event) -> tuple[str, str]:
        """Run the epochs; returns (outcome, advice)."""
        with use_threads(self.n_threads), failures_named(self.device):
            return super().fit(on_epoch, stop, pause)

    def time_epoch(self, epoch: int) -> float:
        """Train one epoch and wait for the device; returns the seconds it took."""
        with use_threads(self.n_threads), failures_named(self.device):
            return super().time_epoch(epoch)
