"""Fail unless pyright finds every public name of a package fully typed.

Usage: .venv/bin/python tools/check_public_types.py PACKAGE
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Entry point."""
    package = sys.argv[1]
    scripts = Path(sys.executable).parent
    command = [str(scripts / "pyright"), "--outputjson", "--ignoreexternal", "--verifytypes", package]
    # pyright looks for the packages of the first `python` on PATH; --verifytypes disregards --pythonpath.
    environment = os.environ | {"PATH": f"{scripts}{os.pathsep}{os.environ.get('PATH', os.defpath)}"}
    result = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    try:
        report = json.loads(result.stdout)["typeCompleteness"]
    except (ValueError, KeyError):
        sys.exit(f"error: pyright printed no report on {package}:\n{result.stdout}{result.stderr}")
    if "py.typed" not in (report.get("pyTypedPath") or ""):
        sys.exit(f"error: {package} ships no py.typed")
    public = [symbol for symbol in report["symbols"] if symbol["isExported"]]
    unknown = [symbol for symbol in public if not symbol["isTypeKnown"]]
    print(f"{package}: {len(public) - len(unknown)} of {len(public)} public names fully typed")
    # A private name that it refers to may make a public name unknown.
    for symbol in report["symbols"]:
        if unknown and not symbol["isTypeKnown"] and symbol["diagnostics"]:
            print(f"  {symbol['name']}: {'; '.join(entry['message'] for entry in symbol['diagnostics'])}")
    # pyright also exits 1 without any public name, where there is nothing to type.
    if unknown or (public and result.returncode):
        sys.exit(f"error: the public names of {package} must be fully typed")


if __name__ == "__main__":
    main()
