"""A visitor's own file on the train page: what it says about itself, and the choices beside it."""

import pytest

from cfrec.warm import warm_up

PAIRS = [(u, m) for u in range(1, 13) for m in range(1, 9) if (u + m) % 3]
OWN = {"data": "A file of your own"}


@pytest.fixture(autouse=True, scope="module")
def _warm():
    warm_up(0).join()


@pytest.fixture
def upload(open_page, no_data):
    """Open the page and give it a file."""

    def give(text, name="mine.csv"):
        app = open_page("train", OWN)
        return app.file_uploader[0].set_value((name, text.encode(), "text/csv")).run()

    return give


def says(app, text):
    shown = [element.value for element in (*app.caption, *app.markdown, *app.error, *app.warning)]
    return any(text in value.replace("\\", "") for value in shown)


def button(app, label):
    return next(b for b in app.button if b.label == label)


def roles(app):
    """What each column is taken for, as the select boxes have it."""
    return [box.value for box in app.selectbox if str(box.key).startswith("role-")]


def first_rows(app):
    frame = next(frame.value for frame in app.dataframe if "user_id" in frame.value)
    return [tuple(row) for row in frame.astype(str).to_numpy()]


def test_a_file_says_what_is_in_it_before_it_is_trained_on(upload):
    app = upload("user,movie,rating,title\n" + "".join(f"{u},{m},{(u * m) % 5 + 1},Film {m}\n" for u, m in PAIRS))
    assert says(app, f"**mine.csv**: {len(PAIRS)} ratings by 12 people of 8 films, stars from 1 to 5")
    assert first_rows(app)[:2] == [("1", "Film 1", "2.0"), ("1", "Film 3", "4.0")]
    assert roles(app) == ["user", "movie", "rating", "title"]
    assert not app.warning
    assert not button(app, "Train").disabled


def test_a_mark_for_not_rated_is_asked_about_and_left_out_by_one_click(upload):
    app = upload("user,movie,rating\n" + "".join(f"{u},{m},{0 if m == 3 else (u * m) % 4 + 2}\n" for u, m in PAIRS))
    n_marks = sum(m == 3 for _, m in PAIRS)
    assert says(app, "0 stands for 12% of all ratings, and lies apart from the rest")
    button(app, "Leave out the ratings that are 0").click().run()
    assert says(app, f"{len(PAIRS) - n_marks} ratings by 12 people of 7 films, stars from 2 to 5")
    assert not app.warning
    button(app, "Undo: read it as it was").click().run()
    assert says(app, f"{len(PAIRS)} ratings by 12 people of 8 films")


def test_two_marks_have_a_button_each(upload):
    """Their buttons once had one key."""
    app = upload("user,movie,rating\n" + "".join(f"{u},{m},{ {3: 0, 4: 99}.get(m, (u * m) % 4 + 2) }\n" for u, m in PAIRS))
    assert [b.label for b in app.button if b.label.startswith("Leave out")] == [f"Leave out the ratings that are {k}" for k in (0, 99)]


def test_a_guess_is_told_and_changed_by_a_select_box(upload):
    app = upload("".join(f"m{m},u{u},{(u * m) % 5 + 1}\n" for u, m in PAIRS))
    assert says(app, "What is in which column was guessed: column 1: which film, column 2: who rated, column 3: stars.")
    assert says(app, "by 12 people of 8 films")
    box = next(box for box in app.selectbox if str(box.key).endswith("-0"))
    box.set_value("user").run()
    assert roles(app) == ["user", "", "rating"]  # it is taken from the column that had it
    assert says(app, "has no column for movie")
    next(box for box in app.selectbox if str(box.key).endswith("-1")).set_value("movie").run()
    assert says(app, "by 8 people of 12 films")
    assert first_rows(app)[0] == ("m1", "u1", "2.0")
    assert not app.warning


def test_a_refused_file_shows_its_columns_and_what_is_missing(upload):
    app = upload("Name,Year,Rating,Extra\n" + "".join(f"Film {m},1999,{m % 5},e{m % 7}\n" for m in range(30)))
    assert says(app, "has no column for user")
    assert says(app, "Say under “What is in which column?” which is which.")
    assert roles(app) == ["title", "year", "rating", ""]
    assert button(app, "Train").disabled
    next(box for box in app.selectbox if str(box.key).endswith("-3")).set_value("user").run()
    assert says(app, "30 ratings by 7 people of 30 films")


def test_a_pivot_table_says_so_and_its_zeros_can_count(upload):
    text = "user," + ",".join(f"Film {m}" for m in range(30)) + "\n"
    text += "".join(f"{u}," + ",".join(str((u * m) % 4) if (u + m) % 3 == 0 else "0" for m in range(30)) + "\n" for u in range(1, 11))
    app = upload(text)
    assert says(app, "This is a table with a row for each user and a column for each movie: 10 × 30 cells")
    assert roles(app) == []  # too many columns to show one by one
    n_rated = sum((u * m) % 4 > 0 and (u + m) % 3 == 0 for u in range(1, 11) for m in range(30))
    assert says(app, f"{n_rated} ratings by 8 people")
    button(app, "Count it as a rating").click().run()
    assert says(app, "300 ratings by 10 people of 30 films, stars from 0 to 3")


def test_a_pivot_table_is_turned_round_by_one_click(upload):
    films = ["Heat", "Alien", "Brazil", "Fargo", "Jaws"]
    app = upload("What," + ",".join(f"Anna {u}" for u in range(4)) + "\n" + "".join(f"{film},5,,{k},2\n" for k, film in enumerate(films)))
    assert says(app, "Nothing says whether the rows are users or movies: they were taken for users.")
    button(app, "Take the rows for films").click().run()
    assert says(app, "by 3 people of 5 films")
    assert first_rows(app)[0] == ("Anna 0", "Heat", "5.0")
    button(app, "Undo: read it as it was").click().run()
    assert says(app, "by 5 people of 3 films")


def test_counts_are_taken_for_choices_by_one_click(upload):
    app = upload("user,artist,rating\n" + "".join(f"{u},{m},{(u * m * 37) % 400 + 1}\n" for u, m in PAIRS))
    assert says(app, "are these counts, of plays for example, rather than stars?")
    button(app, "Take them for counts, not for stars").click().run()
    assert roles(app) == ["user", "movie", "count"]
    assert says(app, "of 8 films, no stars to tell apart")


def test_one_person_s_ratings_are_not_trained_on(upload):
    app = upload("user,title,rating\n" + "".join(f"me,Film {m},{m % 5 + 1}\n" for m in range(30)))
    assert says(app, "**mine.csv**: 30 ratings by one person of 30 films")
    assert says(app, "All ratings are by one person")
    assert button(app, "Train").disabled


def test_another_file_is_read_afresh(upload):
    app = upload("".join(f"m{m},u{u},{(u * m) % 5 + 1}\n" for u, m in PAIRS))
    next(box for box in app.selectbox if str(box.key).endswith("-0")).set_value("").run()
    assert says(app, "has no column for movie")
    app.file_uploader[0].set_value(("b.csv", b"user,movie,rating\n1,2,3\n2,2,4\n", "text/csv")).run()
    assert says(app, "**b.csv**: 2 ratings by 2 people of 1 film,")
