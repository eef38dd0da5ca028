"""Movie titles: from MovieLens' catalogue form to the way people write them, and to a form for comparing."""

from __future__ import annotations

import re
import unicodedata

_YEAR = re.compile(r"^(?P<name>.*?)\s*\((?P<year>(?:1[89]|20)\d\d)(?:[-–]\d{0,4})?\)\s*(?:\((?:[IVX]+|TV)\))?$")
_ARTICLES = (
    "The|A|An|"  # English
    "Le|La|Les|L'|Un|Une|Il|Lo|Gli|Gl'|Uno|Una|"  # French, Italian
    "El|Los|Las|O|Os|As|Um|Uma|"  # Spanish, Portuguese
    "Der|Die|Das|Ein|Eine|Den|Det|De|En|Et|Het|Een"  # German, Scandinavian, Dutch
)
_TRAILING_ARTICLE = re.compile(rf"^(?P<name>.+), (?P<article>{_ARTICLES})$")
_ALTERNATIVE = re.compile(r"\((a\.?k\.?a\.? )?([^()]*)\)")
_LETTERS = str.maketrans({"ø": "o", "æ": "ae", "œ": "oe", "ł": "l", "đ": "d", "ð": "d", "þ": "th"})


def parse_title(raw: str) -> tuple[str, int | None]:
    """Split a catalogue title into the title as people write it, and its year.

    Parameters
    ----------
    raw : str
        As in MovieLens: ``"Godfather, The (1972)"``.

    Returns
    -------
    (title, year)
        ``("The Godfather (1972)", 1972)``; the year is None where the title names none.
        Articles move to the front in alternative titles in brackets too.
    """
    text = " ".join(raw.split())
    found = _YEAR.match(text)
    name, year = (found["name"], int(found["year"])) if found else (text, None)
    name = _ALTERNATIVE.sub(lambda m: f"({m[1] or ''}{_article_first(m[2])})", _article_first(name))
    head, bracket, rest = name.partition(" (")
    name = _article_first(head) + bracket + rest
    return (f"{name} ({year})" if year else name), year


def _article_first(name: str) -> str:
    found = _TRAILING_ARTICLE.match(name)
    if not found:
        return name
    glue = "" if found["article"].endswith("'") else " "
    return found["article"] + glue + found["name"]


def fold(text: str) -> str:
    """Reduce text to lower-case words without accents or punctuation: ``"Les Misérables!"`` -> ``"les miserables"``."""
    plain = unicodedata.normalize("NFKD", text.casefold().translate(_LETTERS))
    plain = "".join(c for c in plain if not unicodedata.combining(c)).replace("'", "").replace("’", "")
    return " ".join(re.findall(r"\w+", plain.replace("&", " and ").replace("_", " ")))
