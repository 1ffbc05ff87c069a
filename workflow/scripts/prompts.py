"""Turn a dataset into requests: read it, apply the chat template, tokenize, write Parquet."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from tqdm import tqdm

from pdswitch.datasets.options import DatasetOptions, dataset_options, option_errors
from pdswitch.datasets.sample import DatasetError
from pdswitch.errors import InputError
from pdswitch.stages.entry import stage


@stage
def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="its name in the config")
    parser.add_argument(
        "--options",
        required=True,
        help="its options as JSON; `kind` says how to read it (default: its name), `num_requests` "
        "counts the requests wanted in all",
    )
    model = parser.add_mutually_exclusive_group(required=True)
    model.add_argument("--model", type=Path, help="model.json")
    model.add_argument("--tokenizer", help="in its place: folder or hub id of a tokenizer")
    parser.add_argument("--max-model-len", type=int, help="the engine's context, in tokens")
    parser.add_argument("--max-output-tokens", type=int, required=True, help="room for an answer")
    parser.add_argument("--output", type=Path, required=True, help="prompts.parquet")
    parser.add_argument("--manifest", type=Path, required=True, help="prompts.json")
    arguments = parser.parse_args()
    try:
        run(arguments)
    except DatasetError as error:
        sys.exit(f"error: dataset {arguments.dataset}: {error}")


def run(arguments: argparse.Namespace) -> None:
    """Read, tokenize and write one dataset.

    Raises:
        DatasetError: if that cannot be done; then neither file is written.
    """
    options = parse_options(arguments.dataset, arguments.options)
    path, revision, context, vocabulary_size = describe_tokenizer(arguments)
    # After the options are known to be right: this takes a second.
    from pdswitch.datasets.encoding import Encoder, load_tokenizer
    from pdswitch.datasets.loading import load
    from pdswitch.datasets.prompts import limits_of, write_prompts
    from pdswitch.files import write_json

    encoder = Encoder(
        load_tokenizer(path, revision),
        options.apply_chat_template,
        options.enable_thinking,
        vocabulary_size,
    )
    if options.apply_chat_template and not encoder.templated:
        print(f"{path} has no chat template; the raw text is used", file=sys.stderr)
    lengths = [length for length in (context, arguments.max_model_len) if length is not None]
    max_model_len = min(lengths, default=None)
    limits = limits_of(options, max_model_len, arguments.max_output_tokens)
    outcomes, source_revision = load(options)
    with tqdm(total=options.num_requests, desc=arguments.dataset, unit="request") as bar:
        found = write_prompts(arguments.output, outcomes, encoder, limits, options.seed, bar.update)
    write_json(
        arguments.manifest,
        {
            "dataset": arguments.dataset,
            "source": options.location,
            "revision": source_revision,
            "options": options.model_dump(mode="json"),
            "max_model_len": max_model_len,
            "max_output_tokens": arguments.max_output_tokens,
            "tokenizer_sha256": encoder.sha256,
            "chat_template": encoder.templated,
            **found,
        },
    )


def parse_options(name: str, text: str) -> DatasetOptions:
    """Return the options of the command line.

    Raises:
        DatasetError: if they are no JSON, or wrong.
    """
    try:
        values = json.loads(text)
    except ValueError as error:
        raise DatasetError(f"--options is not JSON ({error}); quote it as one argument") from error
    if not isinstance(values, dict):
        raise DatasetError("--options is no JSON object; give option names and values")
    try:
        return dataset_options(name, values)
    except ValidationError as error:
        raise DatasetError(option_errors(name, error)) from error
    except InputError as error:
        raise DatasetError(str(error)) from error


def describe_tokenizer(
    arguments: argparse.Namespace,
) -> tuple[str, str | None, int | None, int | None]:
    """Return path, revision, context length and vocabulary size of the model, if known."""
    if arguments.model is None:
        return arguments.tokenizer, None, None, None
    model: dict[str, Any] = json.loads(arguments.model.read_text(encoding="utf-8"))
    return (
        model["path"],
        model["revision"],
        model["context_length"],
        model["vocabulary_size"],
    )


if __name__ == "__main__":
    main()
