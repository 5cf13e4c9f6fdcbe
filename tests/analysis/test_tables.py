import numpy as np
import pytest

from dvae.analysis import tables


def test_markdown_exact_text():
    rows = [
        ("gs_soft", tables.format_value(4.6134, 0.0212), 512, "seed 1"),
        ("vq", np.float32(4.81), 128, ""),
        ("a|b\nc", "—", 8, 3),
    ]
    expected = (
        "| estimator |      bits/dim |   C | note   |\n"
        "| --------- | ------------: | --: | ------ |\n"
        "| gs_soft   | 4.613 ± 0.021 | 512 | seed 1 |\n"
        "| vq        |         4.810 | 128 |        |\n"
        "| a\\|b c    |             — |   8 | 3      |\n"
    )
    assert tables.markdown(("estimator", "bits/dim", "C", "note"), rows) == expected


def test_markdown_without_rows_or_with_narrow_columns():
    assert tables.markdown(("a", "b"), []) == "| a   | b   |\n| --- | --- |\n"
    assert tables.markdown(("a",), [(1,)]) == "|   a |\n| --: |\n|   1 |\n"


def test_markdown_refuses_ragged_rows():
    with pytest.raises(ValueError, match=r"2 cells, as the header \('a', 'b'\).*\['1'\]"):
        tables.markdown(("a", "b"), [(1, 2), (1,)])


@pytest.mark.parametrize("cell", ["1,024", "-3", "+2.5", "1e-5", "nan", "inf", "12%", "5 ± nan", 7])
def test_numbers_are_flush_right(cell):
    assert "-: |\n" in tables.markdown(("title",), [(cell,)])


@pytest.mark.parametrize("cell", ["abc", "4x4", "1 2", "v1", "", None, True])
def test_other_cells_are_flush_left(cell):
    assert "- |\n" in tables.markdown(("title",), [(cell,)])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (4.6134, "4.613"),
        (4.6, "4.600"),
        (9.99996, "10.00"),
        (-0.012342, "-0.01234"),
        (12345.6, "12346"),
        (123.456, "123.5"),
        (0.0, "0.000"),
        (3e-5, "3.000e-05"),
        (2.5e7, "2.500e+07"),
        (512, "512"),
        (np.int64(512), "512"),
        (10**9, "1000000000"),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
    ],
)
def test_format_value(value, text):
    assert tables.format_value(value) == text


@pytest.mark.parametrize(
    ("value", "std", "text"),
    [
        (4.6134, 0.0212, "4.613 ± 0.021"),
        (4.6134, 0.0996, "4.61 ± 0.10"),
        (9876.5, 123.4, "9876 ± 123"),
        (5, 0.5, "5.00 ± 0.50"),
        (1.0, 2e-6, "1.0000000 ± 0.0000020"),
        (4.6134, 0.0, "4.613 ± 0"),
        (4.6134, float("nan"), "4.613 ± nan"),
        (float("nan"), 0.1, "nan ± 0.10"),
    ],
)
def test_format_value_with_an_error(value, std, text):
    assert tables.format_value(value, std) == text


def test_format_value_refuses_a_negative_error():
    with pytest.raises(ValueError, match="not be negative, got -1"):
        tables.format_value(1.0, -1.0)


def test_both_ends_of_plain_notation():
    assert tables.format_value(1e7) == "1.000e+07"
    assert tables.format_value(1e-4) == "0.0001000"
