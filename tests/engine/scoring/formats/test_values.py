"""Values for another format: as Python, NumPy and pyarrow write them, or an error of their row."""

from __future__ import annotations

import datetime
import decimal
import json
import random
import zoneinfo
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fusedbert.engine import InputError, Scorer, score_file
from fusedbert.engine.scoring.formats.parquet import ParquetData
from fusedbert.engine.scoring.formats.values import dump, error_content


def nested(levels: int, value: Any = 1) -> str:
    return "[" * levels + json.dumps(value) + "]" * levels


def cells(found: Any) -> list[Any]:
    return [json.loads(line)["t"] for line in found.path.read_text().splitlines()]


def table(column: Any) -> Any:
    return pyarrow.table({"text": ["a"] * len(column), "t": column})


def utf8(values: list[bytes | None], kind: Any = None) -> Any:
    """Return a column of strings with bytes that pyarrow does not check."""
    binary = pyarrow.large_binary() if kind == pyarrow.large_string() else pyarrow.binary()
    return pyarrow.array(values, binary).view(kind or pyarrow.string())


NANOSECONDS = [1700000000123456789, -1, 0, 1, 10**9, -(10**18) + 7, 253402300799 * 10**9 // 30]


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.json"])
def test_nanoseconds_are_iso_8601_with_nine_digits(convert: Any, output: str) -> None:
    values = [value for value in NANOSECONDS if value % 1000]
    found = convert(table(pyarrow.array([*values, None], pyarrow.timestamp("ns"))), "in.parquet", output)
    expected = [str(np.datetime64(value, "ns")) for value in values]
    assert all(time in found.path.read_text() for time in expected) and len(expected[0]) == len("2023-11-14T22:13:20.123456789")
    assert found.reasons == {}


@pytest.mark.parametrize("zone", [None, "UTC", "Europe/Berlin", "America/St_Johns", "+05:30"])
@pytest.mark.parametrize("unit", ["s", "ms", "us", "ns"])
def test_times_are_those_of_datetime(convert: Any, unit: str, zone: str | None) -> None:
    generator = random.Random(0)
    digits = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    values = [generator.randrange(-2 * 10**9, 4 * 10**9) * digits for _ in range(50)]
    values += [value + digits // 1000 * 123 for value in values if digits > 1]
    found = convert(table(pyarrow.array(values, pyarrow.timestamp(unit, zone))), "in.parquet")
    place: datetime.tzinfo | None = datetime.timezone(datetime.timedelta(hours=5.5)) if zone == "+05:30" else None
    place = place if zone is None or place else zoneinfo.ZoneInfo(zone)
    for value, written in zip(values, cells(found), strict=True):
        moment = datetime.datetime(1970, 1, 1) + datetime.timedelta(microseconds=value * 10**6 // digits)
        if place is not None:
            moment = moment.replace(tzinfo=datetime.UTC).astimezone(place)
        assert written == moment.isoformat()


@pytest.mark.parametrize(
    ("kind", "values", "written"),
    [
        (pyarrow.time64("ns"), [123, 86399 * 10**9 + 1], ["00:00:00.000000123", "23:59:59.000000001"]),
        (pyarrow.time64("us"), [123], [datetime.time(0, 0, 0, 123).isoformat()]),
        (pyarrow.time32("ms"), [45_000, 7], ["00:00:45", "00:00:00.007000"]),
        (pyarrow.duration("ns"), [123, -1], ["0:00:00.000000123", "-1 day, 23:59:59.999999999"]),
        (pyarrow.duration("us"), [-1], [str(datetime.timedelta(microseconds=-1))]),
        (pyarrow.duration("s"), [90_061], [str(datetime.timedelta(seconds=90_061))]),
        (pyarrow.date32(), [19_000], [str(datetime.date(1970, 1, 1) + datetime.timedelta(19_000))]),
        (pyarrow.list_(pyarrow.timestamp("ns")), [[1], None], [["1970-01-01T00:00:00.000000001"], None]),
        (
            pyarrow.struct([("a", pyarrow.time64("ns")), ("b", pyarrow.list_(pyarrow.duration("ns")))]),
            [{"a": 1, "b": [5, None]}],
            [{"a": "00:00:00.000000001", "b": ["0:00:00.000000005", None]}],
        ),
        (pyarrow.map_(pyarrow.string(), pyarrow.timestamp("ns")), [[("k", 1)]], [[["k", "1970-01-01T00:00:00.000000001"]]]),
        (pyarrow.map_(pyarrow.string(), pyarrow.int8()), [[("k", 1)]], [[["k", 1]]]),
        (pyarrow.decimal256(50, 2), [decimal.Decimal("-0.01")], ["-0.01"]),
        (pyarrow.binary(), [b"\xff\x00"], ["/wA="]),
        (pyarrow.float16(), [0.1, float("nan"), float("inf")], [0.1, None, None]),
        (pyarrow.uint64(), [2**64 - 1], [2**64 - 1]),
    ],
)
def test_each_type_is_written_as_python_writes_it(convert: Any, kind: Any, values: Any, written: Any) -> None:
    found = convert(table(pyarrow.array(values, kind)), "in.parquet")
    assert (cells(found), found.reasons) == (written, {})


def test_extension_types_and_dictionaries_are_written(convert: Any) -> None:
    tensors = pyarrow.ExtensionArray.from_storage(
        pyarrow.fixed_shape_tensor(pyarrow.int32(), (2, 2)), pyarrow.array([[1, 2, 3, 4]], pyarrow.list_(pyarrow.int32(), 4))
    )
    opaque = pyarrow.ExtensionArray.from_storage(
        pyarrow.opaque(pyarrow.timestamp("ns"), "a", "b"), pyarrow.array([1], pyarrow.timestamp("ns"))
    )
    times = pyarrow.array([1], pyarrow.timestamp("ns")).dictionary_encode()
    for column, written in [
        (tensors, [1, 2, 3, 4]),
        (opaque, "1970-01-01T00:00:00.000000001"),
        (times, "1970-01-01T00:00:00.000000001"),
    ]:
        assert cells(convert(table(column), "in.parquet")) == [written]


@pytest.mark.parametrize("output", ["out.csv", "out.jsonl", "out.json"])
@pytest.mark.parametrize(
    ("column", "reasons"),
    [
        (pyarrow.array([2**62, None, 5], pyarrow.timestamp("us")), {1: "'t' is beyond the years 1 to 9999"}),
        (pyarrow.array([-(2**61), 0, 5], pyarrow.timestamp("us", "UTC")), {1: "'t' is beyond the years 1 to 9999"}),
        (pyarrow.array([10**9, 5, None], pyarrow.date32()), {1: "'t' is beyond the years 1 to 9999"}),
        (
            pyarrow.array([253402300799, 5, None], pyarrow.timestamp("s", "Asia/Tokyo")),
            {1: "'t' is beyond the years 1 to 9999"},
        ),
        (
            pyarrow.array([1, None, 2], pyarrow.timestamp("us", "Mars/Base")),
            dict.fromkeys((1, 3), "'t' is in the time zone 'Mars/Base', which is not known here"),
        ),
        (pyarrow.array([86_400 * 10**9, 5, -1], pyarrow.time64("ns")), dict.fromkeys((1, 3), "'t' is not a time of a day")),
        (pyarrow.array([2**60, 5, None], pyarrow.duration("s")), {1: "'t' is longer than 2.7 million years"}),
        (utf8([b"caf\xe9", None, b"fine"]), {1: "'t' is not UTF-8"}),
        (utf8([b"fine", b"\xff", None], pyarrow.large_string()), {2: "'t' is not UTF-8"}),
        (pyarrow.ListArray.from_arrays(pyarrow.array([0, 1, 2, 2]), utf8([b"\xff", b"fine"])), {1: "'t' is not UTF-8"}),
        (
            pyarrow.StructArray.from_arrays([pyarrow.array([1, 2, 3]), pyarrow.array([4, 5, 6])], names=["a", "a"]),
            dict.fromkeys((1, 2, 3), "'t' is a struct with two fields of one name"),
        ),
    ],
)
def test_a_parquet_value_that_cannot_be_converted_is_an_error_of_its_row(
    convert: Any, output: str, column: Any, reasons: dict[int, str]
) -> None:
    found = convert(table(column), "in.parquet", output)
    assert (found.reasons, found.texts) == (reasons, ["a", "a", "a"])
    json.dumps([error_content(content) for content in found.contents.values()], allow_nan=False).encode()
    if output == "out.csv":
        empty = [number for number, line in enumerate(found.path.read_text().splitlines()) if line.startswith("a,,")]
    else:
        text = found.path.read_text()
        rows = json.loads(text) if output == "out.json" else [json.loads(line) for line in text.splitlines()]
        empty = [number for number, row in enumerate(rows, 1) if row["t"] is None]
    nulls = {index for index, missing in enumerate(column.is_null().to_pylist(), 1) if missing}
    assert set(empty) == {*reasons, *nulls}


@pytest.mark.parametrize("kind", [pyarrow.string(), pyarrow.large_string()])
def test_a_text_that_is_not_utf8_is_an_error_of_its_row(convert: Any, kind: Any) -> None:
    content = pyarrow.table({"text": utf8([b"caf\xe9", b"ok"], kind), "p": utf8([b"ok", b"\xff"], kind)})
    for output in ("out.csv", "out.jsonl", "out.parquet"):
        found = convert(content, "in.parquet", output, pair="p")
        assert (found.texts, found.pairs) == ([None, "ok"], ["ok", None])
        assert found.reasons == {1: "'text' is not UTF-8", 2: "'p' is not UTF-8"}
    kept = pyarrow.parquet.read_table(found.path)["text"].cast(pyarrow.large_binary())
    assert kept.to_pylist() == [b"caf\xe9", b"ok"]


OBJECTS = '{"a":' * 300 + "1" + "}" * 301
HOSTILE = {
    "nested 600 deep": (f'{{"text": "a", "t": {nested(600)}}}', "'t' is nested too deep"),
    "nested 300 deep in objects": (f'{{"text": "a", "t": {OBJECTS}', "'t' is nested too deep"),
    "a key that is a surrogate": ('{"text": "a", "t": {"\\ud83d": 1}}', "'t' is an object with a key that is not Unicode text"),
    "a column that is a surrogate": ('{"text": "a", "\\ud83d": 1}', r"it has the key '\\ud83d', which is not Unicode text"),
}


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
@pytest.mark.parametrize("name", HOSTILE)
def test_a_jsonl_value_that_cannot_be_converted_is_an_error_of_its_row(convert: Any, output: str, name: str) -> None:
    line, reason = HOSTILE[name]
    found = convert(f'{{"text": "b", "t": null}}\n{line}\n{{"text": "c"}}\n', "in.jsonl", output)
    assert (
        found.texts == ["b", "a", "c"]
        and list(found.reasons) == [2]
        and found.reasons[2].startswith(reason.replace("\\\\", "\\"))
    )
    assert len(dump(error_content(found.contents[2]))) < 2000
    kept = convert(line, "in.jsonl", "out.jsonl")
    assert kept.reasons == {} and kept.path.read_text() == f'{line[:-1]}, "label": "L"}}\n'


def test_nesting_that_parquet_cannot_be_read_with_is_an_error_of_its_row(convert: Any) -> None:
    lines = "".join(f'{{"text": "a", "t{levels}": {nested(levels)}}}\n' for levels in (1, 20, 40, 41, 60, 99))
    found = convert(lines, "in.jsonl", "out.parquet")
    assert list(found.reasons) == [4, 5, 6]
    assert pyarrow.parquet.read_table(found.path).num_rows == 6


@pytest.mark.parametrize(("line", "columns"), [("nonsense", ()), ("{}", ()), ("", ())])
@pytest.mark.parametrize("output", ["out.csv", "out.parquet", "out.jsonl", "out.json"])
def test_rows_without_any_column_are_kept(convert: Any, line: str, columns: Any, output: str) -> None:
    found = convert(f"{line}\n" * 3, "in.jsonl", output)
    count = 3 if line else 0
    assert (found.columns, len(found.reasons)) == (columns, count)
    if output == "out.parquet":
        assert pyarrow.parquet.read_table(found.path).to_pylist() == [{"label": "L"}] * count
    else:
        assert found.path.read_text().count("L") - (output == "out.csv") * 0 == count


@pytest.mark.parametrize("digits", [19, 4000, 5000])
def test_an_integer_of_any_length_is_read(convert: Any, digits: int) -> None:
    line = f'{{"text": "a", "t": {"9" * digits}}}'
    assert convert(line, "in.jsonl", "out.jsonl").path.read_text() == f'{line[:-1]}, "label": "L"}}\n'
    assert convert(line, "in.jsonl", "out.csv").path.read_text() == f"text,t,label\na,{'9' * digits},L\n"
    found = convert(f'{{"text": "b", "t": 1}}\n{line}\n', "in.jsonl", "out.parquet")
    assert list(found.reasons) == [2] and "'t' was int64 in the first rows" in found.reasons[2]


def test_lone_surrogates_in_values_are_replaced(convert: Any) -> None:
    line = '{"text": "a", "t": "\\ud83d", "u": ["\\ud83d"]}\n'
    assert convert(line, "in.jsonl", "out.csv").path.read_text() == 'text,t,u,label\na,\ufffd,"[""\ufffd""]",L\n'
    assert pyarrow.parquet.read_table(convert(line, "in.jsonl", "out.parquet").path)["t"].to_pylist() == ["\ufffd"]


@pytest.mark.parametrize("output", ["out.csv", "out.parquet"])
def test_a_key_that_the_first_rows_do_not_have_is_an_error_of_its_row(convert: Any, output: str) -> None:
    found = convert('{"text": "a"}\n{"text": "b", "k": 1}\n{"text": "c"}\n', "in.jsonl", output, chunk_rows=1)
    assert found.reasons.keys() == {2} and "'k', which the first rows do not have" in found.reasons[2]
    assert found.contents == {2: {"k": 1}}


@pytest.mark.parametrize("name", ["in.csv", "in.jsonl", "in.parquet"])
def test_only_an_empty_cell_of_a_csv_is_an_empty_second_text(convert: Any, name: str) -> None:
    rows = [{"text": "a", "b": "x"}, {"text": "a", "b": None}, {"text": "a"}, {"text": "a", "b": ""}]
    content: Any = "".join(f"{json.dumps(row)}\n" for row in rows)
    if name == "in.csv":
        content = "text,b\n" + "".join(f"a,{row.get('b') or ''}\n" for row in rows)
    if name == "in.parquet":
        content = pyarrow.Table.from_pylist(rows)
    found = convert(content, name, pair="b")
    assert found.reasons == {}
    assert found.pairs == (["x", "", "", ""] if name == "in.csv" else ["x", None, None, ""])


def test_a_null_second_text_is_a_single_text(artifact: Path, classifier: Any, tmp_path: Path, read: Any) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": "good", "b": "bad"}\n{"text": "good", "b": null}\n{"text": "good"}\n')
    score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", model=artifact, text_column="text", pair_column="b")
    pair, single = classifier({"text": "good", "text_pair": "bad"}), classifier({"text": "good", "text_pair": None})
    assert [row["score"] for row in read(tmp_path / "out.jsonl")] == pytest.approx(
        [pair["score"], single["score"], single["score"]], abs=1e-5
    )
    scored = Scorer(artifact, text_column="a", pair_column="b")({"a": ["good", "good"], "b": ["bad", None]})
    assert list(scored["score"]) == pytest.approx([pair["score"], single["score"]], abs=1e-5)


def test_columns_are_cast_to_the_first_files(convert: Any) -> None:
    data = ParquetData(pyarrow.table({"n": pyarrow.array([1, 2], pyarrow.int8()), "text": ["a", "b"]}))
    schema = pyarrow.schema([("text", pyarrow.large_string()), ("n", pyarrow.int64()), ("more", pyarrow.string())])
    cast = data.table(schema)
    assert cast.schema == schema and cast["n"].to_pylist() == [1, 2] and cast["more"].to_pylist() == [None, None]
    with pytest.raises(InputError, match="the column 'text' is of type string, and int64 in the first file"):
        data.table(pyarrow.schema([("text", pyarrow.int64()), ("n", pyarrow.int64())]))
    with pytest.raises(InputError, match="'n' is a column that the first file does not have"):
        data.table(pyarrow.schema([("text", pyarrow.string())]))


@pytest.mark.parametrize("second", ['{"text": "b", "t": {}}', '{"text": "b", "t": [{}]}', '{"text": "b", "t": 1}'])
def test_a_type_that_parquet_does_not_have_is_an_error_before_the_work(convert: Any, second: str) -> None:
    first = f'{{"text": "a", "t": {json.dumps("x" if second.endswith("1}") else None)}}}\n'
    with pytest.raises(InputError, match=r"'(t|element)'.*write \.jsonl"):
        convert(first + second, "in.jsonl", "out.parquet")


def test_parquet_is_streamed_in_row_groups(convert: Any) -> None:
    found = convert("text\n" + "a\n" * 25, "in.csv", "out.parquet", chunk_rows=10, streamed=True)
    file = pyarrow.parquet.ParquetFile(found.path)
    assert [file.metadata.row_group(index).num_rows for index in range(file.num_row_groups)] == [10, 10, 5]
    assert file.read()["text"].to_pylist() == ["a"] * 25


LEAVES = st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text(st.characters(exclude_categories=[]))
ANYTHING = st.recursive(
    LEAVES | st.decimals() | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=[])) | st.integers(), inner),
)


@given(value=ANYTHING)
def test_the_content_of_an_error_is_bounded_json(value: Any) -> None:
    shown = json.dumps(error_content(value), ensure_ascii=False, allow_nan=False)
    shown.encode()
    assert len(shown) < 12_000


@pytest.mark.parametrize(
    "value",
    [
        json.loads(nested(900)),
        ["\ud83d"],
        {"\ud83d": "\udce9"},
        10**5000,
        -(10**5000),
        float("nan"),
        b"\xff" * 10**6,
        "x" * 10**6,
        ["x" * 10**6] * 1000,
        list(range(10**5)),
        {str(number): number for number in range(10**5)},
        [[]] * 10**5,
    ],
    ids=range(12),
)
def test_the_content_of_an_error_is_short(value: Any) -> None:
    shown = json.dumps(error_content(value), ensure_ascii=False, allow_nan=False)
    shown.encode()
    assert len(shown) < 6000


def test_the_content_of_an_error_keeps_its_form() -> None:
    assert error_content(["caf\udce9", "1", None, 2.5]) == ["caf\\xe9", "1", None, 2.5]
    assert error_content({"a": [True, {"b": b"caf\xe9"}]}) == {"a": [True, {"b": "caf\\xe9"}]}


@pytest.mark.parametrize("on_error", ["fail", "null", "skip"])
@pytest.mark.parametrize("output", ["out.csv", "out.jsonl"])
def test_on_error_decides_what_becomes_of_such_a_row(
    on_error: str, output: str, artifact: Path, tmp_path: Path, read: Any
) -> None:
    source = tmp_path / "in.parquet"
    pyarrow.parquet.write_table(table(pyarrow.array([1, 2**62, 3], pyarrow.timestamp("us"))), source)
    if on_error == "fail":
        with pytest.raises(InputError, match="row 2 cannot be scored: 't' is beyond the years 1 to 9999"):
            score_file(source, tmp_path / output, model=artifact)
        return
    summary = score_file(source, tmp_path / output, model=artifact, on_error=on_error)
    rows = read(tmp_path / output)
    assert summary.errors == 1 and [bool(row["label"]) for row in rows] == (
        [True, False, True] if on_error == "null" else [True] * 2
    )
    listed = json.loads((tmp_path / f"{output}.errors.jsonl").read_text())
    assert (listed["row"], listed["reason"]) == (2, "'t' is beyond the years 1 to 9999")


def test_an_error_with_surrogates_in_a_list_is_listed(artifact: Path, tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text('{"text": ["\\ud83d"]}\n{"text": "good"}\n')
    score_file(tmp_path / "in.jsonl", tmp_path / "out.jsonl", model=artifact, on_error="null")
    listed = json.loads((tmp_path / "out.jsonl.errors.jsonl").read_text())
    assert listed == {"row": 1, "reason": "'text' is of type list, expected a string", "input": ["\\ud83d"]}


def test_a_parquet_without_columns_is_an_error(convert: Any) -> None:
    with pytest.raises(InputError, match="no columns"):
        convert(pyarrow.table({"id": [1, 2]}).select([]), "in.parquet")


def test_a_page_that_does_not_have_its_checksum_is_an_error(convert: Any, tmp_path: Path) -> None:
    table = pyarrow.table({"text": [f"good {number}" for number in range(2000)]})
    pyarrow.parquet.write_table(table, tmp_path / "whole.parquet", compression="none", write_page_checksum=True)
    content = (tmp_path / "whole.parquet").read_bytes()
    assert convert(content, "in.parquet").texts[7] == "good 7"
    with pytest.raises(InputError, match="damaged"):
        convert(content.replace(b"good 7", b"fine 7", 1), "in.parquet")
