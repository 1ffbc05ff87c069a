"""What maintainers' tools read agrees with the Makefile and the package."""

import re
import tomllib

import yaml


def test_hooks_run_the_commands_of_make_lint(root):
    lint = re.search(r"^lint:.*\n((?:\t.*\n)+)", (root / "Makefile").read_text(), re.MULTILINE)
    commands = {line.strip() for line in lint[1].splitlines()}
    (local,) = yaml.safe_load((root / ".pre-commit-config.yaml").read_text())["repos"]
    hooks = {hook["entry"].removeprefix(".venv/bin/") for hook in local["hooks"]}
    # It parses the whole workflow, which takes long for a commit.
    assert hooks == commands - {"snakemake --lint"}


def test_the_citation_names_the_package_s_version_and_licence(root):
    project = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((root / "CITATION.cff").read_text())
    for key in ("version", "license"):
        assert citation[key] == project[key]


def test_every_question_of_an_issue_form_has_a_label_and_its_own_id(root):
    forms = list((root / ".github/ISSUE_TEMPLATE").glob("*.yml"))
    assert {form.stem for form in forms} == {"bug", "question"}
    for form in forms:
        body = yaml.safe_load(form.read_text())["body"]
        assert all(item["attributes"]["label"] for item in body)
        assert len({item["id"] for item in body}) == len(body)
