"""The import rules and sizes that keep the parts apart; read off the syntax trees."""

import ast
import sys
from pathlib import Path

import pytest

# In the order data flows: a module imports only modules above it.
ORDER = [
    "errors",
    "arguments",
    "logs",
    "memory",
    "titles",
    "compiled",
    "pieces",
    "keeping",
    "archives",
    "formats",
    "datasets",
    "movies",
    "report",
    "ratings",
    "roles",
    "pivots",
    "layouts",
    "tables",
    "columns",
    "sheets",
    "catalogue",
    "oddities",
    "assembly",
    "copies",
    "readers",
    "footprint",
    "config",
    "devices",
    "metrics",
    "trained",
    "fitting",
    "torchrun",
    "model",
    "adam",
    "kernels",
    "gibbs",
    "training",
    "benchmark",
    "evaluation",
    "manifest",
    "encoding",
    "packing",
    "folders",
    "storage",
    "checkpoints",
    "jobs",
    "board",
    "explore",
    "parts",
    "walkthrough",
    "comparison",
    "search",
    "recommend",
    "plots",
    "pictures",
    "shrinkage",
    "labels",
    "maps",
    "warm",
    "export",
    "console",
    "commands",
    "cli",
    "__main__",
    "__init__",
]
HEAVY = {
    "torch",
    "sklearn",
    "plotly",
    "safetensors",
    "pooch",
    "requests",
    "psutil",
    "filelock",
    "numba",
    "scipy",
}  # imported where they are used
MAY_IMPORT_TORCH = {"torchrun", "model", "adam"}  # and these are themselves imported only when something is trained
MODULES = sorted(Path("cfrec").glob("*.py"))
PAGES = sorted(Path("app_pages").glob("*.py"))


def imports(path: Path, *, top_level: bool = False) -> set[str]:
    tree = ast.parse(path.read_text())
    typing_only = {
        id(node)
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and getattr(block.test, "id", "") == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    names = set()
    for node in tree.body if top_level else ast.walk(tree):
        if id(node) in typing_only:
            continue
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names |= {f"{node.module}.{alias.name}" if node.module in ("cfrec", "app_pages") else node.module or "" for alias in node.names}
    return names


def own_modules(names: set[str]) -> set[str]:
    return {name.split(".")[1] for name in names if name.startswith("cfrec.")} & {path.stem for path in MODULES}


def test_the_order_names_each_module():
    assert sorted(ORDER) == [path.stem for path in MODULES]


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_modules_import_only_what_stands_above_them(path):
    above = set(ORDER[: ORDER.index(path.stem)])
    assert own_modules(imports(path)) <= above
    if path.stem == "errors":
        assert not imports(path)


@pytest.mark.parametrize("path", MODULES, ids=lambda p: p.stem)
def test_the_library_knows_no_streamlit_and_waits_with_heavy_imports(path):
    assert not {name for name in imports(path) if name.split(".")[0] == "streamlit"}
    heavy = {name.split(".")[0] for name in imports(path, top_level=True)} & HEAVY
    assert heavy <= ({"torch"} if path.stem in MAY_IMPORT_TORCH else set())
    assert not own_modules(imports(path, top_level=True)) & MAY_IMPORT_TORCH or path.stem in MAY_IMPORT_TORCH


def loaded_by_name(path: Path) -> set[str]:
    """The modules that are loaded with load_kernels("…")."""
    calls = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Call)]
    return {
        call.args[0].value for call in calls if getattr(call.func, "id", "") == "load_kernels" and isinstance(call.args[0], ast.Constant)
    }


def test_numba_is_imported_by_modules_loaded_by_name_alone():
    """A module of compiled functions imports Numba as it is imported: whoever names it at the top must be loaded by name itself."""
    loaded = set().union(*map(loaded_by_name, MODULES))
    assert {"gibbs"} <= loaded
    compiling = {path.stem for path in MODULES if {"cfrec.compiled.compiled", "numba.types"} & imports(path)} | loaded
    for path in MODULES:
        assert not own_modules(imports(path, top_level=True)) & compiling or path.stem in loaded, path


def foreign_to_a_page(path: Path) -> set[str]:
    """What a page imports beside cfrec, streamlit, its helpers and the standard library."""
    helpers = {f"app_pages.{page.stem}" for page in PAGES if page.stem.startswith("_")}
    allowed = {"cfrec", "streamlit", *sys.stdlib_module_names}
    return {name for name in imports(path) if name.split(".")[0] not in allowed and name not in helpers}


@pytest.mark.parametrize("path", [*PAGES, Path("streamlit_app.py")], ids=lambda p: p.stem)
def test_pages_import_cfrec_streamlit_and_helpers_alone(path):
    assert foreign_to_a_page(path) == set()


@pytest.mark.parametrize("path", [*MODULES, *PAGES, Path("streamlit_app.py")], ids=str)
def test_sizes(path):
    limit = 60 if path.name == "streamlit_app.py" else 500
    assert len(path.read_text().splitlines()) <= limit


def test_the_checks_are_not_blind(tmp_path):
    """Negative control: a module that breaks the rules is seen to."""
    bad = tmp_path / "titles.py"
    bad.write_text("import streamlit as st\nfrom cfrec.cli import main\ndef f():\n    from cfrec import storage\n")
    assert imports(bad) == {"streamlit", "cfrec.cli", "cfrec.storage"}
    assert own_modules(imports(bad)) == {"cli", "storage"}
    assert own_modules(imports(bad, top_level=True)) == {"cli"}
    bad.write_text("import torch\nimport streamlit\nfrom app_pages import start\nfrom start import x\nimport json\n")
    assert foreign_to_a_page(bad) == {"torch", "app_pages.start", "start"}
