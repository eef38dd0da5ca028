"""What looks odd about ratings that were read, and what cannot be true of them."""

from __future__ import annotations

import numpy as np

from cfrec.errors import ColumnsError
from cfrec.pivots import NOT_RATED, is_apart
from cfrec.ratings import Ratings
from cfrec.report import Note
from cfrec.roles import HOW, Roles

_MANY = 20  # rows from which on a guess can be judged
_MOST_STARS = 101  # distinct ratings that a scale has


def refuse_impossible(ratings: Ratings, roles: Roles, name: str) -> None:
    """Raise DataError where columns were guessed, and what came out cannot be ratings."""
    if "guess" not in roles.found.values() or len(ratings) < _MANY:
        return
    taken = ", ".join(f"{role} from {roles.names[place]}" for role, place in roles.places.items())
    if roles.found.get("user") == "guess" and ratings.n_users == len(ratings):
        raise ColumnsError(f"{name}: each user would have rated once, so the guess which column holds users is wrong. Taken: {taken}.", HOW)
    n_stars = len(np.unique(ratings.rating))
    if roles.found.get("rating") == "guess" and n_stars > _MOST_STARS and (ratings.rating == ratings.rating.round()).all():
        raise ColumnsError(f"{name}: there would be {n_stars:,} different ratings, which look like ids. Taken: {taken}.", HOW)


def notes_on(ratings: Ratings, roles: Roles) -> list[Note]:
    """What looks odd, each with the arguments of ``read_ratings`` that would change it."""
    notes, report = [], ratings.report
    if "guess" in roles.found.values():
        taken = ", ".join(f"{roles.names[place]} as {role}" for role, place in roles.places.items() if roles.found[role] == "guess")
        notes.append(Note("guess", f"Guessed by their values or order: {taken}.", hint=HOW))
    values, counts = np.unique(ratings.rating, return_counts=True)
    for mark in NOT_RATED:
        share = counts[values == mark].sum() / counts.sum()
        if len(values) > 3 and share > 0.03 and is_apart(values, mark):
            text = f"{mark:g} stands for {share:.0%} of all ratings, and lies apart from the rest: is that “not rated”?"
            notes.append(Note("not_rated", text, {"not_rated": mark}, hint=f"Then: not_rated={mark:g}, or --not-rated {mark:g}."))
    if ratings.n_users == 1:
        text = "All ratings are by one person: a network learns from many, so it cannot learn from this."
        notes.append(
            Note("one_user", text, hint='For recommendations from your own ratings: python -m cfrec recommend --rate "Fargo=4.5".')
        )
    elif ratings.n_users == len(ratings) and len(ratings) >= _MANY:
        notes.append(Note("once", "Each person rated one movie: nothing can be learned of tastes. Is the column of users the right one?"))
    if ratings.n_movies == 1:
        notes.append(Note("one_movie", "All ratings are of one movie."))
    if report.n_duplicates > report.n_rows / 10:
        text = f"{report.n_duplicates:,} of {report.n_rows:,} rows rate the same movie again; the latest was kept."
        notes.append(Note("again", f"{text} Are these the columns of users and movies?"))
    if len(values) == 1 and len(ratings) > 1 and "rating" in roles.places:
        notes.append(Note("equal", f"All ratings are {values[0]:g}: there are no stars to learn, only who chose what."))
    elif "rating" in roles.places and values[-1] > 100 and values[0] >= 0 and (values == values.round()).all():
        column = roles.names[roles.places["rating"]]
        text = f"{column} goes up to {values[-1]:,.0f}: are these counts, of plays for example, rather than stars?"
        place = roles.places["rating"] + 1
        hint = f'Then: columns={{"count": {place}, "rating": None}}, or --columns count={place},rating=none.'
        notes.append(Note("counts", text, {"columns": {"rating": None, "count": place}}, hint=hint))
    return notes
