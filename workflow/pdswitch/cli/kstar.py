"""Compute k* from five numbers."""

import argparse
import json

EXTRA = "theory"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare N, p and the step times."""
    parser.add_argument("--n-slots", type=int, required=True, help="N, slots")
    parser.add_argument(
        "--termination-probability",
        type=float,
        required=True,
        help="p per token: 1 / mean output length",
    )
    parser.add_argument("--alpha-p", type=float, required=True, help="prefill step, fixed part, s")
    parser.add_argument("--alpha-d", type=float, required=True, help="decode step, fixed part, s")
    parser.add_argument("--beta-d", type=float, default=0.0, help="decode step, s per request")
    parser.add_argument("--beta-p", type=float, default=0.0, help="prefill step, s per token")
    parser.add_argument(
        "--mean-prompt-tokens", type=float, default=0.0, help="mean prompt length, tokens"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(options: argparse.Namespace) -> int:
    """Print every form of k* and the throughput around it."""
    from pdswitch.theory.forms import analyse, render
    from pdswitch.theory.step_times import StepTimes

    found = analyse(
        options.n_slots,
        options.termination_probability,
        StepTimes(options.alpha_p, options.beta_p, options.alpha_d, options.beta_d),
        options.mean_prompt_tokens,
    )
    print(json.dumps(found, indent=2) if options.json else render(found))
    return 0
