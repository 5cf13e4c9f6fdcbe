"""The pages of results and of speed state the numbers that the recorded runs gave."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.common import merging

DOCS = Path(__file__).parent.parent / "docs"
RESULTS = DOCS / "results"
RECORDS = {
    "table1": "table1.json",
    "table2": "table2.json",
    "table3": "table3.json",
    "joint_vae": "joint_vae.json",
    "quantizers": "quantizers.json",
    "boltzmann": "boltzmann.json",
    "disarm": "disarm_table.json",
    "cifar10_vq": "cifar10_vq/results.json",
    "codes_in_use": "codes_in_use/results.json",
}
_FOOTNOTE = "(?: [\u00b9\u00b2\u00b3\u2074\u2075])?"
NUMBER = re.compile(r"\*{0,2}(\d+\.\d+)\*{0,2}( %)?(?: ± [\d.]+)?" + _FOOTNOTE)


def cells(page: Path):
    """The cells of a page's tables, without headers and the rows of published values."""
    for line in page.read_text().split("\n"):
        if line.startswith("| ") and "*published*" not in line and "`--" not in line:
            yield from (cell.strip() for cell in line.strip("|").split("|"))


def measured(record) -> list[float]:
    """The size of every number of a summary's evaluation on test images; lists by their mean."""
    values = [*record["test"].values(), *record.get("baseline", {}).values()]
    numbers = [np.mean(x) if isinstance(x, list) else x for x in values]
    return [abs(float(x)) for x in numbers if not isinstance(x, str)]


def is_rounded(text: str, numbers: Iterable[float]) -> bool:
    """Tells whether a number that is written in a page is one of these, rounded."""
    half = 0.5 * 10.0 ** -len(text.partition(".")[2])
    return any(abs(float(text) - x) <= half + 1e-9 for x in numbers)


@pytest.mark.parametrize("name", RECORDS)
def test_tables_have_the_recorded_numbers(name) -> None:
    records = json.loads((RESULTS / RECORDS[name]).read_text())
    numbers = [x for record in records for x in measured(record)]
    if name == "joint_vae":
        of_lengths: dict[int, list[float]] = {}
        for record in records:
            of_lengths.setdefault(record["num_steps"], []).append(record["test"]["accuracy"])
        numbers += [float(np.mean(values)) for values in of_lengths.values()]
        numbers += [record["train"]["loss_nats"] for record in records if "train" in record]
    if name in ("disarm", "quantizers"):  # means over seeds
        rows: dict[object, list[dict[str, Any]]] = {}
        for record in records:
            sizes = [record["config"].get(field) for field in ("codebook_size", "levels")]
            rows.setdefault((record["estimator"], *sizes), []).append(record)
        numbers = [x for seeds in rows.values() for x in measured(merging.merge(seeds))]
        learned = "learned_bits_per_dim"  # also how far seeds are apart
        numbers += [
            float(np.ptp([record["test"][learned] for record in seeds]))
            for seeds in rows.values()
            if all(learned in record["test"] for record in seeds)
        ]
    if name == "cifar10_vq":
        for file in ("options.json", "pairs.json", "best.json"):
            more = json.loads((RESULTS / name / file).read_text())
            numbers += [x for record in more for x in measured(record)]
    if name == "boltzmann":
        samplers = json.loads((RESULTS / name / "samplers.json").read_text())["records"]
        numbers += [x for record in samplers for x in record.values() if isinstance(x, float)]
    matches = [NUMBER.fullmatch(cell) for cell in cells(RESULTS / name / "README.md")]
    stated = [match.groups() for match in matches if match]
    assert len(stated) >= 3
    for text, percent in stated:
        assert is_rounded(text, [100 * x if percent else x for x in numbers]), text


def test_speed_has_the_recorded_ratios() -> None:
    comparisons = json.loads((RESULTS / "benchmarks.json").read_text())
    medians = [[form["median_ms"] for form in c["forms"].values()] for c in comparisons]
    ratios = [other / ours for times in medians for ours in times for other in times]
    table = (DOCS / "guides" / "speed.md").read_text().partition("## How costs grow")[0]
    rows = re.findall(r"^\| .* \| (.*) \|$", table, re.MULTILINE)
    stated = [x for row in rows for x in re.findall(r" (\d[\d.]*)(?=,|;|$)", row)]
    assert len(stated) >= 15
    assert [text for text in stated if not is_rounded(text, ratios)] == []
