import re
import runpy
import subprocess
import sys

import pytest

TABLE = re.compile(r"<!-- table: (\w+) -->\n(.*?)<!-- end -->", re.DOTALL)


@pytest.fixture(scope="module")
def script(root):
    return runpy.run_path(str(root / "tools/theory_figures.py"))


def test_every_table_is_made_by_the_script_and_every_figure_is_there(root, script):
    document = (root / "docs/theory.md").read_text(encoding="utf-8")
    tables = dict(TABLE.findall(document))
    assert set(tables) == set(script["SECTIONS"])
    assert all(text.startswith("| ") for text in tables.values())
    figures = re.findall(r"\]\((figures/\w+\.png)\)", document)
    assert len(figures) == len(tables)
    assert all((root / "docs" / figure).stat().st_size > 5_000 for figure in figures)


def test_a_cheap_table_is_current(root, script):
    document = (root / "docs/theory.md").read_text(encoding="utf-8")
    _, lines = script["example"]()
    assert script["fill"](document, "example", lines) == document


def test_a_missing_marker_is_an_error(script):
    with pytest.raises(ValueError, match="markers of table regret exactly once"):
        script["fill"]("no markers", "regret", [])


@pytest.mark.rare
def test_all_tables_are_current(root, command_environment):
    path = root / "tools/theory_figures.py"
    subprocess.run([sys.executable, path, "--check"], check=True, env=command_environment)
