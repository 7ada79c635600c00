"""Fail unless pyright finds every public name of a package fully typed.

Usage: .venv/bin/python tools/check_public_types.py PACKAGE
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Entry point."""
    package = sys.argv[1]
    pyright = Path(sys.executable).with_name("pyright")
    command = [pyright, "--outputjson", "--ignoreexternal", "--verifytypes", package]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    report = json.loads(result.stdout)["typeCompleteness"]
    score: float = report["completenessScore"]
    counts = report["exportedSymbolCounts"]
    print(f"{package}: {score:.1%} of {sum(counts.values())} public names fully typed")
    if score < 1 or result.returncode:
        for symbol in report["symbols"]:
            if symbol["isExported"] and not symbol["isTypeKnown"]:
                print(f"  {symbol['name']}: {[entry['message'] for entry in symbol['diagnostics']]}")
        sys.exit(1)


if __name__ == "__main__":
    main()
