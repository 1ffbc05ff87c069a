"""Versions of vLLM on which the scheduler was tried."""

import re

import pytest

from pdswitch.plugin.compatibility import TRIED_VERSIONS, warn_of_untried_version


@pytest.mark.parametrize("version", [*TRIED_VERSIONS, "0.32.4", "0.32.0+cpu"])
def test_a_version_that_was_tried_is_used_without_a_word(version, caplog):
    warn_of_untried_version(version)
    assert caplog.text == ""


@pytest.mark.parametrize("version", ["0.33.0", "0.25.1", "1.0", "dev"])
def test_another_version_gets_a_warning_that_names_those_that_were_tried(version, caplog):
    warn_of_untried_version(version)
    (record,) = caplog.records
    assert f"0.26.0, 0.30.0, 0.32.0; this is {version}" in record.getMessage()


def test_the_versions_are_those_of_the_documented_contract(root):
    header = next(
        line
        for line in (root / "docs/vllm_versions.md").read_text().splitlines()
        if line.startswith("| |")
    )
    assert tuple(re.findall(r"[\d.]+", header)) == TRIED_VERSIONS
    assert " ".join(TRIED_VERSIONS) in (root / "Makefile").read_text()
