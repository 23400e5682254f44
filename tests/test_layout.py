"""The house: rooms, the direction of imports, packaging and tested versions, each against the files themselves."""

import ast
import importlib
import re
import runpy
import tomllib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).resolve().parent.parent
ROOMS = ("augment", "cli", "data_specs", "models", "render")
MODULES = sorted(path for room in ROOMS for path in (ROOT / room).rglob("*.py"))
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())

MAY_IMPORT = {
    "data_specs": {"data_specs"},
    "render": {"data_specs", "render"},
    "models": {"data_specs", "models"},
    "augment": {"data_specs", "render", "models", "augment"},
    "cli": set(ROOMS),
}
"""Arrows of docs/design.md: never upwards, never between `render` and `models`."""

ONLY_IN = {
    "bpy": "render/blender",
    "cycles": "render/blender",
    "mathutils": "render/blender",
    "albumentations": "augment",
    "anny": "render",
    "click": "cli",
    "rich": "cli",
}
"""Package from outside -> the one place that imports it."""


def imports(path: Path) -> set[str]:
    """Dotted names of everything that a module imports, at the top or inside functions."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


@pytest.mark.parametrize("room", ROOMS)
def test_room_is_imported_from_the_root_folder(room: str) -> None:
    module = importlib.import_module(f"handaug.{room}")
    assert module.__file__ is not None
    assert Path(module.__file__).samefile(ROOT / room / "__init__.py")
    assert (ROOT / "src" / "handaug" / room).is_symlink()


def test_links_wheel_sources_and_included_folders_agree() -> None:
    links = {path.name for path in (ROOT / "src" / "handaug").iterdir() if path.is_symlink()}
    build = PROJECT["tool"]["hatch"]["build"]
    sources = build["targets"]["wheel"]["sources"]
    assert links == set(ROOMS)
    assert set(build["only-include"]) == links | {"src/handaug/__init__.py", "src/handaug/py.typed"}
    assert sources == {"src/handaug": "handaug", **{room: f"handaug/{room}" for room in links}}


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_one_way(path: Path) -> None:
    place = path.relative_to(ROOT)
    for name in imports(path):
        top, _, rest = name.partition(".")
        assert top not in ROOMS, f"{place} imports {name}, a second copy of handaug.{name}"
        if top == "handaug" and rest.split(".")[0] in ROOMS:
            assert rest.split(".")[0] in MAY_IMPORT[place.parts[0]], f"{place} must not import {name}"
        if top in ONLY_IN:
            assert str(place).startswith(ONLY_IN[top] + "/"), f"{place} must not import {top}"
        if place.is_relative_to("render/blender"):
            assert top != "torch", f"{place} must not import torch"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_modules_are_small_and_name_what_is_public(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree), "no docstring"
    assert len(path.read_text().splitlines()) <= 400
    defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
    if defines:
        assert any(isinstance(n, ast.Assign) and getattr(n.targets[0], "id", "") == "__all__" for n in tree.body)


def pins() -> list[Requirement]:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    return [Requirement(line) for line in lines if not line.startswith("#")]


def test_constraints_pin_every_dependency_and_are_what_is_installed() -> None:
    assert not re.search(r"https?:|file:|@", (ROOT / "constraints.txt").read_text())
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = [Requirement(line) for lines in (PROJECT["project"]["dependencies"], *extras.values()) for line in lines]
    pinned = {pin.name: pin for pin in pins() if pin.marker is None or pin.marker.evaluate()}
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate():
            (specifier,) = pinned[requirement.name].specifier
            assert specifier.operator == "=="
            assert specifier.version in requirement.specifier
            assert version(requirement.name) == specifier.version


def test_uv_is_told_what_pip_knows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    setup = runpy.run_path(str(ROOT / "tools" / "setup.py"))
    for name in ("UV_DEFAULT_INDEX", "UV_INDEX", "UV_FIND_LINKS", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("UV_HTTP_TIMEOUT", "7")
    told = setup["uv_environment"](
        {
            "index-url": "https://mirror.invalid/simple",
            "extra-index-url": "https://more.invalid/simple",
            "find-links": f"{tmp_path} {tmp_path}/nothing-there",
            "timeout": "30",
        }
    )
    assert told["UV_DEFAULT_INDEX"] == "https://mirror.invalid/simple"
    assert told["UV_INDEX"] == "https://more.invalid/simple"
    assert told["UV_FIND_LINKS"] == str(tmp_path)  # pip only warns of a folder that is not there, uv stops
    assert told["UV_HTTP_TIMEOUT"] == "7"  # what the user set for uv wins
    assert "SSL_CERT_FILE" not in told


def test_pip_settings_let_the_environment_win(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = tmp_path / "pip.conf"
    config.write_text("[global]\nindex-url = https://file.invalid/simple\ntimeout = 5\n")
    monkeypatch.setenv("PIP_CONFIG_FILE", str(config))
    monkeypatch.setenv("PIP_INDEX_URL", "https://environment.invalid/simple")
    settings = runpy.run_path(str(ROOT / "tools" / "setup.py"))["pip_settings"]()
    assert settings["index-url"] == "https://environment.invalid/simple"
    assert settings["timeout"] == "5"
