import logging
import subprocess
import sys

from cfrec.logs import RateLimit


def record(name="cfrec.x", message="said %d", *args):
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
