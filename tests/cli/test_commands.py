"""The command `pdswitch`: what it lists, refuses, and imports."""

import json
import subprocess
import sys
import tomllib

import pytest

from pdswitch import cli

NAMES = cli.names()
HEAVY = {"matplotlib", "numba", "numpy", "pandas", "pydantic", "rich", "scipy", "torch", "vllm"}


def imported_by(*arguments: str) -> set[str]:
    """The modules that a command line imports in a process of its own."""
    code = (
        "import json, sys; from pdswitch.cli import main\n"
        "try:\n    main(sys.argv[1:])\n"
        "finally:\n    print(json.dumps(sorted(sys.modules)), file=sys.stderr)"
    )
    run = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    return set(json.loads(run.stderr.splitlines()[-1]))


def refused(*arguments: str) -> str:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return str(ended.value)


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_help_has_one_line_for_every_command(arguments, capsys):
    assert cli.main(arguments) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    for name in NAMES:
        (line,) = (words[1:] for words in lines if words[:1] == [name])
        assert line[-1].endswith(".")


def test_an_unknown_command_is_a_sentence():
    assert refused("kstra") == (
        f"error: pdswitch has no command 'kstra'; use one of {', '.join(NAMES)}"
    )


def test_version(capsys):
    assert cli.main(["--version"]) == 0
    assert capsys.readouterr().out == "pdswitch 0.1.0\n"


@pytest.mark.parametrize("name", NAMES)
def test_a_command_names_an_extra_of_the_package(root, name):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    assert cli.load(name).EXTRA in project["optional-dependencies"]


@pytest.mark.parametrize("arguments", [["--help"], *([name, "--help"] for name in NAMES)])
def test_help_imports_only_the_standard_library_and_the_command(arguments):
    imported = imported_by(*arguments)
    assert not imported & HEAVY
    commands = {name.removeprefix("pdswitch.cli.") for name in imported if "pdswitch.cli." in name}
    assert commands == (set(NAMES) if arguments == ["--help"] else {arguments[0]})


def test_k_star_imports_no_engine_and_no_data_frames():
    five = "--n-slots 8 --termination-probability 0.1 --alpha-p 1 --alpha-d 1"
    imported = imported_by("kstar", *five.split())
    assert "numba" in imported
    assert not imported & {"vllm", "torch", "pandas", "pyarrow", "matplotlib", "transformers"}


@pytest.mark.parametrize(("name", "library"), [("kstar", "numpy"), ("verdict", "rich")])
def test_a_library_that_is_not_installed_is_named_with_its_extra(name, library, monkeypatch):
    command = cli.load(name)

    def run(options):
        raise ModuleNotFoundError("gone", name=f"{library}.part")

    monkeypatch.setattr(command, "run", run)
    monkeypatch.setattr(command, "add_arguments", lambda parser: None)
    assert refused(name) == (
        f"error: pdswitch {name} needs {library}, which is not installed; "
        f"run: pip install 'pdswitch[{command.EXTRA}]'"
    )


@pytest.mark.parametrize("module", ["pdswitch.gone", "json.gone"])
def test_a_module_of_our_own_that_is_missing_is_a_bug(module, monkeypatch):
    def run(options):
        raise ModuleNotFoundError("gone", name=module)

    monkeypatch.setattr(cli.load("verdict"), "run", run)
    with pytest.raises(ModuleNotFoundError):
        cli.main(["verdict"])


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m pdswitch --help"
    run = subprocess.run(
        ["bash", "-c", f"{{ sleep 0.5; {command}; echo status $? >&2; }} | true"],
        capture_output=True,
        text=True,
    )
    assert run.stderr == "status 1\n"
