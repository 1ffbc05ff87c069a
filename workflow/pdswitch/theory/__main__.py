"""The command `pdswitch kstar` under its older name: ``python -m pdswitch.theory``."""

import sys
from collections.abc import Sequence

from pdswitch.cli import run
from pdswitch.errors import InputError
from pdswitch.stages.entry import stage


@stage
def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; returns the exit status."""
    given = sys.argv[1:] if arguments is None else arguments
    try:
        return run("kstar", given, program="python -m pdswitch.theory")
    except InputError as error:
        print(f"pdswitch.theory: {error}", file=sys.stderr)
        return 2


if __name__ == "__main__":
    raise SystemExit(main())
