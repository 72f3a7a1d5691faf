"""The rooms' doors open one way (docs/architecture.md)."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "bigtickets"
FILES = sorted([*PACKAGE.rglob("*.py"), *(ROOT / "launch").glob("*.py")])
SHARED = {"bigtickets", "bigtickets.environment", "bigtickets.errors", "bigtickets.files"}
# Room -> rooms that it may import, besides itself and SHARED.
DOORS = {
    "study": set(),
    "tickets": {"study"},
    "training": {"study"},
    "running": {"study", "tickets", "training", "analysis"},
    "analysis": {"study"},
}
# A library -> the only files that import it.
ONLY = {
    "deepspeed": {"training/engine.py"},
    "matplotlib": {"analysis/figures.py"},
    "evaluate": {"training/metric_module.py"},
}


def imports(path: Path) -> set[str]:
    """Modules that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            found.add(node.module or "")
    return found


def room(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0] if PACKAGE in path.parents else "launch"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_doors_open_one_way(path: Path) -> None:
    here = room(path)
    if here not in DOORS:
        return
    for module in imports(path):
        if module.startswith("bigtickets") and module not in SHARED:
            there = module.split(".")[1]
            assert there == here or there in DOORS[here], f"{here} must not import {module}"


@pytest.mark.parametrize("library", ONLY)
def test_one_file_imports(library: str) -> None:
    users = {
        str(p.relative_to(PACKAGE))
        for p in PACKAGE.rglob("*.py")
        if any(m.split(".")[0] == library for m in imports(p))
    }
    assert users == ONLY[library]


def test_evaluate_is_imported_by_what_calls_a_module_alone() -> None:
    """It takes seconds: no import of ours may bring it along."""
    tree = ast.parse((PACKAGE / "training" / "metric_module.py").read_text())
    names = {a.name for node in tree.body if isinstance(node, ast.Import) for a in node.names}
    assert "evaluate" not in names


@pytest.mark.parametrize("name", ["study", "analysis"])
def test_rooms_without_torch(name: str) -> None:
    for path in (PACKAGE / name).rglob("*.py"):
        heavy = {"torch", "transformers", "deepspeed"} & {m.split(".")[0] for m in imports(path)}
        assert not heavy, f"{path} imports {heavy}"


def test_one_module_reads_the_ranks_environment() -> None:
    pattern = re.compile(r"[\"'](RANK|WORLD_SIZE|LOCAL_RANK|SLURM_\w+)[\"']")
    users = {str(p.relative_to(PACKAGE)) for p in FILES if pattern.search(p.read_text())}
    assert users == {"environment.py"}


def test_nothing_dangerous() -> None:
    pattern = re.compile(
        r"\bpickle\b(?! is)|(?<!safetensors\.)torch\.load\(|shell=True|os\.system"
        r"|trust_remote_code=True|(?<![.\w])eval\(|(?<![.\w])exec\("
    )
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            code = line.split("#")[0]
            assert not (pattern.search(code) and '"""' not in code), f"{path}:{number}: {line}"


def test_weights_that_do_not_fit_are_looked_at() -> None:
    """transformers draws them anew without a word: whoever allows that reads its list of them."""
    texts = {str(p.relative_to(ROOT)): p.read_text() for p in FILES}
    users = {name for name, text in texts.items() if "ignore_mismatched_sizes" in text}
    assert users == {name for name, text in texts.items() if 'info["mismatched_keys"]' in text}


def test_every_package_is_installed() -> None:
    """Setuptools is given a list, because two of the folders lie outside the package."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {".".join(path.parent.relative_to(ROOT).parts) for path in PACKAGE.rglob("__init__.py")}
    assert found <= set(listed)
