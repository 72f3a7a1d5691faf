"""The documents say what the code does: keys, defaults, links, commands, examples."""

import dataclasses
import re
import shlex
from pathlib import Path

import pytest
import yaml

from bigtickets import cli
from bigtickets.study import modules
from bigtickets.study.spec import (
    AnalysisSpec,
    ExecutionSpec,
    ImportanceSpec,
    TicketsSpec,
    TrainingSpec,
)

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([ROOT / "README.md", *(ROOT / "docs").rglob("*.md")])
PARTS = {
    "tickets": TicketsSpec,
    "importance": ImportanceSpec,
    "training": TrainingSpec,
    "execution": ExecutionSpec,
    "analysis": AnalysisSpec,
}


def shown(value: object) -> str:
    if isinstance(value, tuple):
        return "[" + ", ".join(f"{v:g}" if isinstance(v, float) else str(v) for v in value) + "]"
    if value is None:
        return "-"
    if isinstance(value, bool):
        return str(value).lower()
    return f"{value:g}" if isinstance(value, float) else str(value)


@pytest.mark.parametrize("key", PARTS)
def test_every_key_and_default_stands_in_the_study_file_document(key: str) -> None:
    text = (ROOT / "docs" / "study_file.md").read_text()
    section = text.split(f"## `{key}`")[1].split("\n## ")[0]
    documented = dict(re.findall(r"^\| `(\w+)` \| (.*?) \|", section, flags=re.MULTILINE))
    assert documented == {f.name: shown(f.default) for f in dataclasses.fields(PARTS[key])}


def test_every_key_of_a_metric_module_stands_in_the_study_file_document() -> None:
    text = (ROOT / "docs" / "study_file.md").read_text()
    section = text.split("## `metric`")[1].split("\n## ")[0]
    assert set(re.findall(r"^\| `(\w+)` \|", section, flags=re.MULTILINE)) == set(modules.KEYS)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda p: p.name)
def test_links_lead_somewhere(document: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)", document.read_text()):
        if "://" not in target:
            assert (document.parent / target).exists(), f"{document.name}: {target}"


def readme_commands() -> list[str]:
    blocks = re.findall(r"```\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    lines = [line.split("#")[0].strip() for block in blocks for line in block.splitlines()]
    return [line for line in lines if line.startswith("bigtickets ")]


@pytest.mark.parametrize("command", readme_commands())
def test_commands_of_the_readme_are_understood(command: str) -> None:
    """Spelling and options; that they do what they say, tests/study shows."""
    options = cli._parser().parse_args(shlex.split(command)[1:])
    assert callable(options.action)


def test_the_readmes_study_has_known_keys() -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    for block in blocks:
        for key, value in yaml.safe_load(block).items():
            if key in PARTS:
                assert set(value) <= {f.name for f in dataclasses.fields(PARTS[key])}
