"""What a file says about itself: what was read as what, what was left out, and what looks odd."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True)
class ColumnUse:
    """What a column was taken for: ``role`` is empty where it is not used; ``found`` is by name, given, or a guess."""

    name: str
    role: str
    found: str = "name"


@dataclass(frozen=True)
class Note:
    """Something to know before these ratings are used, the arguments of ``read_ratings`` that would change it, and how to give them."""

    kind: str
    text: str
    change: Mapping[str, Any] = field(default_factory=dict)
    odd: bool = True  # whether it may mean that something was misread
    hint: str = ""


@dataclass(frozen=True)
class ReadReport:
    """What became of every row read: ``n_rows == n_used + n_dropped + n_duplicates``.

    Attributes
    ----------
    reasons : mapping
        Rule -> rows dropped for it.
    columns : tuple of ColumnUse
        In the order of the file.
    notes : tuple of Note
        What was done beyond reading numbers, and what looks odd.
    """

    n_rows: int
    n_used: int
    n_dropped: int = 0
    n_duplicates: int = 0
    reasons: Mapping[str, int] = field(default_factory=dict)
    columns: tuple[ColumnUse, ...] = ()
    notes: tuple[Note, ...] = ()

    @property
    def taken(self) -> str:
        """What each column was taken for, in a line; empty where nothing is known of columns."""
        used = [f"{column.role} from {column.name}" for column in self.columns if column.role]
        return "Taken: " + ", ".join(used) + "." if used else ""

    def lines(self) -> list[str]:
        """The report as lines of text."""
        lines = [self.taken] if self.taken else []
        if self.n_rows > self.n_used:
            lines.append(f"Of {self.n_rows:,} rows {self.n_used:,} are used; {self.n_duplicates:,} rated again, {self.n_dropped:,} bad.")
        lines += [f"  {count:,} × {reason}" for reason, count in self.reasons.items()]
        return lines + [f"{note.text} {note.hint}".strip() for note in self.notes]

    def to_json(self) -> str:
        """The report as one JSON document."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> ReadReport:
        """The report that ``to_json`` wrote. Raises ValueError, TypeError or KeyError where it did not."""
        fields = json.loads(text)
        columns = tuple(ColumnUse(**entry) for entry in fields.pop("columns"))
        notes = tuple(Note(**entry) for entry in fields.pop("notes"))
        return cls(**fields, columns=columns, notes=notes)
