"""One measured run: requests in, records out."""

import argparse
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pandas as pd
from tqdm import tqdm

from pdswitch.engine.client import Engine
from pdswitch.engine.protocol import Output, Progress, Request, RunCommand
from pdswitch.errors import InputError
from pdswitch.files import write_json, write_records
from pdswitch.plugin.policy import Policy
from pdswitch.record import Record, decode_record

# What a run writes; the last one says that it is whole.
RUN_FILES = ("steps.parquet", "requests.parquet", "run.json")


class Measurement:
    """A run that has ended.

    Attributes:
        record: its steps and requests.
        outputs: what the requests generated, if it was asked for.
        facts: what goes into `run.json`.
    """

    def __init__(self, record: Record, outputs: list[Output], facts: dict[str, Any]) -> None:
        self.record = record
        self.outputs = outputs
        self.facts = facts

    def write(self, folder: Path) -> None:
        """Write `steps.parquet`, `requests.parquet` and `run.json` into a folder."""
        folder.mkdir(parents=True, exist_ok=True)
        write_records(folder / "steps.parquet", self.record.steps_frame())
        write_records(folder / "requests.parquet", self.record.requests_frame())
        write_json(folder / "run.json", self.facts)


def add_request_arguments(parser: argparse.ArgumentParser) -> None:
    """Add to a job's command line what says which requests its run serves."""
    parser.add_argument("--prompts", type=Path, required=True, help="prompts.parquet")
    parser.add_argument("--skip", type=int, default=0, help="first prompts, kept for estimation")
    parser.add_argument(
        "--lengths",
        choices=["replay", "natural", "dataset"],
        default="replay",
        help="output lengths: of the termination run, by themselves, or of the dataset",
    )
    parser.add_argument(
        "--natural-lengths",
        type=Path,
        required=True,
        help="requests.parquet of the termination run",
    )
    parser.add_argument("--max-output-tokens", type=int, required=True)


def requests_of(arguments: argparse.Namespace) -> list[Request]:
    """Return the requests that a job's arguments ask for; see `make_requests`."""
    lengths = pd.read_parquet(arguments.natural_lengths, columns=["request_id", "output_tokens"])
    return make_requests(
        pd.read_parquet(arguments.prompts).iloc[arguments.skip :],
        arguments.lengths,
        lengths.set_index("request_id")["output_tokens"],
        arguments.max_output_tokens,
    )


def make_requests(
    prompts: pd.DataFrame,
    lengths: Literal["replay", "natural", "dataset"],
    natural_lengths: pd.Series,
    max_output_tokens: int,
) -> list[Request]:
    """Return the requests of a measured run, in the order of the prompts.

    Args:
        prompts: rows of `prompts.parquet`.
        lengths: ``replay`` generates exactly as many tokens as the termination run did,
            ``dataset`` as many as the dataset's own answers have (at most `max_output_tokens`),
            ``natural`` ends by itself.
        natural_lengths: output tokens of the termination run, indexed by request_id.
        max_output_tokens: where answers are cut.

    Raises:
        InputError: if ``dataset`` is wanted and an answer is missing.
    """
    if lengths == "natural":
        return natural_requests(prompts, max_output_tokens)
    if lengths == "dataset":
        return dataset_requests(prompts, max_output_tokens)
    return _exact_requests(prompts, natural_lengths.loc[prompts["request_id"]])


def dataset_requests(prompts: pd.DataFrame, max_output_tokens: int) -> list[Request]:
    """Return requests that generate as many tokens as the dataset's own answers have.

    Raises:
        InputError: if an answer is missing.
    """
    missing = int(prompts["reference_output_tokens"].isna().sum())
    if missing:
        raise InputError(
            f"{missing} of {len(prompts)} requests have no answer in the dataset; "
            "use lengths: replay"
        )
    return _exact_requests(prompts, prompts["reference_output_tokens"].clip(1, max_output_tokens))


def _exact_requests(prompts: pd.DataFrame, tokens: pd.Series) -> list[Request]:
    return [
        Request(row.request_id, _token_list(row.prompt_token_ids), int(length), True)
        for row, length in zip(prompts.itertuples(index=False), tokens, strict=True)
    ]


def natural_requests(prompts: pd.DataFrame, max_output_tokens: int) -> list[Request]:
    """Return requests that end by themselves, at `max_output_tokens` at the latest."""
    return [
        Request(row.request_id, _token_list(row.prompt_token_ids), max_output_tokens, False)
        for row in prompts.itertuples(index=False)
    ]


def measure(
    engine: Engine,
    policy: Policy,
    requests: list[Request],
    sampling: dict[str, Any],
    *,
    label: str,
    want_outputs: bool = False,
) -> Measurement:
    """Serve a run on the engine, with a progress bar on standard error.

    Args:
        engine: an open engine.
        policy: the switching policy of the run.
        requests: all queued before the first step.
        sampling: keyword arguments of vLLM's `SamplingParams`.
        label: what the progress bar calls the run.
        want_outputs: whether token ids and text are wanted back.
    """
    started = datetime.now(UTC)
    with tqdm(total=len(requests), desc=label, unit="request", mininterval=0.5) as bar:
        result = engine.run(RunCommand(policy, requests, sampling, want_outputs), _show_on(bar))
        bar.update(len(requests) - bar.n)
    record = decode_record(result.record)
    facts = {
        "policy": policy.kind,
        "threshold": policy.threshold if policy.kind == "fixed" else None,
        "drain": policy.drain,
        "max_hold_s": policy.max_hold_s,
        "n_slots": engine.facts["n_slots"],
        "started_at": started.isoformat(),
        "wall_s": record.steps[-1].done_s,
        "requests": len(record.requests),
        "requests_asked": len(requests),
        "prompt_tokens": sum(row.prompt_tokens for row in record.requests),
        "output_tokens": sum(row.output_tokens for row in record.requests),
        "tokens_asked": sum(request.max_tokens for request in requests),
        "sampling": sampling,
        "conditions": result.conditions,
        "engine": engine.facts,
    }
    return Measurement(record, result.outputs, facts)


def _show_on(bar: "tqdm[Any]") -> Callable[[Progress], None]:
    def show(progress: Progress) -> None:
        bar.set_postfix(tokens=progress.tokens, refresh=False)
        bar.update(progress.requests - bar.n)

    return show


def _token_list(token_ids: Any) -> list[int]:
    # Parquet gives numpy arrays, whose integers MessagePack does not know.
    return [int(token) for token in token_ids]
