import pytest

from cfrec.titles import fold, parse_title


@pytest.mark.parametrize(
    ("raw", "title", "year"),
    [
        ("Godfather, The (1972)", "The Godfather (1972)", 1972),
        ("Postino, Il (1994)", "Il Postino (1994)", 1994),
        ("Misérables, Les (1995)", "Les Misérables (1995)", 1995),
        ("Star Wars (1977)", "Star Wars (1977)", 1977),
        ("2001: A Space Odyssey (1968)", "2001: A Space Odyssey (1968)", 1968),
        ("Good, The Bad and The Ugly, The (1966)", "The Good, The Bad and The Ugly (1966)", 1966),
        ("Adventures of Priscilla, Queen of the Desert, The (1994)", "The Adventures of Priscilla, Queen of the Desert (1994)", 1994),
        ("Horseman on the Roof, The (Hussard sur le toit, Le) (1995)", "The Horseman on the Roof (Le Hussard sur le toit) (1995)", 1995),
        ("Star Maker, The (Uomo delle stelle, L') (1995)", "The Star Maker (L'Uomo delle stelle) (1995)", 1995),
        ("Seven (Se7en) (1995)", "Seven (Se7en) (1995)", 1995),
        ("Land Before Time III (1995) (V)", "Land Before Time III (1995)", 1995),
        ("Marlene Dietrich: Shadow and Light (1996) ", "Marlene Dietrich: Shadow and Light (1996)", 1996),
        ("Fawlty Towers (1975-1979)", "Fawlty Towers (1975)", 1975),
        ("Human Centipede II (Full Sequence), The (2011)", "The Human Centipede II (Full Sequence) (2011)", 2011),
        ("Defender, The (a.k.a. Bodyguard from Beijing, The) (1994)", "The Defender (a.k.a. The Bodyguard from Beijing) (1994)", 1994),
        ("I Love You, Man (2009)", "I Love You, Man (2009)", 2009),
        ("Play It Again, Sam (1972)", "Play It Again, Sam (1972)", 1972),
        ("unknown", "unknown", None),
        ("Babylon 5", "Babylon 5", None),
        ("Two Friends, (1986)", "Two Friends, (1986)", 1986),
    ],
)
def test_titles_as_people_write_them(raw, title, year):
    assert parse_title(raw) == (title, year)


@pytest.mark.parametrize(
    ("text", "folded"),
    [
        ("Les Misérables (1995)", "les miserables 1995"),
        ("Schindler's List", "schindlers list"),
        ("Nénette & Boni", "nenette and boni"),
        ("GRØNN øy, Straße", "gronn oy strasse"),
        ("  E.T.  ", "e t"),
        ("!?", ""),
    ],
)
def test_fold(text, folded):
    assert fold(text) == folded
