"""Counts, majority classes and accuracy of codes."""

import numpy as np
import pytest

from dvae.analysis import codes


def test_codes_are_scored_by_the_classes_of_other_images():
    fit_codes, fit_labels = np.array([0, 0, 0, 2, 2, 2]), np.array([1, 1, 0, 1, 0, 0])
    counts = codes.confusion(fit_codes, fit_labels, num_codes=4, num_classes=2)
    np.testing.assert_array_equal(counts, [[1, 0, 2, 0], [2, 0, 1, 0]])
    classes = codes.majority_classes(counts)
    # Codes 1 and 3 are unused: the commonest class of all, the first of two equals.
    np.testing.assert_array_equal(classes, [1, 0, 0, 0])
    assert codes.accuracy(classes, np.array([0, 0, 2, 3]), np.array([1, 0, 0, 0])) == 0.75


def test_confusion_against_counting():
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, 200), rng.integers(0, 3, 200)
    expected = [[((b == i) & (a == j)).sum() for j in range(5)] for i in range(3)]
    np.testing.assert_array_equal(codes.confusion(a, b, num_codes=5, num_classes=3), expected)


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "uint64", "bool"])
def test_numbers_of_cells_are_larger_than_labels_and_codes(dtype):
    """Of 10 classes and 100 codes the largest is 999; of 50,000 codes it needs 32 bits."""
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 100, 300), rng.integers(0, 2 if dtype == "bool" else 10, 300)
    expected = np.zeros((10, 100))
    np.add.at(expected, (b, a), 1)
    for kind in ("int64", "uint64", "uint8"):
        found = codes.confusion(a.astype(kind), b.astype(dtype), num_codes=100, num_classes=10)
        np.testing.assert_array_equal(found, expected)
    wide = codes.confusion(a, b.astype(dtype), num_codes=50_000, num_classes=10)
    np.testing.assert_array_equal(wide[:, :100], expected)
    assert wide.sum() == 300


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        ([0, 1], [0], r"\[N\] alike"),
        ([[0]], [[0]], r"\[N\] alike"),
        ([0, 3], [0, 0], "codes must be 0 to 2, got 0 to 3"),
        ([0, 0], [0, -1], "labels must be 0 to 1, got -1 to 0"),
        ([0, 0], [0.5, 0], r"labels must be integers \[N\], got float64 \(2,\); real labels have"),
        ([0, 0], [[0.5], [0]], r"labels must be integers \[N\], got float64 \(2, 1\)"),
    ],
)
def test_what_cannot_be_counted(a, b, message):
    with pytest.raises(ValueError, match=message):
        codes.confusion(a, b, num_codes=3, num_classes=2)


def test_accuracy_needs_images_and_classes():
    with pytest.raises(ValueError, match="labels must be integers"):
        codes.accuracy([0, 1], [0, 1], [0.0, 1.0])
    with pytest.raises(ValueError, match="N at least 1"):
        codes.accuracy([0, 1], [], [])


def test_an_unused_code_has_the_commonest_class_of_images_not_of_codes():
    np.testing.assert_array_equal(codes.majority_classes([[1, 0, 0], [0, 0, 5]]), [0, 1, 1])


@pytest.mark.parametrize("code", [-1, 2])
def test_accuracy_refuses_codes_without_a_class(code):
    with pytest.raises(ValueError, match=f"codes must be 0 to 1, got {min(code, 0)} to"):
        codes.accuracy([0, 1], [0, code], [1, 1])
