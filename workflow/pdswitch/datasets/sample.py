"""What every dataset module yields."""

from dataclasses import dataclass


class DatasetError(ValueError):
    """A source that cannot be used; the message says what to do."""


@dataclass(frozen=True)
class Sample:
    """One request before tokenization.

    Attributes:
        source_id: names the record in its source.
        prompt: what the user asks.
        reference_output: the dataset's own answer, None where it has none.
    """

    source_id: str
    prompt: str
    reference_output: str | None = None


@dataclass(frozen=True)
class Skipped:
    """A record that is no request.

    Attributes:
        source_id: names the record in its source.
        reason: one of few, because they are counted.
    """

    source_id: str
    reason: str
