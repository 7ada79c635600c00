"""A game of 30 ticks a second: everybody moves on a field, and each tick tells everybody where everybody is.

python examples/game.py 5000
nc 127.0.0.1 5000  # in another terminal; type u, d, l or r, and q to leave
esockd bench 5000 --mode idle -c 200  # two hundred who stand still: they are sent 30 lines a second, which is told
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass

import anyio

from esockd_core import ConnectionGroup, Server, StreamConnection

TICK_S = 1 / 30
WIDTH, HEIGHT = 80, 24
STEPS = {b"u": (0, -1), b"d": (0, 1), b"l": (-1, 0), b"r": (1, 0)}


@dataclass(slots=True)
class Player:
    """Where somebody is, and where they want to go at the next tick."""

    x: int = WIDTH // 2
    y: int = HEIGHT // 2
    step: tuple[int, int] = (0, 0)


class Game:
    """The field. Players only say what they want; the tick alone changes the field, for all at once."""

    def __init__(self) -> None:
        self.players: dict[int, Player] = {}
        self.watching = ConnectionGroup(when_slow="drop")  # whoever reads too slowly misses ticks, and delays nobody

    async def play(self, connection: StreamConnection) -> None:
        """Take the keys of one player until they leave."""
        player = self.players[connection.id] = Player()
        try:
            with self.watching.joined(connection), connection.until_draining():
                async for keys in connection:
                    if b"q" in keys:
                        return
                    for key in keys.split():
                        player.step = STEPS.get(key[-1:], player.step)
        finally:
            del self.players[connection.id]

    def tick(self, number: int) -> None:
        """Move everybody, and tell everybody."""
        for player in self.players.values():
            player.x = min(max(player.x + player.step[0], 0), WIDTH - 1)
            player.y = min(max(player.y + player.step[1], 0), HEIGHT - 1)
            player.step = (0, 0)
        places = {name: (player.x, player.y) for name, player in self.players.items()}
        self.watching.broadcast(json.dumps({"tick": number, "players": places}).encode() + b"\n")

    async def run(self) -> None:
        """Tick at fixed times: a late tick does not make those after it late."""
        begun, number = anyio.current_time(), 0
        while True:
            number = max(number + 1, int((anyio.current_time() - begun) / TICK_S))
            await anyio.sleep_until(begun + number * TICK_S)
            self.tick(number)


async def main(address: str) -> None:
    """Serve until SIGINT or SIGTERM."""
    game = Game()
    async with Server() as server, anyio.create_task_group() as group:
        listener = await server.open("game", address, game.play, max_connections=200, send_timeout=5)
        print("listening on", *listener.addresses, flush=True)
        group.start_soon(game.run)
        await server.serve_until_signal()
        group.cancel_scope.cancel()


if __name__ == "__main__":
    anyio.run(main, sys.argv[1])
