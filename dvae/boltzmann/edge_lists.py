"""Machines as edge lists in files that other tools read: CSV and npz.

    edge_lists.write("machine.csv", params)
    params = edge_lists.read("machine.csv")

A CSV file has the header `i,j,value` and one line for each entry of the energy, units from 0: `i,i`
and its bias for each unit, in order, and then `i,j` and its weight for each edge. An npz file has
bias [n], weights [E], edges [E, 2] and colors [n]. Both keep all digits of the parameters.
"""

import csv
import os
import zipfile
from pathlib import Path
from typing import Any, cast

import numpy as np

from dvae._replacing import replacing
from dvae.boltzmann._graph import MAX_COLORED, Graph
from dvae.boltzmann._machine import Machine, check_machine

__all__ = ["read", "write"]

_HEADER = ["i", "j", "value"]


def write(path: str | os.PathLike[str], params: Machine) -> None:
    """Writes a machine, in the format that the end of the name says.

    Args:
        path: a file that ends in .csv or .npz; one that is there is replaced.
        params: Machine of known parameters.

    Raises:
        ValueError: if the name ends otherwise, or the parameters are no machine's.
    """
    path = Path(path)
    kind = _kind(path)
    check_machine(params)
    # Half precision is written as float32, which has all its values.
    bias, weights = (_wide(np.asarray(x)) for x in params[:2])
    graph = params.graph
    with replacing(path) as part:
        if kind == ".npz":
            with part.open("wb") as file:
                np.savez(file, bias=bias, weights=weights, edges=graph.edges, colors=graph.colors)
        else:
            with part.open("w", encoding="utf-8", newline="") as file:
                rows = csv.writer(file, lineterminator="\n")
                rows.writerow(_HEADER)
                rows.writerows((i, i, str(b)) for i, b in enumerate(bias))
                pairs = zip(graph.edges.tolist(), weights, strict=True)
                rows.writerows((i, j, str(w)) for (i, j), w in pairs)


def read(path: str | os.PathLike[str]) -> Machine:
    """Reads a machine, in the format that the end of the name says.

    Args:
        path: a file that ends in .csv or .npz. Of a CSV file the lines may come in any order;
            units without a line have the bias 0, and there are as many as the largest number says.

    Returns:
        Machine of float32 NumPy parameters, float64 from npz files that have it; edges in the order
        of the file.

    Raises:
        ValueError: if the file is damaged, or no machine's; the message names file and line.
        OSError: if it can't be read.
    """
    path = Path(path)
    return _read_npz(path) if _kind(path) == ".npz" else _read_csv(path)


def _kind(path: Path) -> str:
    """Returns the end of the name."""
    if path.suffix.lower() not in (".csv", ".npz"):
        raise ValueError(f"{path}: an edge list ends in .csv or .npz")
    return path.suffix.lower()


def _wide(x: np.ndarray) -> np.ndarray:
    return x if x.dtype == np.float64 else x.astype(np.float32)


def _read_csv(path: Path) -> Machine:
    biases: dict[int, float] = {}
    edges: dict[tuple[int, int], float] = {}
    lines: dict[tuple[int, int], int] = {}
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.reader(file)
            header = [field.strip() for field in next(rows, [])]
            if header != _HEADER:
                raise ValueError(f"{path}, line 1: the header must be i,j,value, got {header}")
            for row in rows:
                if not row:
                    continue
                i, j, value = _entry(path, rows.line_num, row)
                pair = min(i, j), max(i, j)
                if pair in lines:
                    raise ValueError(
                        f"{path}, line {rows.line_num}: {i},{j} was on line {lines[pair]} already"
                    )
                lines[pair] = rows.line_num
                if i == j:
                    biases[i] = value
                else:
                    edges[i, j] = value
    except (UnicodeDecodeError, csv.Error) as error:
        raise ValueError(f"{path}: not a CSV file: {error}") from None
    if not lines:
        raise ValueError(f"{path}: there is no entry after the header")
    bias = np.zeros(max(j for _, j in lines) + 1, np.float32)
    bias[list(biases)] = list(biases.values())
    return _machine(path, bias, np.array(list(edges.values()), np.float32), list(edges), None)


def _entry(path: Path, line: int, row: list[str]) -> tuple[int, int, float]:
    """Reads one line."""
    where = f"{path}, line {line}"
    if len(row) != 3:
        raise ValueError(f"{where}: expected i,j,value, got {len(row)} fields")
    try:
        i, j, value = int(row[0]), int(row[1]), float(row[2])
    except ValueError:
        raise ValueError(f"{where}: expected i,j,value, got {','.join(row)}") from None
    if min(i, j) < 0:
        raise ValueError(f"{where}: unit {min(i, j)} is below 0")
    if max(i, j) >= MAX_COLORED:  # the arrays of all units before it would fill the memory
        raise ValueError(f"{where}: unit {max(i, j)} is above {MAX_COLORED - 1}, the largest read")
    with np.errstate(over="ignore"):
        if not np.isfinite(np.float32(value)):
            raise ValueError(f"{where}: the value {row[2]} is NaN or infinite")
    return i, j, value


def _read_npz(path: Path) -> Machine:
    if path.is_file() and not zipfile.is_zipfile(path):
        raise ValueError(f"{path}: not an edge list: it is no npz file")
    try:
        with np.load(path, allow_pickle=False) as found:
            missing = {"bias", "weights", "edges"} - set(found.files)
            if missing:
                raise ValueError(f"there is no array {', '.join(sorted(missing))}")
            arrays = {name: found[name] for name in ("bias", "weights", "edges")}
            colors = found["colors"] if "colors" in found.files else None
    except (ValueError, zipfile.BadZipFile, EOFError, KeyError) as error:
        raise ValueError(f"{path}: not an edge list: {error}") from None
    for name in ("bias", "weights"):
        if arrays[name].ndim != 1 or arrays[name].dtype.kind not in "fiu":
            found_as = f"{arrays[name].dtype} {arrays[name].shape}"
            raise ValueError(f"{path}: {name} must be real numbers [n], got {found_as}")
        if not np.isfinite(arrays[name]).all():
            raise ValueError(f"{path}: {name} has entries that are NaN or infinite")
    return _machine(path, _wide(arrays["bias"]), _wide(arrays["weights"]), arrays["edges"], colors)


def _machine(
    path: Path,
    bias: np.ndarray,
    weights: np.ndarray,
    edges: np.ndarray | list[tuple[int, int]],
    colors: np.ndarray | None,
) -> Machine:
    """Puts a machine together; says of what is wrong with it in which file it is."""
    try:
        graph = Graph(len(bias), edges, colors=colors)
        params = Machine(cast(Any, bias), cast(Any, weights), graph)  # NumPy's keep doubles
        check_machine(params)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return params
