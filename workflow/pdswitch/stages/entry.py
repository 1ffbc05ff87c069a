"""How every script starts and ends: it prints on any terminal, and its errors are sentences."""

import functools
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from pdswitch.errors import UserError
from pdswitch.stages.job_log import BUG
from pdswitch.stages.terminal import print_anything

INTERRUPTED = 130  # as a shell has it

P = ParamSpec("P")
T = TypeVar("T")


def stage(main: Callable[P, T]) -> Callable[P, T]:
    """Wrap the main function of a script.

    A `UserError`, or a file that cannot be read or written, ends the process with one sentence and
    status 1. Everything else is a bug and keeps its traceback, which says where to report it.
    """

    @functools.wraps(main)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        print_anything()
        try:
            return main(*args, **kwargs)
        except KeyboardInterrupt:
            print("interrupted", file=sys.stderr)
            sys.exit(INTERRUPTED)
        except UserError as error:
            sys.exit(f"error: {error}")
        except OSError as error:
            if error.strerror is None:
                sentence = str(error)
            elif error.filename is not None:
                sentence = f"{error.filename}: {error.strerror}; check the path and its rights"
            else:
                error.add_note(BUG)
                raise
            sys.exit(f"error: {sentence}")
        except Exception as error:
            error.add_note(BUG)
            raise

    return run
