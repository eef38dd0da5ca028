"""How much memory is free, and refusing in time what would need more: a process that takes it is killed, not told."""

from __future__ import annotations

from pathlib import Path

from cfrec.errors import DataError


def free_memory() -> int:
    """Bytes that can still be used on this machine, or in this container."""
    import psutil

    free = int(psutil.virtual_memory().available)
    group = Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        reclaimable = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())["inactive_file"]
    except (OSError, ValueError, KeyError):  # no container, or one without a limit ("max")
        return free
    return min(free, limit - used + int(reclaimable))


def installed_memory() -> int:
    """Bytes of memory that this machine has, used or not."""
    import psutil

    return int(psutil.virtual_memory().total)


def check_fits(needed: int, what: str) -> None:
    """Raise DataError if reading this would take more bytes of memory than are free."""
    if needed > (free := free_memory()):
        raise DataError(
            f"{what} would need about {needed / 1e6:,.0f} MB of memory, and {max(free, 0) / 1e6:,.0f} MB are free. "
            "Use a smaller file, or close what else uses memory."
        )
