"""Graphs: what the constructor refuses, colorings, named topologies, files of their machines."""

import os
import pickle
import subprocess
import sys
from types import SimpleNamespace

import jax
import numpy as np
import pytest
from sparse import PRISM, on, prism

from dvae import boltzmann
from dvae.boltzmann import Graph, _graph, edge_lists, graphs


def assert_proper(graph):
    i, j = graph.edges.T
    assert np.all(graph.colors[i] != graph.colors[j])
    assert set(graph.colors) == set(range(graph.num_colors))


def test_a_graph_keeps_its_edges_and_is_static():
    graph = Graph(6, PRISM)
    np.testing.assert_array_equal(graph.edges, PRISM)
    assert graph.edges.dtype == np.int32
    assert (graph.num_units, graph.num_edges, graph.num_colors) == (6, 9, 3)
    np.testing.assert_array_equal(graph.degrees, 3)
    assert_proper(graph)
    assert repr(graph) == "Graph(6 units, 9 edges, 3 colors)"
    assert jax.tree.leaves(graph) == []
    with pytest.raises(ValueError, match="read-only"):
        graph.edges[0] = 1
    same, other = Graph(6, np.array(PRISM)), Graph(6, PRISM[::-1])
    assert same == graph
    assert hash(same) == hash(graph)
    assert other != graph
    assert Graph(6, PRISM, colors=[0, 1, 2, 1, 2, 0]) != Graph(6, PRISM, colors=[1, 0, 2, 0, 2, 1])
    calls = []
    f = jax.jit(lambda m: calls.append(0) or m.bias.sum())
    for topology in (graph, same):
        f(on(topology))
    assert len(calls) == 1, "an equal graph was compiled again"


def test_colors_are_proper_and_few():
    rng = np.random.default_rng(0)
    for density in (0.0, 0.05, 0.3, 1.0):
        upper = np.argwhere(np.triu(rng.random((40, 40)) < density, 1))
        graph = Graph(40, rng.permutation(upper))
        assert_proper(graph)
        assert graph.num_colors <= graph.degrees.max() + 1
    assert graph.num_colors == 40
    # Trees and even cycles among them; a greedy coloring in the order of labels would need more.
    for _ in range(20):
        left = rng.random(24) < 0.5
        adjacency = np.triu(rng.random((24, 24)) < 0.12, 1) & (left[:, None] != left[None])
        assert Graph(24, np.argwhere(adjacency)).num_colors <= 2


def test_units_of_labels_are_joined_to_all_others():
    for graph in (Graph(6, PRISM), graphs.complete(3), Graph(2, [])):
        n = graph.num_units
        found = graphs.with_labels(graph, 2)
        assert (found.num_units, found.num_colors) == (n + 2, graph.num_colors + 1)
        assert_proper(found)
        np.testing.assert_array_equal(found.edges[: graph.num_edges], graph.edges)
        added = [(unit, label) for label in (n, n + 1) for unit in range(n)]
        np.testing.assert_array_equal(found.edges[graph.num_edges :], added)
    with pytest.raises(ValueError, match="num_labels must be at least 1, got 0"):
        graphs.with_labels(graph, 0)
    with pytest.raises(ValueError, match="neighbor lists of"):
        graphs.with_labels(Graph(1 << 20, [], colors=np.zeros(1 << 20, int)), 100)


def test_named_graphs():
    assert_proper(graphs.complete(5))
    assert graphs.complete(5).num_edges == 10
    assert graphs.complete(1).num_edges == 0
    two = graphs.bipartite(2, 3)
    np.testing.assert_array_equal(two.edges, [(i, j) for i in (0, 1) for j in (2, 3, 4)])
    np.testing.assert_array_equal(two.colors, [0, 0, 1, 1, 1])
    four = graphs.k_partite(2, 1, 3, 1)
    assert_proper(four)
    assert (four.num_colors, four.num_edges) == (4, 2 * 5 + 1 * 4 + 3 * 1)
    square = graphs.grid(3, 4)
    assert (square.num_units, square.num_edges, square.num_colors) == (12, 2 * 4 + 3 * 3, 2)
    torus = graphs.grid(3, 4, periodic=True)
    np.testing.assert_array_equal(torus.degrees, 4)
    assert graphs.grid(5).num_edges == 4
    assert graphs.grid(5, periodic=True).num_colors == 3
    assert graphs.grid(4, 1, periodic=True).num_edges == 4


def test_annealers_have_their_topologies():
    topologies = pytest.importorskip("dwave_networkx")
    for name, sizes, colors, units, edges in (
        ("chimera", (3, 2, 4), 2, 48, 3 * 2 * 16 + 4 * (2 * 2 + 3 * 1)),
        ("pegasus", (3,), 4, 128, None),
        ("zephyr", (2,), 4, 160, None),
        ("zephyr", (8,), 4, 2176, 20328),
    ):
        graph = getattr(graphs, name)(*sizes)
        expected = getattr(topologies, f"{name}_graph")(*sizes)
        labels = {label: unit for unit, label in enumerate(sorted(expected.nodes))}
        wanted = {tuple(sorted((labels[a], labels[b]))) for a, b in expected.edges}
        assert {tuple(edge) for edge in graph.edges.tolist()} == wanted
        assert (graph.num_units, graph.num_colors) == (units, colors)
        assert edges is None or graph.num_edges == edges


def test_a_missing_extra_is_one_line(monkeypatch):
    monkeypatch.setitem(sys.modules, "dwave_networkx", None)
    match = r"^boltzmann\.graphs\.zephyr needs dwave_networkx: pip install '\.\[graphs\]' in a "
    with pytest.raises(ImportError, match=match):
        graphs.zephyr(2)


@pytest.mark.parametrize(
    ("edges", "match"),
    [
        ([(0, 1), (2, 2)], "edge 1 joins unit 2 to itself"),
        ([(0, 1), (2, 3), (1, 0)], "edges 0 and 2 both join units 0 and 1"),
        ([(0, 1), (2, 4)], r"edge 1 is \(2, 4\), outside of the units 0 to 3"),
        ([(0, 1), (-1, 2)], r"edge 1 is \(-1, 2\), outside"),
        ([(0.0, 1.0)], r"edges must be integers \[E, 2\], got float64 \(1, 2\)"),
        ([(0, 1, 2)], r"got int64 \(1, 3\)"),
        ([(0, 1), (1, 2, 3)], r"edges must be integers \[E, 2\], got rows of several lengths"),
        (SimpleNamespace(edges=[(0, 1)]), r"got a .*; of a networkx graph: list\(graph\.edges\)$"),
    ],
)
def test_edges_that_are_none_are_refused(edges, match):
    with pytest.raises(ValueError, match=match):
        Graph(4, edges)


def test_other_mistakes_are_named(monkeypatch):
    with pytest.raises(ValueError, match="num_units must be at least 1, got 0"):
        Graph(0, [])
    with pytest.raises(ValueError, match="units 0 and 1 share an edge and color 0"):
        Graph(3, [(0, 1)], colors=[0, 0, 1])
    with pytest.raises(ValueError, match=r"colors must be 3 integers, got int64 \(2,\)"):
        Graph(3, [(0, 1)], colors=[0, 1])
    with pytest.raises(ValueError, match="edges must be static"):
        jax.jit(lambda e: Graph(3, e).num_units)(np.array([(0, 1)]))
    with pytest.raises(ValueError, match="a ring of 2 units"):
        graphs.grid(2, 3, periodic=True)
    with pytest.raises(ValueError, match="a part's size must be at least 1, got 0"):
        graphs.k_partite(3, 0)
    with pytest.raises(ValueError, match="k_partite needs the sizes"):
        graphs.k_partite()
    with pytest.raises(ValueError, match="grid needs the lengths"):
        graphs.grid()
    with pytest.raises(ValueError, match=r"10000000 units takes too much memory to be colored"):
        Graph(10**7, [(0, 1)])
    monkeypatch.setattr(_graph, "MAX_ENTRIES", 40)
    with pytest.raises(ValueError, match="50 units, 49 edges needs neighbor lists of 1 GiB"):
        Graph(50, [(i, i + 1) for i in range(49)])
    # A hub beside others of its color pads their lists to its length.
    with pytest.raises(ValueError, match=r"50 units, 10 edges, 2 colors .* split units"):
        Graph(50, [(0, i) for i in range(1, 11)], colors=[0, *[1] * 10, *[0] * 39])


@pytest.mark.parametrize(
    ("make", "sizes"),
    [
        (graphs.complete, (10**6,)),
        (graphs.bipartite, (10**5, 10**5)),
        (graphs.k_partite, (10**5, 10**4, 10**5)),
        (graphs.grid, (10**6, 10**6)),
        (graphs.chimera, (10**5,)),
        (graphs.pegasus, (10**5,)),
        (graphs.zephyr, (10**5,)),
    ],
)
def test_graphs_beyond_the_memory_are_refused_before_they_are_made(make, sizes):
    with pytest.raises(
        ValueError, match=r"needs neighbor lists of \d+ GiB, more than 1: "
    ) as error:
        make(*sizes)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("end", ["csv", "npz"])
def test_machines_come_back_from_files(tmp_path, end):
    path = tmp_path / f"machine.{end}"
    params = prism(seed=3)
    edge_lists.write(path, params)
    found = edge_lists.read(path)
    assert found.graph == params.graph
    for a, b in zip(found[:2], params[:2], strict=True):
        assert a.dtype == np.float32
        np.testing.assert_array_equal(a, b)
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    edge_lists.write(path, params._replace(bias=params.bias + 1))
    np.testing.assert_array_equal(edge_lists.read(path).bias, params.bias + 1)


def test_a_csv_file_is_read_in_any_order(tmp_path):
    path = tmp_path / "machine.csv"
    path.write_text("i,j,value\n3,0,0.5\n\n1,1,-2\n0,1,1e-3\n")
    params = edge_lists.read(path)
    np.testing.assert_array_equal(params.graph.edges, [(3, 0), (0, 1)])
    np.testing.assert_array_equal(params.bias, [0, -2, 0, 0])
    np.testing.assert_array_equal(params.weights, np.float32([0.5, 1e-3]))


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"machine\.csv, line 1: the header must be i,j,value"),
        ("a,b,c\n", r"machine\.csv, line 1: the header must be i,j,value"),
        ("i,j,value\n", r"machine\.csv: there is no entry"),
        ("i,j,value\n0,1\n", r"machine\.csv, line 2: expected i,j,value, got 2 fields"),
        ("i,j,value\n0,1,x\n", r"machine\.csv, line 2: expected i,j,value, got 0,1,x"),
        ("i,j,value\n0,1,1\n0.5,1,1\n", r"machine\.csv, line 3: expected i,j,value"),
        ("i,j,value\n0,1,1\n1,0,1\n", r"machine\.csv, line 3: 1,0 was on line 2 already"),
        ("i,j,value\n0,-1,1\n", r"machine\.csv, line 2: unit -1 is below 0"),
        ("i,j,value\n0,9999999999,1\n", r"line 2: unit 9999999999 is above 4194303"),
        ("i,j,value\n0,1,nan\n", r"machine\.csv, line 2: the value nan is NaN or infinite"),
        ("i,j,value\n0,1,1e39\n", r"machine\.csv, line 2: the value 1e39 is NaN or infinite"),
        ("i,j,value\n0,\xff,1\n", r"machine\.csv: not a CSV file"),
    ],
)
def test_damaged_csv_files_are_refused(tmp_path, text, match):
    path = tmp_path / "machine.csv"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(ValueError, match=match):
        edge_lists.read(path)


def test_damaged_npz_files_are_refused(tmp_path):
    path = tmp_path / "machine.npz"
    path.write_bytes(b"no archive")
    with pytest.raises(ValueError, match=r"machine\.npz: not an edge list: it is no npz file"):
        edge_lists.read(path)
    good = {"bias": np.zeros(3), "weights": np.ones(1), "edges": np.array([(0, 2)])}
    np.savez(path, **good)
    assert edge_lists.read(path).bias.dtype == np.float64
    for change, match in (
        ({"edges": np.array([(0, 3)])}, r"machine\.npz: edge 0 is \(0, 3\), outside"),
        ({"weights": np.full(1, np.nan)}, r"machine\.npz: weights has entries that are NaN"),
        ({"weights": np.ones(2)}, r"machine\.npz: a machine on .* got shapes \(3,\) and \(2,\)"),
        ({"bias": np.array(["a"])}, r"machine\.npz: bias must be real numbers"),
    ):
        np.savez(path, **{**good, **change})
        with pytest.raises(ValueError, match=match):
            edge_lists.read(path)
    np.savez(path, bias=np.zeros(3))
    with pytest.raises(ValueError, match=r"machine\.npz: .* no array edges, weights"):
        edge_lists.read(path)
    with pytest.raises(ValueError, match=r"machine\.txt: an edge list ends in \.csv or \.npz"):
        edge_lists.write(tmp_path / "machine.txt", prism())
    with pytest.raises(ValueError, match="NaN or infinite"):
        edge_lists.write(path, prism()._replace(bias=np.full(6, np.nan)))
    assert boltzmann.Graph is Graph


def test_a_graph_that_was_pickled_is_equal_in_another_process(tmp_path):
    """Where Python's hashes of bytes are others."""
    file = tmp_path / "graph.pickle"
    file.write_bytes(pickle.dumps(graphs.grid(2, 3)))
    code = (
        "import pickle, sys; from dvae.boltzmann import graphs;"
        "loaded = pickle.load(open(sys.argv[1], 'rb'));"
        "assert loaded == graphs.grid(2, 3) and hash(loaded) == hash(graphs.grid(2, 3));"
        "assert not loaded.edges.flags.writeable"
    )
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        subprocess.run([sys.executable, "-c", code, str(file)], check=True, env=environment)
