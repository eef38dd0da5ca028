import pytest

from cfrec.report import ColumnUse, Note, ReadReport

COLUMNS = ColumnUse("who", "user"), ColumnUse("x", "", ""), ColumnUse("column 3", "rating", "guess")
NOTES = Note("not_rated", "0 lies apart.", {"not_rated": 0.0}), Note("times", "Left out.", odd=False)
REPORT = ReadReport(1_200, 1_000, 150, 50, {"user is missing": 150}, COLUMNS, NOTES)


def test_a_report_comes_back_from_json_and_nothing_else_does():
    assert [ReadReport.from_json(report.to_json()) for report in (REPORT, ReadReport(1, 1))] == [REPORT, ReadReport(1, 1)]
    for text in ("", "[]", "{}", '{"columns": [], "notes": []}', '{"columns": [{"a": 1}], "notes": []}'):
        with pytest.raises((ValueError, TypeError, KeyError)):
            ReadReport.from_json(text)


def test_its_lines():
    rows = "Of 1,200 rows 1,000 are used; 50 rated again, 150 bad."
    assert REPORT.lines() == ["Taken: user from who, rating from column 3.", rows, "  150 × user is missing", "0 lies apart.", "Left out."]
    assert ReadReport(3, 3).lines() == []
