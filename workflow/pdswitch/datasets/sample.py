"""What becomes of a record: a request in text, a request by lengths, or nothing."""

from typing import Any, NamedTuple

from pdswitch.errors import InputError

Message = dict[str, Any]
# Lengths are written as int32.
MOST_TOKENS = 2**31 - 1
NOT_UNICODE = "text that is not valid Unicode"


class DatasetError(InputError):
    """A source that cannot be used; the message says what to do."""


class Sample(NamedTuple):
    """One request before tokenization.

    Attributes:
        source_id: names the record in its source.
        prompt: what the user asks, or a chat as messages with role and content.
        reference_output: the dataset's own answer, None where it has none.
    """

    source_id: str
    prompt: str | list[Message]
    reference_output: str | None = None


class Lengths(NamedTuple):
    """One request of which only the lengths are known.

    Attributes:
        source_id: names the record in its source.
        prompt_tokens: length of the prompt, tokens.
        output_tokens: length of the answer, tokens.
        number: of the record, counted from 0; with the seed it determines the token ids.
    """

    source_id: str
    prompt_tokens: int
    output_tokens: int
    number: int


class Skipped(NamedTuple):
    """A record that is no request.

    Attributes:
        reason: one of few, because they are counted.
        detail: what this record met, for the message when there are too few requests.
    """

    reason: str
    detail: str = ""


Outcome = Sample | Lengths | Skipped


def text_flaw(text: str) -> str | None:
    """Return why a text cannot be a prompt or an answer, None if it can."""
    if not text or text.isspace():
        return "empty text"
    if "\0" in text:
        return "text with a NUL byte"
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:  # a lone surrogate, or bytes that were not UTF-8
            return NOT_UNICODE
    return None
