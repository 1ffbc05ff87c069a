"""How every script starts and ends: it prints on any terminal, and its errors are sentences."""

import dis
import functools
import sys
from collections.abc import Callable
from types import TracebackType
from typing import ParamSpec, TypeVar

from pdswitch.stages.terminal import print_anything

PACKAGE = __name__.partition(".")[0]
INTERRUPTED = 130  # as a shell has it
RAISE = dis.opmap["RAISE_VARARGS"]

P = ParamSpec("P")
T = TypeVar("T")


def stage(main: Callable[P, T]) -> Callable[P, T]:
    """Wrap the main function of a script.

    A ValueError that our own code raises is the user's mistake, and so is a file that cannot be
    read or written: they end the process with one sentence and status 1. Everything else is a bug
    and keeps its traceback.
    """

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        print_anything()
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except ValueError as error:
            if not _raised_by_us(error.__traceback__):
                raise
            sys.exit(f"error: {error}")
        except OSError as error:
            if error.strerror is None:
                sentence = str(error)
            elif error.filename is not None:
                sentence = f"{error.filename}: {error.strerror}; check the path and its rights"
            else:
                raise
            sys.exit(f"error: {sentence}")

    return run


def _raised_by_us(trace: TracebackType | None) -> bool:
    """Whether a raise statement of ours ends the trace, and not one inside another library."""
    if trace is None:
        return False
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = trace.tb_frame.f_globals.get("__name__", "")
    # Code in C, as of numpy, has no frame of its own: the statement that called it is the last.
    statement = trace.tb_frame.f_code.co_code[trace.tb_lasti]
    return statement == RAISE and module.partition(".")[0] in {PACKAGE, "__main__"}
