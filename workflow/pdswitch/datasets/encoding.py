"""Text to token ids, in batches: chat template, special tokens, lengths, random ids."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdswitch.datasets.sample import DatasetError, Message

# Classes that add nothing to what tokenizer.json says.
PLAIN_CLASSES = {"PreTrainedTokenizerFast", "TokenizersBackend"}
# No vocabulary gets by with fewer tokens than one per so many characters of ordinary text; longer
# texts are tried by their beginning first.
CHARACTERS_PER_TOKEN = 16
# Tokens at the cut that the whole text may join in another way.
CUT_TOKENS = 64


class Encoder:
    """A tokenizer as the datasets need it.

    Attributes:
        templated: whether prompts go through the tokenizer's chat template.
        sha256: of vocabulary, merges and chat template: what the token ids depend on.
    """

    def __init__(
        self,
        tokenizer: Any,
        apply_chat_template: bool = True,
        enable_thinking: bool = False,
        vocabulary_size: int | None = None,
    ) -> None:
        """Prepare a tokenizer of transformers.

        Args:
            tokenizer: with the tokenizers library behind it.
            apply_chat_template: False to take every text as it stands.
            enable_thinking: passed to the template.
            vocabulary_size: the model's, where that is less than the tokenizer's.

        Raises:
            DatasetError: if the tokenizer is a slow one.
        """
        self._backend: Any = getattr(tokenizer, "backend_tokenizer", None)
        if self._backend is None:
            raise DatasetError(
                f"{tokenizer.name_or_path} has no fast tokenizer (tokenizer.json); "
                "convert it with transformers, or use another model"
            )
        # Some files ask for cut or padded texts.
        self._backend.no_truncation()
        self._backend.no_padding()
        self._tokenizer = tokenizer
        self._enable_thinking = enable_thinking
        self._vocabulary_size = vocabulary_size
        self.templated = apply_chat_template and bool(tokenizer.chat_template)
        identity = f"{self._backend.to_str()}\0{tokenizer.chat_template}"
        self.sha256 = hashlib.sha256(identity.encode()).hexdigest()

    def texts(self, prompts: Sequence[str | list[Message]]) -> list[str]:
        """Return the prompts as the model sees them.

        Raises:
            DatasetError: if the chat template refuses a prompt, or a chat meets a model without
                one.
        """
        if not prompts:
            return []
        if not self.templated:
            if any(not isinstance(prompt, str) for prompt in prompts):
                raise DatasetError(
                    "the prompts are chats, but no chat template is applied; use a model that has "
                    "one, or give prompts of plain text"
                )
            return [str(prompt) for prompt in prompts]
        chats = [
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            for prompt in prompts
        ]
        from jinja2 import TemplateError

        try:
            rendered: list[str] = self._tokenizer.apply_chat_template(
                chats,
                tokenize=False,
                add_generation_prompt=True,
                enable_thinking=self._enable_thinking,
            )
        except (TemplateError, ValueError) as error:
            raise DatasetError(
                f"the model's chat template refuses a prompt ({error}); "
                "set apply_chat_template: false to send plain text"
            ) from error
        return rendered

    def token_ids(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the token ids of prompts that `texts` gave, with one BOS at most."""
        # A template writes its own special tokens.
        found = self._encode(texts, special=not self.templated)
        bos = self._tokenizer.bos_token_id
        return [ids[1:] if bos is not None and ids[:2] == [bos, bos] else ids for ids in found]

    def lengths(self, texts: Sequence[str]) -> list[int]:
        """Return the number of tokens of answers, without special tokens."""
        return list(map(len, self._backend.encode_batch_fast(texts, add_special_tokens=False)))

    def surely_longer(self, texts: Sequence[str], tokens: int) -> list[bool]:
        """Return which texts have more tokens than a limit, without encoding very long ones."""
        most = CHARACTERS_PER_TOKEN * (tokens + CUT_TOKENS)
        long = [number for number, text in enumerate(texts) if len(text) > most]
        beginnings = self._encode([texts[number][:most] for number in long], special=False)
        found = [False] * len(texts)
        for number, ids in zip(long, beginnings, strict=True):
            found[number] = len(ids) > tokens + CUT_TOKENS
        return found

    def random_ids(self, length: int, *seed: int) -> NDArray[np.int32]:
        """Return random token ids, none of them special; they depend on the seed alone."""
        chosen = np.random.default_rng(seed).integers(0, len(self._ordinary_ids), length)
        return self._ordinary_ids[chosen]

    @cached_property
    def _ordinary_ids(self) -> NDArray[np.int32]:
        added = self._backend.get_added_tokens_decoder().keys()
        ids = set(self._backend.get_vocab(with_added_tokens=False).values()) - added
        below = self._vocabulary_size
        return np.array(sorted(i for i in ids if below is None or i < below), dtype=np.int32)

    def _encode(self, texts: Sequence[str], special: bool) -> list[list[int]]:
        found = self._backend.encode_batch_fast(texts, add_special_tokens=special)
        return [encoding.ids for encoding in found]


def load_tokenizer(path: str, revision: str | None = None) -> Any:
    """Load a tokenizer of transformers from a folder or a hub id.

    Raises:
        DatasetError: if there is none.
    """
    try:
        if _is_plain(Path(path)):
            # What AutoTokenizer would choose, without its import of torch: seconds, and 350 MB.
            from transformers import PreTrainedTokenizerFast as Loader
        else:
            from transformers import AutoTokenizer as Loader
        return Loader.from_pretrained(path, revision=revision)
    except (OSError, ValueError) as error:
        raise DatasetError(
            f"the tokenizer of {path} cannot be read ({str(error).strip().splitlines()[0]}); "
            "give a folder with tokenizer.json, or a hub id that this machine can reach"
        ) from error


def _is_plain(folder: Path) -> bool:
    config = folder / "tokenizer_config.json"
    if not config.is_file() or not (folder / "tokenizer.json").is_file():
        return False
    values = json.loads(config.read_text(encoding="utf-8"))
    return values.get("tokenizer_class") in PLAIN_CLASSES and "auto_map" not in values
