"""What a manifest says of the requests: a digest of their content, statistics of their lengths."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from pdswitch.estimation.survival import geometric_ks_distance

UNKNOWN = -1


class Digest:
    """A digest of prompts, token ids and answers' lengths, the same however they are divided."""

    def __init__(self) -> None:
        self._parts = [hashlib.sha256() for _ in range(4)]

    def update(self, table: pa.Table) -> None:
        """Add the rows of a table."""
        prompts, token_ids, lengths, outputs = self._parts
        for prompt in table["prompt"].to_pylist():
            prompts.update(prompt.encode() + b"\0")
        ids = table["prompt_token_ids"].combine_chunks().flatten()
        token_ids.update(ids.to_numpy().astype("<i4").tobytes())
        lengths.update(table["prompt_tokens"].to_numpy().astype("<i4").tobytes())
        known = table["reference_output_tokens"].fill_null(UNKNOWN)
        outputs.update(known.to_numpy().astype("<i4").tobytes())

    def hexdigest(self) -> str:
        """Return the digest of everything added so far."""
        return hashlib.sha256(b"".join(part.digest() for part in self._parts)).hexdigest()


def length_statistics(
    prompt_tokens: Sequence[int], output_tokens: Sequence[int | None]
) -> dict[str, Any]:
    """Return the manifest's statistics of prompts and answers, lengths in tokens.

    `geometric_ks_distance` is the Kolmogorov-Smirnov distance of the answers' lengths to the
    geometric law with their mean: 0 where every token is the last one with the same probability.
    """
    known = [tokens for tokens in output_tokens if tokens is not None]
    outputs: dict[str, Any] = {"known": len(known), "unknown": len(output_tokens) - len(known)}
    if known:
        outputs |= _statistics(known)
        outputs["geometric_ks_distance"] = geometric_ks_distance(np.maximum(known, 1))
    return {"prompt_tokens": _statistics(prompt_tokens), "reference_output_tokens": outputs}


def _statistics(lengths: Sequence[int]) -> dict[str, Any]:
    values = np.asarray(lengths)
    median, high = np.percentile(values, [50, 95])
    mean, deviation = float(values.mean()), float(values.std())
    return {
        "total": int(values.sum()),
        "mean": mean,
        "std": deviation,
        "cv": deviation / mean if mean > 0 else None,
        "min": int(values.min()),
        "median": float(median),
        "p95": float(high),
        "max": int(values.max()),
    }
