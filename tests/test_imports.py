"""The rooms of the library: which package may import which, and which libraries."""

import sys
from graphlib import TopologicalSorter

import grimp
import pytest

# Top down; a package imports only what stands below its own line.
LAYERS = [
    ["cli"],
    ["figures"],
    ["report"],
    ["analysis"],
    ["engine"],
    ["config"],
    ["datasets"],
    ["profiling", "simulation"],
    ["theory"],
    ["scheduler", "record"],
    ["plugin"],
    ["stages", "estimation"],
    ["checkpoint"],
    ["model"],
    ["files", "paths", "complaints", "catalogue"],
    ["errors"],
]
COMMANDS = ["pdswitch.__main__", "pdswitch.theory.__main__"]
PLUGIN_IMPORTS = {"msgspec", "vllm"}


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    graph = grimp.build_graph("pdswitch", include_external_packages=True)
    # Commands that are started as modules stand above everything, wherever they lie.
    for module in COMMANDS:
        assert not graph.find_modules_that_directly_import(module)
        graph.remove_module(module)
    return graph


def modules_of(graph: grimp.ImportGraph, package: str) -> set[str]:
    return {package, *graph.find_descendants(package)}


def libraries_of(graph: grimp.ImportGraph, package: str) -> set[str]:
    imported = set()
    for module in modules_of(graph, package):
        imported |= {
            name.partition(".")[0] for name in graph.find_modules_directly_imported_by(module)
        }
    return imported - set(sys.stdlib_module_names) - {"pdswitch"}


def test_every_module_has_its_layer(graph):
    placed = {f"pdswitch.{name}" for layer in LAYERS for name in layer}
    assert graph.find_children("pdswitch") == placed


def test_imports_run_down(graph):
    layers = tuple(grimp.Layer(*layer, independent=True) for layer in LAYERS)
    found = graph.find_illegal_dependencies_for_layers(layers, containers={"pdswitch"})
    assert {(one.importer, one.imported) for one in found} == set()


def test_no_circles(graph):
    inside = {module: set() for module in modules_of(graph, "pdswitch")}
    for module in inside:
        inside[module] = graph.find_modules_directly_imported_by(module) & inside.keys()
    # A package's __init__ hands on what its modules define.
    TopologicalSorter(inside).prepare()


def test_the_plugin_needs_msgspec_and_vllm_alone(graph):
    assert libraries_of(graph, "pdswitch.plugin") == PLUGIN_IMPORTS
    own = modules_of(graph, "pdswitch.plugin")
    for module in own:
        imported = graph.find_modules_directly_imported_by(module)
        ours = {name for name in imported if name.startswith("pdswitch")}
        assert ours <= own | {"pdswitch.errors"}, module


@pytest.mark.parametrize("package", ["theory", "simulation", "estimation", "profiling"])
def test_mathematics_needs_neither_vllm_nor_snakemake(graph, package):
    allowed = {"numpy", "scipy", "numba", "pandas", "msgspec"}
    assert libraries_of(graph, f"pdswitch.{package}") <= allowed
