"""Who says what in a turn of a conversation, in the forms that are around.

ShareGPT writes {from, value}, most others {role, content}; the speakers' names differ as well. Of
both forms in one table Arrow makes turns with all four keys, two of them null.
"""

from collections.abc import Mapping
from typing import Any

USER, ASSISTANT = "user", "assistant"
SPEAKERS = {
    **dict.fromkeys(("human", "user"), USER),
    **dict.fromkeys(
        ("ai", "assistant", "bard", "bing", "bot", "chatgpt", "gpt", "model"), ASSISTANT
    ),
}


def read_turn(turn: Any) -> tuple[str | None, Any]:
    """Return USER, ASSISTANT or None for another speaker, and what is said."""
    if not isinstance(turn, Mapping):
        return None, None
    speaker, text = (
        next((turn[key] for key in keys if turn.get(key) is not None), None)
        for keys in (("from", "role"), ("value", "content"))
    )
    return SPEAKERS.get(speaker.strip().lower()) if isinstance(speaker, str) else None, text
