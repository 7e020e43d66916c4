import pytest

from fusedbert.bench.report.text import format_table, milliseconds


def test_columns_line_up():
    lines = format_table(["name", "n"], [["a", "1"], ["longer", "1000"]]).splitlines()
    assert lines == ["name       n", "------  ----", "a          1", "longer  1000"]


@pytest.mark.parametrize(
    ("value", "text"), [(0.0414, "0.041"), (0.412, "0.412"), (8.314, "8.31"), (61.23, "61.2"), (432.7, "433")]
)
def test_milliseconds_have_about_three_digits(value, text):
    assert milliseconds(value) == text
