"""What the app stands on: exact versions, licences that allow it, and known vulnerabilities that are told from no answer."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution, packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

FILES = ["requirements.txt", "tests/requirements.txt"]
PIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*==[0-9][0-9a-z.]*")


def lines(text: str) -> list[str]:
    """Requirements without their remarks."""
    return [line for raw in text.splitlines() if (line := re.sub(r"(^|\s)#.*", "", raw).strip())]


def loose(text: str) -> list[str]:
    """Lines that allow more than one version, or come from elsewhere than the package index."""
    return [line for line in lines(text) if not PIN.fullmatch(line)]


# Versions


@pytest.mark.parametrize("path", FILES)
def test_every_requirement_is_one_exact_version(path):
    assert lines(Path(path).read_text())
    assert loose(Path(path).read_text()) == []


def test_what_builds_the_package_is_one_exact_version_and_it_installs_these_requirements():
    project = tomllib.loads(Path("pyproject.toml").read_text())
    assert [line for line in project["build-system"]["requires"] if not PIN.fullmatch(line)] == []
    assert project["tool"]["setuptools"]["dynamic"]["dependencies"] == {"file": FILES[0]}


@pytest.mark.parametrize(
    "line",
    [
        "numpy>=2.4",
        "numpy",
        "numpy==2.*",
        "numpy==2.4.6,<3",
        "numpy @ https://example.org/numpy.whl",
        "git+https://example.org/numpy.git@main",
        "-e .",
        "--extra-index-url https://example.org/simple",
        "-r more.txt",
        "./numpy.whl",
        'numpy==2.4.6; python_version > "3.11"',
    ],
)
def test_a_loose_requirement_would_be_found(line):
    """Negative control."""
    assert loose(f"# a remark\n{line}  # another\npandas==3.1.1\n") == [line]


def test_no_package_is_pinned_twice():
    names = [canonicalize_name(Requirement(line).name) for path in FILES for line in lines(Path(path).read_text())]
    assert len(names) == len(set(names))


def test_what_is_installed_is_what_is_pinned():
    pins = [Requirement(line) for path in FILES for line in lines(Path(path).read_text())]
    assert [str(pin) for pin in pins if not pin.specifier.contains(distribution(pin.name).version)] == []


def imported(folder: str) -> set[str]:
    """Packages beside the standard library that the modules of a folder import."""
    names = set()
    for path in Path(folder).glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                names.add(node.module.partition(".")[0])
    return names - sys.stdlib_module_names - {"cfrec", "app_pages"}


def test_whatever_is_imported_is_pinned_by_name():
    """Else its version would be anybody's guess."""
    pinned = {canonicalize_name(Requirement(line).name) for line in lines(Path("requirements.txt").read_text())}
    distributed = packages_distributions()
    names = imported("cfrec") | imported("app_pages")
    assert {name for name in names if not pinned & {canonicalize_name(package) for package in distributed[name]}} == set()
    assert {"numpy", "streamlit", "sklearn"} <= names


def test_readme_pyproject_and_ci_name_the_same_pythons():
    project = tomllib.loads(Path("pyproject.toml").read_text())
    versions = re.findall(r"3\.\d+", re.search(r"python: \[.*\]", Path(".github/workflows/ci.yml").read_text())[0])
    assert project["project"]["requires-python"] == f">={versions[0]}"
    assert project["tool"]["ruff"]["target-version"] == "py" + versions[0].replace(".", "")
    assert f"Python {versions[0]} to {versions[-1]}" in Path("README.md").read_text()
    assert f"Python {', '.join(versions[:-1])} and {versions[-1]}" in Path("requirements.txt").read_text()


def test_the_licence_is_the_same_everywhere():
    assert tomllib.loads(Path("pyproject.toml").read_text())["project"]["license"] == "MIT"
    assert Path("LICENSE").read_text().startswith("MIT License")
    assert "under the [MIT licence](LICENSE)" in Path("README.md").read_text()


# Licences

PERMISSIVE = {
    *("MIT", "MIT-CMU", "BSD", "0BSD", "BSD-2-Clause", "BSD-3-Clause", "Apache-2.0", "Apache-2.0 WITH LLVM-exception"),
    *("BSL-1.0", "PSF-2.0", "ISC", "Zlib", "CC0-1.0", "HPND", "Unlicense"),
}
BY_OTHER_NAMES = {
    "Apache Software License": "Apache-2.0",
    "Apache License 2.0": "Apache-2.0",
    "Apache 2.0": "Apache-2.0",
    "BSD License": "BSD",
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "Python Software Foundation License": "PSF-2.0",
    "ISC License (ISCL)": "ISC",
}
ON_PURPOSE = {  # package -> a licence that is not in the list above, and is no obstacle
    "certifi": "MPL-2.0",  # binds who changes its files: a list of certificates, which nobody here changes
    "tqdm": "MPL-2.0",  # likewise
}
NVIDIA = re.compile(r"(nvidia|cuda)-[a-z0-9-]+")  # torch's wheel for Linux brings NVIDIA's own libraries; cfrec passes none of them on


def licence(package: Distribution) -> str:
    """What a package says its licence is: in the field for that, or else in its classifiers, or else in words."""
    data = package.metadata
    classified = [line.rpartition(" :: ")[2] for line in data.get_all("Classifier") or [] if line.startswith("License ::")]
    exact = [name for name in classified if name != "OSI Approved"]
    said = data.get("License-Expression") or " AND ".join(BY_OTHER_NAMES.get(name, name) for name in exact) or data.get("License") or ""
    return BY_OTHER_NAMES.get(said, said)


def is_allowed(name: str, said: str) -> bool:
    """Whether some alternative of a licence expression is permissive in all its parts; brackets and whatever is unknown are not."""
    parts = [alternative.split(" AND ") for alternative in said.split(" OR ")]
    return any(all(part in PERMISSIVE or part == ON_PURPOSE.get(name) for part in alternative) for alternative in parts)


def all_needed(path: str) -> Iterator[Distribution]:
    """The packages that a file of requirements brings here, their own requirements included."""
    waiting, seen = [Requirement(line) for line in lines(Path(path).read_text())], set()
    while waiting:
        wanted = waiting.pop()
        name = canonicalize_name(wanted.name)
        asked = {"", *wanted.extras}
        if (name, *sorted(asked)) in seen:
            continue
        seen.add((name, *sorted(asked)))
        package = distribution(name)
        yield package
        needs = [Requirement(line) for line in package.requires or []]
        waiting += [need for need in needs if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in asked)]


def test_every_package_has_a_licence_that_allows_this():
    packages = {canonicalize_name(package.name): licence(package) for package in all_needed("requirements.txt")}
    assert len(packages) > 40
    assert {"numpy", "pyarrow", "certifi"} <= packages.keys()  # asked for, and brought by others
    refused = {name: said for name, said in packages.items() if not is_allowed(name, said) and not NVIDIA.fullmatch(name)}
    assert refused == {}


class MadeUp(Distribution):
    def __init__(self, **fields):
        self.fields = fields

    def read_text(self, filename):
        if filename != "METADATA":
            return None
        return "\n".join(
            ["Metadata-Version: 2.4", "Name: made-up", "Version: 1", *(f"{k.replace('_', '-')}: {v}" for k, v in self.fields.items())]
        )

    def locate_file(self, path):
        return Path(path)


@pytest.mark.parametrize(
    ("fields", "allowed"),
    [
        ({"License_Expression": "MIT"}, True),
        ({"License_Expression": "GPL-3.0-only OR MIT"}, True),
        ({"License": "Apache License 2.0"}, True),
        ({"Classifier": "License :: OSI Approved :: BSD License", "License": "Copyright (c) 2015 somebody; all rights reserved"}, True),
        ({"License_Expression": "GPL-3.0-or-later"}, False),
        ({"License_Expression": "MIT AND GPL-3.0-only"}, False),
        ({"License_Expression": "(MIT OR GPL-3.0-only) AND AGPL-3.0-only"}, False),
        ({"License_Expression": "MPL-2.0"}, False),  # only where it is listed
        ({"License_Expression": "GPL-2.0-only", "Classifier": "License :: OSI Approved :: MIT License"}, False),
        ({"Classifier": "License :: OSI Approved :: GNU General Public License v3 (GPLv3)"}, False),
        ({"Classifier": "License :: Other/Proprietary License"}, False),
        ({"Classifier": "License :: OSI Approved"}, False),
        ({"License": "Free for personal use"}, False),
        ({"License": "UNKNOWN"}, False),
        ({}, False),
    ],
)
def test_a_licence_that_binds_or_that_nobody_knows_would_be_found(fields, allowed):
    """Negative control."""
    assert is_allowed("made-up", licence(MadeUp(**fields))) is allowed


# Known vulnerabilities


@pytest.fixture
def audit():
    spec = importlib.util.spec_from_file_location("audit", ".ci/audit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


GOOD = {"name": "good", "version": "1.0", "vulns": []}
BAD = {"name": "bad", "version": "2.0", "vulns": [{"id": "PYSEC-1", "fix_versions": ["2.1"]}, {"id": "PYSEC-2", "fix_versions": []}]}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited: unknown (1.0)"}


def test_a_known_vulnerability_is_told_from_no_answer(audit):
    assert audit.verdict({"dependencies": [GOOD]}) == (0, ["audit: 1 packages, 0 known vulnerabilities"])
    assert audit.verdict({"dependencies": [GOOD, UNKNOWN]})[1] == [
        "audit: 1 packages, 0 known vulnerabilities; nothing is known of unknown"
    ]
    assert audit.verdict({"dependencies": [UNKNOWN]}) == (0, ["audit skipped: the database told nothing of any of the 1 packages"])
    code, said = audit.verdict({"dependencies": [GOOD, BAD, UNKNOWN]})
    assert code == 1
    assert said[:2] == ["bad 2.0: PYSEC-1, mended in 2.1", "bad 2.0: PYSEC-2, mended in no version yet"]


@pytest.mark.parametrize(
    "error", [OSError("no network"), subprocess.TimeoutExpired("pip", 30), subprocess.CalledProcessError(1, "pip"), ValueError("no JSON")]
)
def test_no_answer_is_one_line_and_no_failure(audit, error, monkeypatch, capsys):
    def fail(*_):
        raise error

    monkeypatch.setattr(audit, "ask", fail)
    assert audit.main() == 0
    assert capsys.readouterr().out == f"audit skipped: pip-audit==2.10.1 gave no answer ({type(error).__name__})\n"


def test_an_audit_that_finds_something_fails(audit, monkeypatch, capsys):
    monkeypatch.setattr(audit, "ask", lambda *_: {"dependencies": [BAD]})
    assert audit.main() == 1
    assert "PYSEC-1" in capsys.readouterr().out


def test_all_that_is_installed_is_asked_about(audit):
    pins = audit.pins()
    assert f"numpy=={distribution('numpy').version}" in pins
    assert not [pin for pin in pins if not PIN.fullmatch(pin)]
    assert PIN.fullmatch(audit.PIP_AUDIT)


def test_ci_runs_the_audit_and_stops_where_it_fails():
    script = Path(".ci/run").read_text()
    assert "set -euo pipefail" in script
    assert "\npython .ci/audit.py\n" in script
