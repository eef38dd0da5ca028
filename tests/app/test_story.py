"""The sentence under the chart, from histories made by hand. Losses are squares: 1.21 is a miss of 1.1 stars."""

import pytest

from app_pages._story import tell_advice, tell_end, tell_round
from cfrec.trained import EpochMetrics

BASELINES = {"mean": 1.44, "movie_mean": 1.0}


def history(*losses):
    return [EpochMetrics(k, train, valid, 0.01, 0.1, 1000.0) for k, (train, valid) in enumerate(losses, 1)]


@pytest.mark.parametrize(
    ("losses", "wanted"),
    [
        ([], "The first round is under way"),
        ([(1.3, 1.21)], "**Learning.** After round 1 a guess misses by 1.100 stars on average; always the same guess misses by 1.200."),
        ([(1.3, 1.21), (1.2, 1.0)], "**Still learning.** Round 2 brought the average miss from 1.100 down to 1.000 stars."),
        ([(1.3, 1.0), (1.2, 0.998001)], "**Flattening out.** Round 2 gained only 0.0010 stars: the average miss is 0.999 stars."),
        (
            [(1.3, 1.21), (1.0, 1.0), (0.81, 1.0201), (0.64, 1.0404)],
            "**From round 3 it memorises:** on ratings it has seen the miss fell to 0.800 stars, on those kept aside it rose to 1.020; "
            "keeping round 2 (1.000 stars).",
        ),
        ([(1.3, 1.0), (1.4, 1.21)], "**A step back.** Round 2 misses by 1.100 stars; keeping round 1 (1.000 stars) so far."),
    ],
)
def test_each_kind_of_round(losses, wanted):
    assert tell_round(history(*losses), BASELINES).startswith(wanted)


@pytest.mark.parametrize(
    ("outcome", "wanted"),
    [
        ("completed", "**Done after 2 rounds.** Kept: round 2"),
        ("stopped", "**Stopped after 2 rounds.** Kept: round 2"),
        ("early_stopped", "**Stopped by itself after 2 rounds:** it was no longer getting better. Kept: round 2"),
        ("diverged", "**It went off course after 2 rounds:** its numbers grew without limit. Kept: round 2"),
    ],
)
def test_each_kind_of_end(outcome, wanted):
    told = tell_end(outcome, history((1.3, 1.21), (1.2, 1.21)), 2, 1.1, BASELINES)
    assert told.startswith(wanted)
    assert told.endswith(
        "with an average miss of 1.100 stars: 0.100 better than always the same guess and 0.100 worse than each film's average."
    )


def test_where_all_stars_are_the_same_there_are_none_to_guess():
    told = tell_end("completed", history((0.0, 0.0)), 1, 0.0, dict.fromkeys(BASELINES, 0.0))
    assert (
        told == "**Done after 1 round.** Every rating is the same, so there are no stars to guess: who rated what is all that was learned."
    )


def test_a_run_that_learned_nothing():
    assert tell_end("completed", history((2.0, 2.0)), 0, 1.0, BASELINES).startswith("**Nothing was learned:**")
    astray = tell_end("diverged", history((2.0, 2.0)), 0, 1.0, BASELINES)
    assert astray == "**It went off course after 1 round:** its numbers grew without limit. Nothing was learned."


@pytest.mark.parametrize(
    ("outcome", "best_epoch", "wanted"),
    [
        ("diverged", 0, "Each correction threw its numbers further than the one before. Try a smaller step size, such as 0.02."),
        ("completed", 0, "No round was better than the random start. Try a smaller step size, such as 0.02."),
        (
            "completed",
            3,
            "It learned too little: always the same guess misses by less. Try more rounds, or a smaller step size, such as 0.02.",
        ),
    ],
)
def test_advice_is_in_the_words_of_the_app(outcome, best_epoch, wanted):
    assert tell_advice(outcome, best_epoch, 0.02) == wanted
