"""An import contract: no module imports itself through others.

Imports under `if TYPE_CHECKING` and inside functions count: they hide a circle from the interpreter, not from readers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from importlinter import Contract, ContractCheck, fields, output

if TYPE_CHECKING:
    from grimp import ImportGraph
    from importlinter.domain.imports import ImportExpression


class NoCircles(Contract):
    """No module imports itself through others, unless one of the imports on the way is in `allowed`.

    An allowance breaks the contract as soon as no circle needs it, so the list only ever gets shorter.
    """

    type_name = "no_circles"

    allowed = fields.ListField(subfield=fields.ImportExpressionField(), default=[])

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Look at every import for a way back."""
        output.verbose_print(verbose, "Looking for modules that import themselves through others...")
        allowed = [(str(line.importer), str(line.imported)) for line in cast("list[ImportExpression]", self.allowed)]
        needless = [line for line in allowed if line[1] not in imported_by(graph, line[0])]
        allowed = [line for line in allowed if line not in needless]
        for importer, imported in allowed:
            graph.remove_import(importer=importer, imported=imported)
        circles = {
            frozenset(way_back): [importer, *way_back]
            for importer in sorted(graph.modules, reverse=True)  # the first of a circle comes last and stays
            for imported in sorted(imported_by(graph, importer))
            if (way_back := graph.find_shortest_chain(imported, importer))
        }
        for importer, imported in allowed:
            if not graph.find_shortest_chain(imported, importer):
                needless.append((importer, imported))
                graph.add_import(importer=importer, imported=imported)
        metadata = {"circles": sorted(circles.values()), "needless": needless}
        return ContractCheck(kept=not circles and not needless, metadata=metadata)

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Show each circle, and each allowance to delete."""
        for circle in check.metadata["circles"]:
            output.print_error(f"{' -> '.join(circle)}: a circle; move what both ends need to a module below them.")
        for importer, imported in check.metadata["needless"]:
            output.print_error(f"{importer} -> {imported}: no circle needs this allowance any more; delete it.")


def imported_by(graph: ImportGraph, module: str) -> set[str]:
    """The modules that a module imports; none for a module that is gone."""
    return graph.find_modules_directly_imported_by(module) if module in graph.modules else set()
