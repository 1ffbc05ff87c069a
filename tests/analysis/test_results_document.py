"""Every field that the results have is described."""

import re

import pytest

from pdswitch.analysis.termination import HazardCurve, OfflineEstimate, Termination
from pdswitch.plugin.record import RequestRow, Step


def documented(root) -> set[str]:
    return set(re.findall(r"`([a-z_0-9]+)`", (root / "docs/results.md").read_text()))


def test_record_columns_are_described(root):
    assert {*Step._fields, *RequestRow._fields} <= documented(root)


def test_fields_of_the_termination_file_are_described(root):
    types = (Termination, OfflineEstimate, HazardCurve)
    fields = {name for one in types for name in one.__struct_fields__}
    assert fields <= documented(root)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("workflow/pdswitch/analysis/results.py", r'^ {8}"([a-z_]+)":'),
        ("workflow/scripts/threshold.py", r'^ {8}"([a-z_]+)":'),
        ("workflow/pdswitch/engine/measurement.py", r'^ {8}"([a-z_]+)":'),
    ],
)
def test_keys_written_by_the_code_are_described(root, module, names):
    written = set(re.findall(names, (root / module).read_text(), re.MULTILINE))
    assert len(written) >= 4
    assert written - documented(root) == set()
