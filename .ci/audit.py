"""Are there known vulnerabilities in the packages of this environment? Exit code 1 if there are.

Where pip-audit or its database cannot be reached, a line says so, and the exit code is 0: no answer is not a bad one.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

PIP_AUDIT = "pip-audit==2.10.1"
MOST_SECONDS = 30  # for its installation, and again for its answer


def pins() -> list[str]:
    """What is installed here, without what tells builds of one version apart (2.13.0+cpu)."""
    return sorted({f"{package.name}=={package.version.partition('+')[0]}" for package in distributions()})


def ask(packages: list[str], folder: Path) -> dict[str, Any]:
    """What pip-audit, in an environment of its own, reports of the packages. Raises OSError, SubprocessError or ValueError."""
    venv.create(folder / "venv", with_pip=True)
    python, wanted, report = folder / "venv" / "bin" / "python", folder / "packages.txt", folder / "report.json"
    wanted.write_text("\n".join(packages))
    subprocess.run([python, "-m", "pip", "install", "--quiet", PIP_AUDIT], check=True, capture_output=True, timeout=MOST_SECONDS)
    options = ["--no-deps", "--disable-pip", "--progress-spinner=off", "--timeout=5", "--format=json"]
    command = [python, "-m", "pip_audit", *options, "-r", wanted, "-o", report]
    subprocess.run(command, check=False, capture_output=True, timeout=MOST_SECONDS)  # its exit code is 1 for many reasons
    found: dict[str, Any] = json.loads(report.read_text())
    return found


def verdict(report: dict[str, Any]) -> tuple[int, list[str]]:
    """The exit code, and what to say."""
    packages = report["dependencies"]
    audited = [package for package in packages if "skip_reason" not in package]
    bad = [(package, vulnerability) for package in audited for vulnerability in package["vulns"]]
    lines = [f"{p['name']} {p['version']}: {v['id']}, mended in {', '.join(v['fix_versions']) or 'no version yet'}" for p, v in bad]
    if not audited:
        return 0, [f"audit skipped: the database told nothing of any of the {len(packages)} packages"]
    unknown = [package["name"] for package in packages if package not in audited]
    told = f"audit: {len(audited)} packages, {len(bad)} known vulnerabilities"
    return int(bool(bad)), [*lines, told + (f"; nothing is known of {', '.join(unknown)}" if unknown else "")]


def main() -> int:
    """Ask, and say what came of it."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            code, lines = verdict(ask(pins(), Path(folder)))
        except (OSError, subprocess.SubprocessError, ValueError, KeyError) as error:
            code, lines = 0, [f"audit skipped: {PIP_AUDIT} gave no answer ({type(error).__name__})"]
    print("\n".join(lines))  # noqa: T201
    return code


if __name__ == "__main__":
    sys.exit(main())
