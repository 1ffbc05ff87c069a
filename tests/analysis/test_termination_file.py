"""`termination.json` is read as it was written; a file of another version is refused by name."""

import re

import msgspec
import pytest

from pdswitch.analysis.termination import read_termination, summarise_lengths
from pdswitch.errors import InputError
from pdswitch.files import write_json
from synthetic_runs import termination_of, termination_requests


@pytest.mark.parametrize("all_cut", [False, True])
def test_it_is_read_as_it_was_written(tmp_path, all_cut):
    requests = termination_requests()
    if all_cut:
        requests["truncated"] = True
    summary = summarise_lengths(requests, 32, "mean", 0.3)
    write_json(tmp_path / "termination.json", msgspec.to_builtins(summary))
    assert read_termination(tmp_path / "termination.json") == summary


@pytest.mark.parametrize("version", [0, 2])
def test_another_version_is_refused_by_name(tmp_path, version):
    file = tmp_path / "termination.json"
    content = termination_of(termination_requests()) | {"schema_version": version}
    if version == 0:  # such files had no version
        del content["schema_version"]
    write_json(file, content)
    with pytest.raises(InputError, match=rf"{re.escape(str(file))} .*schema {version}, .*reads 1"):
        read_termination(file)


@pytest.mark.parametrize("text", ["", "[]", '{"schema_version": 1}'])
def test_a_damaged_file_is_refused_by_name(tmp_path, text):
    file = tmp_path / "termination.json"
    file.write_text(text)
    with pytest.raises(InputError, match=f"{re.escape(str(file))} is damaged"):
        read_termination(file)
