"""The table of finished runs, and the file that keeps them."""

import json

import pytest
from table_summaries import summary, write

from experiments import table1
from experiments.common import groups
from experiments.common import tables as result_tables


def test_rows_hold_the_published_value_of_their_cell(tmp_path):
    runs = [
        write(tmp_path / "a", summary(estimator="power")),
        write(tmp_path / "b", summary()),
        write(tmp_path / "c", summary(estimator="exponential")),
    ]
    table = result_tables.compare(table1.TABLE, runs, tmp_path / "out")
    lines = [line for line in table.splitlines() if "mnist_static" in line]
    assert [line.split("|")[3].strip() for line in lines] == [
        "rebar",
        "exponential joint",
        "power joint",
    ]
    assert "107.65 ± 0.08" in lines[0]
    assert "+1.00" in lines[0]
    assert "300,000" in lines[0]
    assert "107.98 ± 0.10" in lines[1]
    assert "±" not in lines[2]
    assert table in (tmp_path / "out" / "table1.md").read_text()
    records = json.loads((tmp_path / "out" / "table1.json").read_text())
    assert [record["config"]["workdir"] for record in records] == [""] * 3


def test_tables_without_published_values_do_not_speak_of_them(tmp_path):
    unpublished = table1.TABLE._replace(published={}, source="")
    table = result_tables.compare(unpublished, [write(tmp_path / "a", summary())], tmp_path / "out")
    text = (tmp_path / "out" / f"{unpublished.name}.md").read_text()
    assert table in text
    assert "published" not in text.lower()
    assert "difference" not in text.lower()


def test_several_seeds_show_their_spread():
    several = summary()
    several |= {"seeds": [0, 1], "test": {**several["test"], "nll_nats": [108.0, 109.0]}}
    assert result_tables.row(table1.TABLE, several)["test NLL"] == "108.50 ± 0.71"


def test_other_models_are_refused(tmp_path):
    with pytest.raises(ValueError, match="has no place in table1: its models have one group"):
        result_tables.read_runs(table1.TABLE, [write(tmp_path / "two", summary(num_groups=2))])


def test_a_cell_of_several_rows_says_what_sets_them_apart(tmp_path):
    runs = [
        write(tmp_path / "a", summary(weight_decay=0.5, schedule="linear", beta=4.0)),
        write(tmp_path / "b", summary(schedule="constant", batch_size=100)),
        write(tmp_path / "c", summary(estimator="nvil")),
    ]
    table = result_tables.compare(table1.TABLE, runs, tmp_path / "out")
    rows = [line.split("|")[-2].strip() for line in table.splitlines()]
    assert rows[0] == "other settings"
    assert rows[2:] == [
        "",
        "weight_decay=0.5, schedule=linear",
        "weight_decay=0.0, schedule=constant",
    ]


def test_runs_of_other_seeds_share_a_row(tmp_path):
    first, second = summary(), summary(seed=1)
    second |= {"seeds": [1], "test": {**second["test"], "nll_nats": 109.65}}
    runs = [write(tmp_path / "a", second), write(tmp_path / "b", first)]
    (row,) = result_tables.compare(table1.TABLE, runs, tmp_path / "out").splitlines()[2:]
    assert "109.15 ± 0.71" in row
    assert "| 0 1" in row
    assert len(json.loads((tmp_path / "out" / "table1.json").read_text())) == 2


def test_runs_that_a_file_held_and_that_are_not_named_are_kept(tmp_path, capsys):
    places = [write(tmp_path / str(seed), {**summary(), "seeds": [seed]}) for seed in range(3)]
    out = tmp_path / "out"
    path = out / "table1.json"

    def again(*named):
        result_tables.compare(table1.TABLE, list(named), out)
        return capsys.readouterr().err

    seeds_in = lambda file: sorted(s["seeds"][0] for s in groups.read_summaries(file))
    assert again(*places[:2]) == ""
    assert again(path, places[2]) == "", "the file is among those named"
    assert seeds_in(path) == [0, 1, 2]
    assert again(*places) == ""
    kept = out / "table1.before.json"
    assert not kept.exists()
    assert again(*places[1:]).startswith(f"1 of the 3 runs that {path} held are not in it now")
    assert seeds_in(kept) == [0, 1, 2]
    assert again(places[2]).startswith("1 of the 2 runs")
    assert seeds_in(kept) == [0, 1, 2], "what was kept before, too"


def test_what_is_left_out_is_kept_before_anything_is_replaced(tmp_path, monkeypatch):
    places = [write(tmp_path / str(seed), {**summary(), "seeds": [seed]}) for seed in range(2)]
    result_tables.compare(table1.TABLE, places, tmp_path / "out")
    text = (tmp_path / "out" / "table1.json").read_text()

    def full(path, value):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(result_tables.checkpoint, "write_json", full)
    with pytest.raises(ValueError, match="No space left on device"):
        result_tables.compare(table1.TABLE, places[1:], tmp_path / "out")
    assert (tmp_path / "out" / "table1.json").read_text() == text
    order = []
    monkeypatch.setattr(result_tables.checkpoint, "write_json", lambda p, _: order.append(p.name))
    result_tables.compare(table1.TABLE, places[1:], tmp_path / "out")
    assert order == ["table1.before.json", "table1.json"]


def test_a_run_that_went_on_under_another_limit_is_itself(tmp_path, capsys):
    for limit in (5.0, 7.0):
        place = write(tmp_path / str(limit), summary(time_limit=limit))
        result_tables.compare(table1.TABLE, [place], tmp_path / "out")
    assert capsys.readouterr().err == ""
