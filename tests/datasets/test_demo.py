"""The prompts that come with the package: enough of them, of every length, no two alike."""

import re
from itertools import pairwise

import pytest

from pdswitch.datasets.demo import PROMPTS, SEPARATOR
from pdswitch.datasets.loading import load
from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.sample import Sample


@pytest.fixture(scope="module")
def prompts() -> list[str]:
    outcomes, _ = load(dataset_options("demo", {}))
    found = list(outcomes)
    assert all(isinstance(outcome, Sample) for outcome in found)
    return [outcome.prompt for outcome in found]


def test_there_are_enough_and_none_is_lost(prompts):
    assert len(prompts) == PROMPTS.read_text(encoding="utf-8").count(SEPARATOR) + 1
    assert len(prompts) >= 300
    assert len(set(prompts)) == len(prompts)


def test_lengths_vary_from_a_line_to_several_paragraphs(prompts):
    words = sorted(len(prompt.split()) for prompt in prompts)
    assert words[0] <= 5
    assert words[len(words) // 2] <= 15
    assert words[-len(words) // 10] >= 60
    assert words[-1] >= 200
    assert sum("\n\n" in prompt for prompt in prompts) >= 25


def test_the_first_prompts_are_a_fair_sample(prompts):
    first = [len(prompt) for prompt in prompts[:72]]
    everything = [len(prompt) for prompt in prompts]
    ratio = (sum(first) / len(first)) / (sum(everything) / len(everything))
    assert 0.75 < ratio < 1.33


def test_no_two_are_made_from_one_template(prompts):
    pairs = [frozenset(pairwise(w)) for w in map(_words, prompts)]
    alike = [
        (prompts[i], prompts[j])
        for i, one in enumerate(pairs)
        for j, other in enumerate(pairs[:i])
        if one and len(one & other) / len(one | other) > 0.5
    ]
    assert alike == []


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())
