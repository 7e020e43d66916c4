import pytest

from fusedbert.bench.engines.shapes import DEFAULT_SHAPES, Shape, parse_shapes, refuse_longer
from fusedbert.engine.errors import OptionError


def test_the_default_is_the_five_shapes_in_order():
    found = [(shape.batch, shape.tokens) for shape in parse_shapes(DEFAULT_SHAPES)]
    assert found == [(1, 16), (1, 128), (8, 128), (16, 32), (1, 512)]


def test_spaces_capitals_and_repetition_are_taken():
    assert parse_shapes(" 2X8 ,2x8,1x3") == (Shape(batch=2, tokens=8), Shape(batch=1, tokens=3))


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "''"),
        ("1x16,", "''"),
        ("16", "'16'"),
        ("1x", "'1x'"),
        ("axb", "'axb'"),
        ("1x16;8x128", "'1x16;8x128'"),
        ("-1x16", "'-1x16'"),
        ("1x1_6", "'1x1_6'"),
        ("1x²", "'1x²'"),
        ("9999999x16", "'9999999x16'"),
        ("0x16", "0x16"),
        ("1x2", "3 or more"),
    ],
)
def test_a_wrong_shape_is_named_in_one_line(text, says):
    with pytest.raises(OptionError) as caught:
        parse_shapes(text)
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_shape_beyond_the_model_is_refused_by_name():
    refuse_longer(parse_shapes("1x16,4x128"), 128)
    with pytest.raises(OptionError, match="4x129 has 129 tokens, the model takes at most 128"):
        refuse_longer(parse_shapes("1x16,4x129"), 128)
