"""Which rare tests a change runs again."""

import pytest

from touched import touched

FAULTS = "tests/workflow/test_faults.py"
SLURM = "tests/workflow/test_slurm.py"


@pytest.mark.parametrize("changed", ["README.md", "docs/theory.md", "benchmarks/bench_theory.py"])
def test_docs_and_benchmarks_touch_no_rare_test(changed):
    assert touched({changed}) == []


@pytest.mark.parametrize("changed", ["Snakefile", "workflow/rules/report.smk", "pyproject.toml"])
def test_the_workflow_touches_every_test_that_runs_it(changed):
    assert {FAULTS, SLURM} <= {*touched({changed})}


def test_a_module_touches_the_tests_of_what_imports_it_and_no_others():
    found = touched({"workflow/pdswitch/theory/peak.py"})
    assert "tests/theory/test_memory.py" in found
    assert "tests/plugin/test_scheduler_contract.py" not in found


def test_a_test_and_its_helpers_touch_it():
    assert touched({FAULTS}) == [FAULTS]
    assert FAULTS in touched({"tests/support/checkout.py"})
