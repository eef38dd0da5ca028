"""Where training can run: which devices there are, why others are not, and what `auto` picks."""

from __future__ import annotations

import logging
import os
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

    cuda = [Device(f"cuda:{k}", torch.cuda.get_device_name(k)) for k in range(torch.cuda.device_count())]
    if not cuda:
        built = torch.version.cuda is not None
        reason = "no NVIDIA GPU, or its driver, was found" if built else "the installed PyTorch is built without CUDA"
        cuda = [Device("cuda", "NVIDIA GPU", reason)]
    mps = ""
    if not torch.backends.mps.is_available():
        built = torch.backends.mps.is_built()
        mps = "it needs an Apple chip and macOS 14 or later" if built else "the installed PyTorch is built without Apple's Metal"
    return [*cuda, Device("mps", "Apple GPU", mps), Device("cpu", "CPU")]


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
    chosen = next(
        (d for d in devices if wanted in (d.name, d.name.removesuffix(":0"))), Device(wanted, wanted, "there is none of that name")
    )
    if not chosen.available:
        listed = "; ".join(f"{d.name}: {d.reason or 'ready'}" for d in devices)
        raise DeviceError(f"The device {wanted!r} cannot be used: {chosen.reason}. Use auto, or one that is ready ({listed}).")
    return chosen


def cpu_threads(wanted: int, n_ratings: int) -> int:
    """How many CPU threads to train with: as many as wanted; at 0, all there are where that many ratings make them worth while."""
    return wanted or (os.cpu_count() or 1 if n_ratings > _RATINGS_FOR_THREADS else 1)
