"""What a release relies on: one version, a citation, workflows and issue forms that are what they should be."""

from __future__ import annotations

import re
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml

import fastdens as fd

ROOT = Path(__file__).parents[1]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("[!c]*.yml"))


def read(path: Path) -> dict[str, Any]:
    # YAML takes the key "on" of a workflow for a truth value.
    return {"on" if key is True else key: value for key, value in yaml.safe_load(path.read_text()).items()}


def steps(workflow: dict[str, Any]) -> list[dict[str, Any]]:
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def test_the_version_is_the_same_everywhere():
    assert version("fastdens") == fd.__version__
    citation = read(ROOT / "CITATION.cff")
    released = re.findall(r"^## (\d+\.\d+\.\d+) - (\d{4}-\d\d-\d\d)$", (ROOT / "CHANGELOG.md").read_text(), re.M)
    assert (citation["version"], str(citation["date-released"])) == released[0]
    # Between releases the version may be the next one, which no section has a date for.
    assert released[0][0] == fd.__version__ or fd.__version__.endswith(".dev0")
    assert [date.fromisoformat(day) for _, day in released] == sorted((date.fromisoformat(d) for _, d in released))[
        ::-1
    ]


def test_the_citation_has_its_fields():
    citation = read(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0" and citation["type"] == "software" and citation["license"] == "MIT"
    assert citation["message"] and citation["title"] and citation["authors"]
    for reference in citation["references"]:
        assert reference["type"] == "conference-paper" and reference["title"] and reference["year"]
        assert all({"given-names", "family-names"} == set(author) for author in reference["authors"])


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_workflows_call_what_there_is(path):
    workflow = read(path)
    assert workflow["name"] and workflow["on"] and workflow["permissions"] == {"contents": "read"}
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    for job in workflow["jobs"].values():
        assert job["runs-on"]
        assert "needs" not in job or job["needs"] in workflow["jobs"]
    for step in steps(workflow):
        assert ("uses" in step) != ("run" in step), step
        if "uses" in step:
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step["uses"]), step["uses"]
        for words in re.findall(r"^make (.*)$", step.get("run", ""), re.M):
            called = [word for word in re.sub(r'"[^"]*"', "", words).split() if "=" not in word]
            assert called and set(called) <= targets, called


def test_every_target_of_the_guide_exists():
    targets = set(re.findall(r"^([a-z][a-z-]*):", (ROOT / "Makefile").read_text(), re.M))
    called = re.findall(r"`make ([a-z -]+)`", (ROOT / "CONTRIBUTING.md").read_text())
    assert len(called) > 8 and {target for words in called for target in words.split()} <= targets


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.name)
def test_issue_forms_are_forms(path):
    form = read(path)
    assert {"name", "description", "body"} <= form.keys() <= {"name", "description", "body", "labels", "title"}
    ids = [element["id"] for element in form["body"] if element["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 0
    for element in form["body"]:
        assert element["type"] in ("markdown", "textarea", "input", "dropdown", "checkboxes")
        assert element["attributes"].get("value" if element["type"] == "markdown" else "label")
        for option in element["attributes"].get("options", []):
            assert isinstance(option, str)
