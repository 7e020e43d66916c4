"""The tables of docs/scoring.md: each row has a test, which is named here."""

from __future__ import annotations

from pathlib import Path

TESTS = {
    "`.csv`, `.tsv`": "test_the_delimiter_that_is_given_divides_the_cells",
    "`.txt`": "test_a_txt_has_the_lines_that_open_gives",
    "a `.txt` that begins like a table": "test_a_table_under_the_name_of_a_txt_stops_the_run",
    "`.jsonl`, `.ndjson`": "test_a_jsonl_line_keeps_its_text",
    "`.json`, or a": "test_an_array_has_the_objects_that_json_reads",
    "a `.json` with an object a line": "test_a_json_with_an_object_a_line_is_read_as_lines",
    "a `.json` that is one object": "test_a_json_that_is_neither_an_array_nor_lines_is_an_error",
    "an array that is cut off": "test_an_array_that_is_cut_off_anywhere_is_an_error",
    "`.parquet`, `.pq`": "test_parquet_columns_keep_types_and_metadata",
    "`.gz`, `.bz2`": "test_members_one_after_the_other_are_read_as_one_file",
    "`.zip`": "test_a_zip_has_one_file_whose_name_gives_the_format",
    "a zip with several files": "test_a_zip_that_cannot_be_one_file_is_an_error",
    "a compressed file or a parquet": "test_a_damaged_file_is_an_error",
    "a compressed file, spreadsheet, parquet": "test_a_compressed_file_under_another_name_is_an_error",
    "a csv, tsv, txt or jsonl without bytes": "test_an_empty_file_among_several_has_no_rows",
    "a parquet without columns": "test_a_parquet_without_columns_is_an_error",
    "zero bytes": "test_a_file_of_another_kind_is_named",
    "UTF-8, or UTF-8": "test_a_byte_order_mark_names_the_encoding",
    "UTF-16 or UTF-32 without": "test_wide_characters_without_a_mark_stop_the_run",
    "`--encoding latin-1`": "test_an_encoding_that_is_given_decodes_the_text",
    "an encoding that is unknown": "test_an_encoding_that_is_none_of_text_is_refused",
    "bytes that do not fit": "test_bytes_that_do_not_fit_are_an_error_of_their_row",
    "CRLF, CR": "test_a_csv_keeps_line_ends_and_byte_order_mark",
    "has a usual name": "test_a_usual_name_is_a_header_with_every_other_delimiter_in_the_rows",
    "`sep=;`": "test_an_unusual_first_line_stops_the_run",
    "one cell with another delimiter": "test_an_unusual_first_line_stops_the_run",
    "one cell without a usual name": "test_an_unusual_first_line_stops_the_run",
    "several cells, none": "test_where_no_column_is_found_the_message_says_what_may_be_wrong",
    "any, with `--no-header`": "test_without_a_header_every_line_is_a_row",
    "two columns of one name": "test_columns_that_share_a_name_are_refused",
    "none: an empty csv": "test_an_empty_file_without_a_header_has_no_rows",
    "an empty text": "test_unusual_contents_survive_every_format",
    "a text that is null": "test_a_jsonl_line_that_cannot_be_scored_is_named",
    "a second text that is null": "test_a_null_second_text_is_a_single_text",
    "a line or an element": "test_elements_other_than_objects_are_errors_of_their_rows",
    "a row with more or fewer cells": "test_null_keeps_a_bad_row_without_a_score",
    "a text that the model cannot take": "test_a_token_without_a_vector_is_an_error_of_its_row",
    "a blank line": "test_blank_lines_are_rows_only_in_a_csv_with_one_column",
    "a misplaced quote": "test_misplaced_quotes_are_refused",
    "a header and no rows": "test_an_array_without_objects_has_no_rows",
    "a time of parquet": "test_nanoseconds_are_iso_8601_with_nine_digits",
    "a time beyond": "test_a_parquet_value_that_cannot_be_converted_is_an_error_of_its_row",
    "a string of parquet": "test_a_text_that_is_not_utf8_is_an_error_of_its_row",
    "lists and objects": "test_a_jsonl_value_that_cannot_be_converted_is_an_error_of_its_row",
    "a lone surrogate": "test_lone_surrogates_in_values_are_replaced",
    "an integer of any length": "test_an_integer_of_any_length_is_read",
    "a jsonl key, or": "test_a_key_that_the_first_rows_do_not_have_is_an_error_of_its_row",
    "a jsonl key with several types": "test_a_type_that_parquet_does_not_have_is_an_error_before_the_work",
    "rows without any key": "test_rows_without_any_column_are_kept",
    "a tab or a newline": "test_a_cell_that_a_tsv_without_quotes_cannot_hold_is_an_error_of_its_row",
}
HEADS = {"input", "first line", "value", "---"}


def test_each_row_of_the_tables_of_inputs_has_a_test(repository: Path) -> None:
    page = (repository / "docs" / "scoring.md").read_text(encoding="utf-8")
    section = page.partition("## What becomes of each input")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ")[0].split("|")[0] for line in section.splitlines() if line.startswith("|")]
    rows = [row for row in rows if row not in HEADS]
    assert [row for row in rows if sum(row.startswith(each) for each in TESTS) != 1] == []
    assert [each for each in TESTS if not any(row.startswith(each) for row in rows)] == []
    tests = "".join(path.read_text(encoding="utf-8") for path in (repository / "tests/engine/scoring").rglob("test_*.py"))
    assert [name for name in TESTS.values() if f"def {name}(" not in tests] == []
