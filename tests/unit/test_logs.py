import logging
import subprocess
import sys
import uuid

from cfrec.logs import RateLimit, tidy


def record(name="cfrec.x", message="said %s", *args):
    return logging.LogRecord(name, logging.WARNING, "", 0, message, args or (1,), None)


def test_so_many_records_of_a_logger_pass_and_the_rest_are_counted():
    now = [0.0]
    limit = RateLimit(most=3, seconds=10, clock=lambda: now[0])
    assert [limit.filter(record()) for _ in range(5)] == [True, True, True, False, False]
    assert limit.filter(record("cfrec.y"))  # another logger has its own limit
    now[0] = 9.9
    assert not limit.filter(record())
    now[0] = 10.0
    late = record()
    assert limit.filter(late)
    assert late.getMessage() == "said 1 (3 records before this one were left out)"
    following = record()
    assert limit.filter(following)
    assert following.getMessage() == "said 1"


def test_a_record_is_one_line_of_bounded_length_that_takes_over_no_terminal():
    forged = record("cfrec.x", "a\n2026-01-01 ERROR cfrec: b\x1b[2J\u202e %s", "x" * 100_000)
    tidy(forged)
    assert forged.getMessage().startswith("a 2026-01-01 ERROR cfrec: b [2J xxx")
    assert len(forged.getMessage()) <= 1_000


def test_the_id_of_a_session_which_opens_it_is_in_no_record():
    session = str(uuid.uuid4())
    told = record("streamlit", "Session with id %s is already connected! (request=%s, expected=%s)", session, session[:8], session[:8])
    tidy(told)
    assert told.getMessage() == "Session with id (a session) is already connected! ((a session), (a session))"


def test_an_error_is_told_with_the_places_it_passed_and_without_folders():
    def fail():
        raise KeyError("what\nis missing")

    try:
        fail()
    except KeyError:
        told = logging.LogRecord("cfrec.x", logging.ERROR, "", 0, "run %s", ("ab12",), sys.exc_info())
    tidy(told)
    line = fail.__code__.co_firstlineno
    places = f"tests/unit/test_logs.py:{line + 4} > tests/unit/test_logs.py:{line + 1}"
    assert logging.Formatter().format(told) == f"run ab12: KeyError: 'what\\nis missing' ({places})"


FLOOD = """
import logging
early = logging.getLogger("streamlit.early")
early.addHandler(logging.StreamHandler())
early.propagate = False
if {limited}:
    from cfrec.logs import set_up
    set_up()
late = logging.getLogger("streamlit.late")
late.addHandler(logging.StreamHandler())
late.propagate = False
for n in range(10_000):
    early.error("early %d", n)
    late.error("late %d", n)
    logging.getLogger("cfrec.jobs").info("run %s: forged\\n2026-01-01 ERROR cfrec: line %d", "ab12", n)
"""


def flood(*, limited):
    run = subprocess.run([sys.executable, "-c", FLOOD.format(limited=limited)], capture_output=True, text=True, check=True)
    return run.stderr.splitlines()


def test_a_flood_is_kept_short_and_no_record_is_two_lines():
    lines = flood(limited=True)
    assert len(lines) == 60
    assert all("INFO cfrec.jobs: run ab12: forged 2026-01-01 ERROR cfrec: line" in line for line in lines if "cfrec" in line)


def test_without_the_limit_the_flood_would_be_long():
    """Negative control."""
    assert len(flood(limited=False)) == 20_000


def test_a_call_that_cannot_be_written_is_logged_as_it_stands():
    wrong = record("cfrec.x", "a %s %s", 1)
    tidy(wrong)
    assert wrong.getMessage() == "a %s %s"
