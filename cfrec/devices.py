"""Where training can run: which devices there are, why others are not, and what `auto` picks."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from cfrec.errors import DeviceError

logger = logging.getLogger(__name__)

_RATINGS_FOR_THREADS = 300_000


@dataclass(frozen=True)
class Device:
    """A device by torch's name; ``reason`` says why it is not available (empty where it is)."""

    name: str
    label: str
    reason: str = ""

    @property
    def available(self) -> bool:
        """Whether training can run here."""
        return not self.reason


def list_devices() -> list[Device]:
    """All kinds of device, available or not, best first; each GPU by its own name."""
    import torch

    cuda = [_ask(k) for k in range(torch.cuda.device_count())]
    if not cuda:
        built = torch.version.cuda is not None
        reason = "no NVIDIA GPU, or its driver, was found" if built else "the installed PyTorch is built without CUDA"
        cuda = [Device("cuda", "NVIDIA GPU", reason)]
    mps = ""
    if not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        mps = "it needs an Apple chip and macOS 14 or later" if built else "the installed PyTorch is built without Apple's Metal"
    return [*cuda, Device("mps", "Apple GPU", mps), Device("cpu", "CPU")]


def _ask(k: int) -> Device:
    """The GPU of that number; one may be counted that has fallen off its bus, or that its driver has given up."""
    import torch

    try:
        return Device(f"cuda:{k}", torch.cuda.get_device_name(k))
    except RuntimeError as error:
        return Device(f"cuda:{k}", "NVIDIA GPU", f"it does not answer ({_first_line(error)})")


def _first_line(error: Exception) -> str:
    return str(error).partition("\n")[0].rstrip(".")


def choose_device(wanted: str = "auto") -> Device:
    """The device that a setting stands for.

    Parameters
    ----------
    wanted : str
        ``auto``: the first that is available, which is logged; ``cpu``; ``cuda`` (the first GPU) or ``cuda:n``; ``mps``.

    Raises
    ------
    DeviceError
        It is not known or not available: says why.
    """
    devices = list_devices()
    if wanted == "auto":
        chosen = next(d for d in devices if d.available)
        logger.info("device auto: using %s (%s)", chosen.name, chosen.label)
        return chosen
    chosen = next((d for d in devices if wanted in (d.name, d.name.removesuffix(":0"))), Device(wanted, wanted, "no device has that name"))
    if not chosen.available:
        listed = "; ".join(f"{d.name}: {d.reason or 'ready'}" for d in devices)
        raise DeviceError(f"The device {wanted!r} cannot be used: {chosen.reason}. Use auto, or one that is ready ({listed}).")
    return chosen


@contextmanager
def failures_named(device: str) -> Iterator[None]:
    """Tell what torch raises when a GPU goes away, or there is no room, from any other error. Raises DeviceError, MemoryError."""
    try:
        yield
    except RuntimeError as error:
        if device != "cpu":
            raise DeviceError(f"The device {device} failed: {_first_line(error)}. Train on the CPU, or again when it is back.") from error
        if "allocate memory" in str(error):
            raise MemoryError(_first_line(error)) from error
        raise


def cpu_threads(wanted: int, n_ratings: int) -> int:
    """How many CPU threads to train with: as many as wanted; at 0, all there are where that many ratings make them worth while."""
    return wanted or (os.cpu_count() or 1 if n_ratings > _RATINGS_FOR_THREADS else 1)
