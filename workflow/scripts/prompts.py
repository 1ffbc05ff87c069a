"""Turn a dataset into requests: read it, apply the chat template, tokenize, write Parquet."""

import argparse
import hashlib
import json
import sys
from pathlib import Path

import msgspec
from pydantic import ValidationError
from tqdm import tqdm

from pdswitch.datasets.options import dataset_options
from pdswitch.datasets.prompts import build_prompts, samples_of
from pdswitch.datasets.sample import DatasetError
from pdswitch.files import write_json, write_parquet
from pdswitch.model import ModelManifest


def main() -> None:
    """Run the stage."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dataset", required=True, help="its name in the config")
    parser.add_argument("--options", type=json.loads, required=True, help="its options, as JSON")
    parser.add_argument("--model", type=Path, required=True, help="model.json")
    parser.add_argument("--max-model-len", type=int, help="the engine's context, in tokens")
    parser.add_argument("--max-output-tokens", type=int, required=True)
    parser.add_argument("--output", type=Path, required=True, help="prompts.parquet")
    parser.add_argument("--manifest", type=Path, required=True, help="prompts.json")
    arguments = parser.parse_args()
    model = msgspec.json.decode(arguments.model.read_bytes(), type=ModelManifest)
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model.path, revision=model.revision)
    try:
        options = dataset_options(arguments.dataset, arguments.options)
        table, manifest = build_prompts(
            tqdm(samples_of(options), desc=arguments.dataset, unit="sample", mininterval=0.5),
            tokenizer,
            options,
            min(model.context_length, arguments.max_model_len or model.context_length),
            arguments.max_output_tokens,
        )
    except (DatasetError, ValidationError) as error:
        sys.exit(f"error: {error}")
    if not tokenizer.chat_template:
        print(f"{model.name} has no chat template; the raw text is used", file=sys.stderr)
    tokenizer_digest = hashlib.sha256(tokenizer.backend_tokenizer.to_str().encode()).hexdigest()
    write_parquet(arguments.output, table)
    write_json(
        arguments.manifest,
        {
            "dataset": arguments.dataset,
            "options": options.model_dump(mode="json"),
            "tokenizer_sha256": tokenizer_digest,
            **manifest,
        },
    )


if __name__ == "__main__":
    main()
