"""What `pip install pdswitch` brings, and what runs where it is installed."""

import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

from distribution import Environment, build, run

pytestmark = [pytest.mark.rare, pytest.mark.timeout(600)]

# Of the plug-in, what imports vLLM.
WITH_VLLM = {"scheduler"}
FIVE = (
    "--n-slots 256 --termination-probability 0.0078 "
    "--alpha-p 0.0032 --alpha-d 0.0045 --beta-d 2.8e-5"
)


@pytest.fixture(scope="module")
def built(root, tmp_path_factory) -> tuple[Path, Path]:
    return build(root, tmp_path_factory.mktemp("build"))


@pytest.fixture(scope="module")
def wheel(built) -> Path:
    return built[1]


@pytest.fixture(scope="module")
def plain(wheel, tmp_path_factory) -> Environment:
    """Only what `pip install pdswitch` brings."""
    environment = Environment(tmp_path_factory.mktemp("plain"))
    environment.install(wheel)
    return environment


def test_wheel_and_sdist_hold_the_library_and_its_data(root, built):
    sdist, wheel = built
    library = root / "workflow"
    wanted = {
        str(file.relative_to(library))
        for file in (library / "pdswitch").rglob("*")
        if file.is_file() and "__pycache__" not in file.parts
    }
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if ".dist-info/" not in name}
    assert held == wanted
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {f"workflow/{name}" for name in wanted} | {"LICENSE", "README.md"} <= names


def test_their_metadata_is_fit_for_an_index(built, tmp_path):
    environment = Environment(tmp_path)
    environment.install("twine")
    printed = run(environment.bin / "twine", "check", "--strict", *built)
    assert printed.count("PASSED") == 2


def test_the_package_brings_msgspec_alone(plain):
    installed = {file.name.partition("-")[0] for file in plain.packages.glob("*.dist-info")}
    assert installed == {"msgspec", "pdswitch"}


def test_the_plugin_imports_with_msgspec_alone(root, plain):
    modules = {file.stem for file in (root / "workflow/pdswitch/plugin").glob("[!_]*.py")}
    assert modules > WITH_VLLM
    names = ", ".join(f"pdswitch.plugin.{name}" for name in sorted(modules - WITH_VLLM))
    printed = plain.python(f"import {names}; print(pdswitch.__file__)")
    assert Path(printed.strip()).is_relative_to(plain.packages)


def test_vllm_loads_the_scheduler_of_the_wheel(wheel, tmp_path):
    environment = Environment(tmp_path)
    environment.install(wheel)
    environment.also_sees(Path(sysconfig.get_path("purelib")))
    printed = environment.python(
        "from vllm.utils.import_utils import resolve_obj_by_qualname as load\n"
        "scheduler = load('pdswitch.scheduler.SwitchingScheduler')\n"
        "load('pdswitch.plugin.compatibility.EarlyRefusal')\n"
        "import inspect; print('from', inspect.getfile(scheduler))"
    )
    (line,) = (line for line in printed.splitlines() if line.startswith("from "))
    assert Path(line.removeprefix("from ")) == environment.packages / "pdswitch/plugin/scheduler.py"


def test_the_command_without_its_extra_says_which_to_install(plain):
    assert "pdswitch 0.1.0" in run(plain.bin / "pdswitch", "--version")
    assert "kstar" in run(plain.bin / "pdswitch")
    for command, extra in ((f"kstar {FIVE}", "theory"), ("verdict", "workflow")):
        said = run(plain.bin / "pdswitch", *command.split(), expect=1)
        assert said.endswith(f"run: pip install 'pdswitch[{extra}]'\n")
        assert said.count("\n") == 1


def test_the_theory_extra_brings_k_star(wheel, tmp_path):
    environment = Environment(tmp_path)
    environment.install(f"{wheel}[theory]")
    printed = run(environment.bin / "pdswitch", "kstar", *FIVE.split())
    assert printed.startswith("k* = 25 of 256 slots")
