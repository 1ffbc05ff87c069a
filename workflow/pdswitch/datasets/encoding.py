"""Text to token ids, in batches: chat template, special tokens, lengths, random ids."""

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pdswitch.datasets.sample import DatasetError, Message, Skipped, text_flaw
from pdswitch.paths import local_path

# Classes that add nothing to what tokenizer.json says.
PLAIN_CLASSES = {"PreTrainedTokenizerFast", "TokenizersBackend"}
# No vocabulary gets by with fewer tokens than one per so many characters of ordinary text; longer
# texts are tried by their beginning first.
CHARACTERS_PER_TOKEN = 16
# Tokens at the cut that the whole text may join in another way.
CUT_TOKENS = 64
REFUSED_TEXT = "text that the model's chat template refuses"
REFUSED_CHAT = "chat that the model's chat template refuses"
UNTEMPLATED = Skipped("chat without a chat template")
POINTER = b"version https://git-lfs.github.com/spec/"


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
        self.sha256 = hashlib.sha256(identity.encode(errors="surrogatepass")).hexdigest()

    def texts(self, prompts: Sequence[str | list[Message]]) -> list[str | Skipped]:
        """Return the prompts as the model sees them, or why it cannot see one.

        A chat needs a template. A template may refuse a prompt, or make nothing of it.
        """
        if not self.templated:
            return [prompt if isinstance(prompt, str) else UNTEMPLATED for prompt in prompts]
        return [_checked(text) for text in self._rendered(prompts)]

    def _rendered(self, prompts: Sequence[str | list[Message]]) -> list[str | Skipped]:
        if not prompts:
            return []
        chats = [
            [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
            for prompt in prompts
        ]
        try:
            return list(
                self._tokenizer.apply_chat_template(
                    chats,
                    tokenize=False,
                    add_generation_prompt=True,
                    enable_thinking=self._enable_thinking,
                )
            )
        except Exception as error:  # a template is a program, which may raise anything
            if len(prompts) > 1:
                return [text for prompt in prompts for text in self._rendered([prompt])]
            reason = REFUSED_TEXT if isinstance(prompts[0], str) else REFUSED_CHAT
            return [Skipped(reason, _first_line(error))]

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


def _checked(text: str | Skipped) -> str | Skipped:
    flaw = text_flaw(text) if isinstance(text, str) else None
    return text if flaw is None else Skipped(flaw)


def load_tokenizer(path: str, revision: str | None = None) -> Any:
    """Load a tokenizer of transformers from a folder or a hub id.

    Raises:
        DatasetError: if there is none, or the installed libraries cannot read it.
    """
    folder = local_path(path)
    files = _tokenizer_files(folder) if folder else []
    pointer = next(filter(_is_pointer, files), None)
    if pointer is not None:
        raise DatasetError(
            f"{pointer} is a Git LFS pointer, not the file itself; run `git lfs pull` in its folder"
        )
    try:
        if _is_plain(files):
            # What AutoTokenizer would choose, without its import of torch: seconds, and 350 MB.
            from transformers import PreTrainedTokenizerFast as Loader
        else:
            from transformers import AutoTokenizer as Loader
        return Loader.from_pretrained(str(folder or path), revision=revision)
    # The tokenizers library raises bare Exceptions, transformers whatever a strange file leads to.
    except Exception as error:
        remedy = (
            "fetch its files again, or update transformers and tokenizers if they are newer"
            if files
            else "give a folder with tokenizer.json, or a hub id that this machine can reach"
        )
        raise DatasetError(
            f"the tokenizer of {path} cannot be read ({_first_line(error)}); {remedy}"
        ) from error


def _tokenizer_files(folder: Path) -> list[Path]:
    files = (folder / name for name in ("tokenizer_config.json", "tokenizer.json"))
    return [file for file in files if file.is_file()]


def _is_pointer(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(len(POINTER)) == POINTER


def _first_line(error: Exception) -> str:
    """Return what an error says, or else what it is."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]


def _is_plain(files: list[Path]) -> bool:
    if len(files) < 2:
        return False
    values = json.loads(files[0].read_text(encoding="utf-8"))
    return values.get("tokenizer_class") in PLAIN_CLASSES and "auto_map" not in values
