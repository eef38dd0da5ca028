"""The errors cfrec raises. Each message says what is wrong and what to do next."""


class CfrecError(Exception):
    """Base of every error that cfrec raises on purpose."""


class DataError(CfrecError):
    """A file of ratings or movies cannot be used as it is."""


class ColumnsError(DataError):
    """It is not clear which column is which; ``problem`` is the message without how to say it, ``found`` role -> column (from 0)."""

    def __init__(self, problem: str, how: str, found: dict[str, int] | None = None) -> None:
        super().__init__(f"{problem} {how}")
        self.problem, self.found = problem, found or {}


class DownloadError(CfrecError):
    """A data set could not be downloaded from any of its sources."""


class ConfigError(CfrecError):
    """A setting or argument is out of range, of the wrong type, or needs more memory than is free."""


class DeviceError(CfrecError):
    """The device asked for is not there."""


class ModelError(CfrecError):
    """A stored model is missing, damaged or from another version."""


class ShortageError(ModelError):
    """A stored model cannot be read now: too little memory is free, or too many files are open."""


class NotFoundError(CfrecError):
    """A movie, user or title is not in the model."""


class BusyError(CfrecError):
    """There is no room for another run now."""
