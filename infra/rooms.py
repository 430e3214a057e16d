"""An import-linter contract: each room of the house imports the rooms that its line names, and no other of ours.

A room is a package or module; what stands in it belongs to the room with the longest name that fits. A module that fits
no room breaks the contract, so that a new room says at once what it stands on. Lazy imports and those for typing count.
"""

from collections.abc import Iterator
from typing import Any

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, fields, output


class RoomsContract(Contract):
    """Lines `room -> room, room`; an import within a room is its own affair."""

    type_name = "rooms"

    rooms = fields.ListField(subfield=fields.StringField())

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:  # noqa: ARG002 - the interface
        """Compare every import between two rooms with the lines."""
        allowed = dict(_lines(self.rooms))
        ours = sorted(name for name in graph.modules if name.split(".")[0] in {room.split(".")[0] for room in allowed})
        room_of = {name: _room_of(name, allowed) for name in ours}
        broken = [
            f"{name} stands in no room; name its room and what it may import" for name in ours if not room_of[name]
        ]
        for importer in ours:
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                there, here = room_of.get(imported, ""), room_of[importer]
                if here and there and there != here and there not in allowed[here]:
                    line = graph.get_import_details(importer=importer, imported=imported)[0]["line_number"]
                    broken.append(f"{importer}:{line} imports {imported}: {here} may not import {there}")
        unused = [f"no module stands in {room}" for room in allowed if room not in room_of.values()]
        return ContractCheck(kept=not broken + unused, metadata={"broken": broken + unused})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """One line for each import that is not allowed."""
        for line in check.metadata["broken"]:
            output.print_error(line)


def _lines(rooms: Any) -> Iterator[tuple[str, set[str]]]:
    for line in rooms:
        room, _, imports = line.partition("->")
        yield room.strip(), {name.strip() for name in imports.split(",")} - {""}


def _room_of(module: str, rooms: dict[str, set[str]]) -> str:
    # a floor is a room for its own `__init__` only: what stands on it needs one with a name
    fitting = [room for room in rooms if module == room or ("." in room and module.startswith(f"{room}."))]
    return max(fitting, key=len, default="")
