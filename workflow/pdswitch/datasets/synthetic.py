"""Requests whose lengths follow a law; the prompts are random token ids."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from pydantic import Field

from pdswitch.datasets.laws import (
    FixedLaw,
    GammaLaw,
    GeometricLaw,
    LengthLaw,
    LognormalLaw,
    UniformLaw,
)
from pdswitch.datasets.options import DatasetOptions
from pdswitch.datasets.sample import MOST_TOKENS, Lengths
from pdswitch.datasets.source import Source

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

# Drawn at a time, so that the first lengths are the same however many are asked for.
BLOCK = 1024
# Times as many as are wanted, at most: a law above max_input_tokens must come to an end.
PATIENCE = 16


class SyntheticOptions(DatasetOptions):
    """Lengths from a law, token ids by seed."""

    lengths_only = True
    input_lengths: LengthLaw = Field(
        GeometricLaw(law="geometric", mean=128), description="Law of the prompt lengths."
    )
    output_lengths: LengthLaw = Field(
        GeometricLaw(law="geometric", mean=128), description="Law of the answers' lengths."
    )


def columns(options: SyntheticOptions) -> list[set[str]]:
    """Return what a record must have."""
    return [{"input", "output"}]


def records(options: SyntheticOptions, source: Source | None) -> Iterator[dict[str, int]]:
    """Yield pairs of lengths, determined by the seed."""
    # Imported here: the config reads the options at every call.
    import numpy as np

    inputs = np.random.default_rng([options.seed, 0])
    outputs = np.random.default_rng([options.seed, 1])
    for _ in range(PATIENCE * (1 + options.num_requests // BLOCK)):
        for pair in zip(
            draw_lengths(options.input_lengths, BLOCK, inputs).tolist(),
            draw_lengths(options.output_lengths, BLOCK, outputs).tolist(),
            strict=True,
        ):
            yield dict(zip(("input", "output"), pair, strict=True))


def samples(record: Mapping[str, Any], place: int, options: SyntheticOptions) -> Iterator[Lengths]:
    """Yield the request of a pair of lengths."""
    yield Lengths(f"synthetic-{place}", record["input"], record["output"], place)


def draw_lengths(law: LengthLaw, count: int, random: "np.random.Generator") -> "NDArray[np.int64]":
    """Return lengths drawn from a law, tokens, at least 1.

    Lognormal: exp(normal) with variance ln(1 + cv²) and mean ln(mean) - variance/2. Gamma: shape
    1/cv², scale mean·cv². Both are rounded to whole tokens, which moves the mean of short lengths.
    """
    import numpy as np

    match law:
        case FixedLaw():
            return np.full(count, law.tokens, dtype=np.int64)
        case UniformLaw():
            return random.integers(law.low, law.high, count, endpoint=True)
        case GeometricLaw():
            return random.geometric(1.0 / law.mean, count)
        case LognormalLaw():
            variance = np.log1p(law.cv**2)
            lengths = random.lognormal(np.log(law.mean) - variance / 2, np.sqrt(variance), count)
        case GammaLaw():
            lengths = random.gamma(law.cv**-2, law.mean * law.cv**2, count)
    # The longest are too long for any use; whole numbers have an end.
    return np.clip(np.rint(lengths), 1, MOST_TOKENS + 1).astype(np.int64)
