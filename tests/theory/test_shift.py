"""How the online estimators follow a shift of the lengths, as docs/engine.md tells it."""

import runpy

import numpy as np
import pytest


@pytest.fixture(scope="module")
def script(root):
    return runpy.run_path(str(root / "tools/shift_figure.py"))


@pytest.fixture(scope="module")
def medians(script):
    """Estimate over the new p, two update intervals into the new law: by estimator and slots."""
    return {
        (name, n_slots): np.median(script["two_intervals_after"](name, n_slots))
        for name in script["NAMES"]
        for n_slots in script["SLOTS"]
    }


def test_the_table_in_the_document_is_current(root, script):
    document = (root / "docs/engine.md").read_text(encoding="utf-8")
    start, end = "<!-- table: shift -->\n", "<!-- end -->"
    written = document.split(start, 1)[1].split(end, 1)[0]
    assert written.splitlines() == script["table"]()


def test_slots_that_are_never_empty_make_one_token_each_in_every_step(script):
    lengths = np.array([3, 5, 2, 4, 9])
    done = list(script["serve"](lengths, 2, 2))
    # Slot A: 3, then 2, then 9 tokens; slot B: 5, then 4.
    assert [one.output_tokens for one in done] == [3, 5, 2]
    assert [one.shifted for one in done] == [False, False, True]
    # At their ends, in steps 3, 5 and 5, two slots have made twice as many tokens as steps.
    generated = np.cumsum([one.output_tokens for one in done])
    assert (generated + [one.tokens_in_progress for one in done]).tolist() == [6, 10, 10]


def test_completions_per_token_follows_within_two_intervals_up_to_its_window(medians):
    for n_slots in (8, 16, 32, 64):
        assert medians["completions_per_token", n_slots] == pytest.approx(1, abs=0.15)
    assert 1.3 < medians["completions_per_token", 256] < 1.8


@pytest.mark.parametrize("name", ["ema_length", "window"])
def test_completed_lengths_alone_follow_with_few_slots_only(medians, name):
    for n_slots in (8, 16):
        assert medians[name, n_slots] == pytest.approx(1, abs=0.3)
    # The first to end are the short ones: the old law, 8 times p, and the new one seem mixed.
    assert medians[name, 64] > 1.4
    assert medians[name, 256] > 2.5


def test_the_average_of_the_inverse_never_follows(medians):
    assert all(medians["ema_inverse", n_slots] > 2 for n_slots in (8, 16, 32, 64, 256))
