"""Python runs this at its start: at its end it writes down which modules of ours it has run."""

import atexit
import json
import os
import sys
from pathlib import Path


def write_modules() -> None:
    # By now Python has deleted the main module's __file__.
    main = Path(sys.argv[0])
    files = {
        str(Path(module.__file__).resolve())
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] == "pdswitch" and getattr(module, "__file__", None)
    }
    record = {"main": main.name, "files": sorted({*files, str(main.resolve())})}
    file = Path(os.environ["PDSWITCH_TRACE"]) / f"{os.getpid()}.json"
    aside = file.with_suffix(".part")
    aside.write_text(json.dumps(record))
    aside.replace(file)


if "PDSWITCH_TRACE" in os.environ:
    atexit.register(write_modules)
