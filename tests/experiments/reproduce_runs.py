"""Runs of a published cell, as `reproduce` leaves them, and what it would train."""

import json

import finished_runs

from experiments.reproduce import __main__ as reproduce

CELL = "mnist_static_linear_muprop"


def leave_run(place, seed, *, steps=300_000, nll=108.0, **config):
    """A finished or unfinished run of a cell's CPU budget, as the program leaves it."""
    cell = next(cell for cell in place.table.cells if cell.name == CELL)
    settings = {**cell.settings("cpu"), "seed": seed, **config}
    workdir = place.workdir(cell, "cpu", seed)
    finished_runs.make(workdir, "binary_vae", {"nll_nats": nll}, **settings)
    path = workdir / "summary.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "steps": steps}))
    return cell


def chosen(place, **settings):
    config = reproduce.Config(budget="cpu", cells="mnist_static_linear_muprop", **settings)
    (_, cells, more) = reproduce.choose(config, ["table1", "--log_interval=7"])
    return config, place, cells, more
