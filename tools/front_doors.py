"""An import contract: a package uses only what another package exports.

A module with a name that begins with an underscore is private to its own top-level package. `forbidden` contracts
cannot express that, because their wildcards stand for whole names only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from importlinter import Contract, ContractCheck, output

if TYPE_CHECKING:
    from grimp import ImportGraph


def top_level(module: str) -> str:
    """`esockd_core._listening.server` belongs to `esockd_core`."""
    return module.partition(".")[0]


def is_private(module: str) -> bool:
    """Whether any part of the dotted name begins with an underscore."""
    return any(part.startswith("_") for part in module.split("."))


class FrontDoors(Contract):
    """No module imports a private module of another top-level package."""

    type_name = "front_doors"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look at every import that crosses a package's border."""
        output.verbose_print(verbose, "Looking for private modules imported across packages...")
        packages = self.session_options["root_packages"]
        broken = sorted(
            f"{importer} -> {imported}"
            for imported in graph.modules
            if is_private(imported) and top_level(imported) in packages
            for importer in graph.find_modules_that_directly_import(imported)
            if top_level(importer) != top_level(imported)
        )
        return ContractCheck(kept=not broken, metadata={"broken": broken})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Name each import that goes in by the back door."""
        for line in check.metadata["broken"]:
            output.print_error(f"{line}: that module is private; import what its package exports.")
