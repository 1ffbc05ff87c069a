"""The public face: what the package says that others may import."""

import importlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pdswitch

LISTED = re.findall(r"^    (pdswitch\.\S+)  ", pdswitch.__doc__, re.MULTILINE)
WITH_ALL = sorted(
    ".".join(file.relative_to(Path(pdswitch.__file__).parents[1]).with_suffix("").parts)
    for file in Path(pdswitch.__file__).parent.rglob("*.py")
    if re.search(r"^__all__\b", file.read_text(), re.MULTILINE)
)


def test_public_modules_say_what_is_public():
    assert len(LISTED) >= 5
    assert set(LISTED) <= {name.removesuffix(".__init__") for name in WITH_ALL}


# vLLM, which these import, stays out of a process with numba; tests/test_package.py loads them.
@pytest.mark.parametrize("name", [name for name in WITH_ALL if not name.endswith("scheduler")])
def test_names_that_are_public_exist_and_are_sorted(name):
    module = importlib.import_module(name.removesuffix(".__init__"))
    # Constants, then classes, then functions, as ruff has it.
    kinds = [(not one.isupper(), one[0].islower(), one) for one in module.__all__]
    assert kinds == sorted(set(kinds))
    assert not [one for one in module.__all__ if not hasattr(module, one)]


def test_the_package_itself_imports_nothing():
    code = (
        "import sys; before = set(sys.modules); import pdswitch; print(*set(sys.modules) - before)"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["pdswitch"]
