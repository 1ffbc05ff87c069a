"""Write the config's JSON schema and manuals from its models, or check that they are fresh."""

import argparse
import sys
from pathlib import Path

from pdswitch.config import json_schema, manual
from pdswitch.datasets.options import options_manual
from pdswitch.stages.entry import stage

ROOT = Path(__file__).resolve().parents[1]


@stage
def main() -> None:
    """Write or check."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if stale")
    arguments = parser.parse_args()
    files = {
        ROOT / "workflow/schemas/config.schema.json": json_schema(),
        ROOT / "docs/config.md": manual(),
        ROOT / "docs/dataset_options.md": options_manual(),
    }
    for path, text in files.items():
        if arguments.check and (not path.exists() or path.read_text(encoding="utf-8") != text):
            sys.exit(f"error: {path.relative_to(ROOT)} is stale; run: make schema")
        if not arguments.check:
            path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
