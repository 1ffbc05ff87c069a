"""Which files Snakemake watches as inputs, and how an edit of the others is noticed."""

import os

from hypothesis import given
from hypothesis import strategies as st

from pdswitch.stages.inputs import stamps, watchable

NAMES = st.text(st.characters(exclude_characters="/\0", exclude_categories=["Cs"]), min_size=1)


@given(st.lists(NAMES))
def test_what_can_be_an_input_has_no_braces_and_keeps_its_order(names):
    assert watchable(names) == [name for name in names if "{" not in name and "}" not in name]


def test_an_edit_of_a_file_with_braces_is_another_param(tmp_path):
    plain, braces = tmp_path / "it's a ~x ü", tmp_path / "a {b}"
    for path in (plain, braces):
        path.write_text("1")
    files = [str(plain), str(braces)]
    before = stamps(files)
    assert [stamp[0] for stamp in before] == [str(braces)]
    assert stamps(files[::-1]) == before
    os.utime(braces, (1, 1))
    assert stamps(files) != before
