"""JSON arrays, in and out, compared with ``json.loads``."""

from __future__ import annotations

import io
import itertools
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fusedbert.engine import InputError
from fusedbert.engine.scoring.formats.json import Elements

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
OBJECTS = st.lists(st.dictionaries(st.sampled_from(["text", "id", "more"]), VALUES, max_size=3), max_size=5)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=OBJECTS, indent=st.sampled_from([None, 0, 2, "\t"]), ascii=st.booleans())
@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_an_array_has_the_objects_that_json_reads(convert: Any, name: str, rows: Any, indent: Any, ascii: bool) -> None:
    content = json.dumps(rows, indent=indent, ensure_ascii=ascii).encode("utf-8", "replace")
    written = convert(content, name, "out.jsonl").path.read_bytes().decode().split("\n")[:-1]
    assert [json.loads(line) for line in written] == [{**row, "label": "L"} for row in json.loads(content)]
    array = convert(content, name, "out.json").path.read_bytes()
    assert json.loads(array) == [{**row, "label": "L"} for row in json.loads(content)]


def test_objects_longer_than_a_piece_of_the_file_are_read(convert: Any) -> None:
    rows = [{"text": character * size} for size in (0, 65_500, 65_536, 300_000) for character in ('"', "\\", "ü", "]}", "9")]
    assert convert(json.dumps(rows, ensure_ascii=False), "in.json").texts == [row["text"] for row in rows]
    numbers = [{"text": "x", "n": int("9" * size)} for size in range(1, 400)] * 3
    found = convert(json.dumps(numbers, indent=1), "in.json", "out.json")
    assert [row["n"] for row in json.loads(found.path.read_bytes())] == [row["n"] for row in numbers]


def test_numbers_keep_their_digits(convert: Any) -> None:
    content = f'[{{"text": "a", "n": 1.50, "big": {"9" * 5000}}},\n {{"text":\n"b"}}]'
    for output in ("out.jsonl", "out.json"):
        written = convert(content, "in.json", output).path.read_text()
        assert f'{{"text": "a", "n": 1.50, "big": {"9" * 5000}, "label": "L"}}' in written
    assert written.startswith("[\n{") and written.endswith("}\n]\n") and '{"text": "b", ' in written


@pytest.mark.parametrize("name", ["in.json", "in.jsonl"])
def test_an_array_that_is_cut_off_anywhere_is_an_error(convert: Any, name: str) -> None:
    content = ' [{"text": "go\\"od", "n": [1.5, null]}, {"text": "bad"}]\n'
    for end in range(content.index("{") + 1, content.rindex("]")):
        with pytest.raises(InputError, match=r"is damaged after row [0-2] of its array: it is cut off"):
            convert(content[:end], name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('[{"text": "a"},]', "row 1.*character 16"),
        ('[{"text": "a"} {"text": "b"}]', "row 1.*'{' where ',' or ']'"),
        ('[{"text": "a"}, {text: "b"}' + ', {"text": "c"}' * 9 + "]", "row 1.*property name.*character 18"),
        ('[{"text": "a"}] {}', "row 1.*more after the end"),
        ('{"text": "a"}', "is one object, expected an array"),
        ('{\n"text": "a"}', "is one object, or cut off"),
        ('{"data": [{"text": "a"}]}\n', "is one object, expected an array"),
        ('"text"\n"more"\n', "begins with '\"text\"'"),
        ("text\ngood\n", "begins with 'text'"),
        ("", "is empty"),
        ("\ufeff \n", "is empty"),
    ],
)
def test_a_json_that_is_neither_an_array_nor_lines_is_an_error(convert: Any, content: str, said: str) -> None:
    with pytest.raises(InputError, match=said):
        convert(content, "in.json")


def test_a_json_with_an_object_a_line_is_read_as_lines(convert: Any) -> None:
    found = convert('\ufeff{"text": "a"}\n\nnonsense\n{"text": "b"}', "in.json")
    assert (found.texts, found.reasons) == (["a", None, "b"], {2: "no JSON object"})


@pytest.mark.parametrize(
    ("content", "reasons"),
    [
        ('["a"]\n{"text": "good"}\n', {1: "no JSON object"}),
        ('[{"text": "a"}]\n{"text": "good"}\n', {1: "no JSON object"}),
        ('[{"text": "a"}]\n[{"text": "b"}]\n', {1: "no JSON object", 2: "no JSON object"}),
        ("[1, 2]\n", {1: "no JSON object"}),
        ("[" * 100_000 + "\n", {1: "no JSON object"}),
    ],
)
def test_an_array_in_a_line_of_a_jsonl_is_an_error_of_its_row(convert: Any, content: str, reasons: Any) -> None:
    assert convert(content, "in.jsonl").reasons == reasons


@pytest.mark.parametrize("content", ["[]", "[\n]\n", " [ ] "])
def test_an_array_without_objects_has_no_rows(convert: Any, content: str) -> None:
    for name in ("in.json", "in.jsonl"):
        found = convert(content, name, "out.json")
        assert found.texts == json.loads(found.path.read_bytes()) == []


def test_elements_other_than_objects_are_errors_of_their_rows(convert: Any) -> None:
    deep = '{"text": "b", "x": ' + "[" * 50_000 + '"]\\""' + "]" * 50_000 + "}"
    found = convert(f'[{{"text": "a"}}, 5, null, {deep}, "x", {{"text": "c"}}]', "in.json", "out.json")
    assert found.texts == ["a", None, None, None, None, "c"]
    assert found.reasons == {2: "no JSON object", 3: "no JSON object", 4: "nested too deep", 5: "no JSON object"}
    assert len(json.loads(found.path.read_bytes())) == 6


class Endless(io.TextIOBase):
    """The text of an array, made as it is read."""

    def __init__(self, element: str, count: int) -> None:
        self.reads, self._left, self._element = 0, count, element

    def read(self, size: int | None = -1, /) -> str:
        self.reads += 1
        count = min(self._left, max(1, (size or 0) // len(self._element)))
        self._left -= count
        return self._element * count


def test_memory_does_not_grow_with_an_array() -> None:
    element = '{"text": "' + "word " * 200 + '"},'
    source = Endless(element, 8000)
    tracemalloc.start()
    texts = itertools.islice((text for text, _ in Elements(source, ["["], "x")), 7990)
    assert all(text == element[:-1] for text in texts)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert source.reads > 100 and peak < 2 << 20  # of 8 million characters


def test_reading_a_long_object_takes_few_steps() -> None:
    source = Endless("word ", 4_000_000)
    with pytest.raises(InputError, match="cut off"):
        list(Elements(source, ['[{"text": "'], "x"))
    assert source.reads < 40


def test_brackets_in_a_long_string_do_not_end_a_value_that_is_nested_too_deep() -> None:
    deep = f'{{"x": {"[" * 5000}"\\"{"]" * 400_000}}}, {{"{"]" * 5000}}}'
    text = io.StringIO(f'[{{"first": 1}},\n{deep},\n{{"last": 1}}]')
    found = list(Elements(text, [], "in.json"))
    assert found == [('{"first": 1}', {"first": 1}), (deep, None), ('{"last": 1}', {"last": 1})]
