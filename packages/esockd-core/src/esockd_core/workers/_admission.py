"""Admission by limits that hold over all workers of a program."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from esockd_core._admission.admission import Admission
from esockd_core._admission.denial import FORBIDDEN, NO_TOKEN, Denial
from esockd_core._platform.open_files import clamp_max_connections
from esockd_core._stats.counters import Counters, Refused
from esockd_core.workers._buckets import SharedBucket
from esockd_core.workers._sources import SharedSources
from esockd_ratelimit import source_key

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable
    from contextlib import AbstractContextManager

    from esockd_core._admission.overheard import Entering
    from esockd_core._admission.rules import Rules
    from esockd_core._connection.served import ServedConnection
    from esockd_core._options.listener import ListenerOptions, PeerName
    from esockd_core._stats.log import ListenerLog
    from esockd_core.workers._memory import ListenerMemory

LOOK_AGAIN_S: Final = 0.02  # for room that another worker has made


class SharedAdmission(Admission):
    """Judges the clients of one worker by the limits of all.

    Places and tokens are taken under the lock of the listener, in the same step in which they are seen to be free. They
    are in memory that outlives the process, so that its parent can release them.

    Args:
        options: As for `Admission`.
        access: As for `Admission`.
        waiting: As for `Admission`.
        counters: As for `Admission`.
        log: As for `Admission`.
        memory: The memory of the listener.
        slot: The slot of this process.
    """

    __slots__ = ("_has_place", "_has_token", "_memory", "_own_most", "_slot", "_sources")

    def __init__(
        self,
        options: ListenerOptions,
        access: Rules,
        waiting: Entering,
        counters: Counters,
        log: ListenerLog,
        *,
        memory: ListenerMemory,
        slot: int,
    ) -> None:
        self._memory = memory
        self._slot = slot
        self._sources = SharedSources(memory, slot)
        self._own_most, _ = clamp_max_connections(None, explicit=False)
        self._has_place = self._has_token = False
        super().__init__(options, access, waiting, counters, log)
        self._use_shared_buckets()

    def configure(self, options: ListenerOptions, connections: Iterable[ServedConnection] = ()) -> None:
        """Take over the limits of these options."""
        with self._memory.lock:
            super().configure(options, connections)

    def _adjust_buckets(self, old: ListenerOptions) -> None:  # noqa: ARG002 (as of `Admission`)
        self._use_shared_buckets()  # the parent has put the rates in force already

    def _use_shared_buckets(self) -> None:
        options = self.options
        if options.shared is None:  # or `SharedLimit` decides
            self.limiter = None if options.max_conn_rate is None else SharedBucket(self._memory)

    def imagine(self, access: Rules, waiting: Entering) -> Admission:
        """An admission with places and tokens in memory of its own, which the imagined ones of all workers share."""
        imagined = SharedAdmission(
            self.options, access, waiting, Counters(), self.log, memory=self._memory.imagined, slot=self._slot
        )
        imagined.loop_lag_s = self.loop_lag_s
        imagined._memory.places[self._slot] = self._memory.places[self._slot] - self._has_place
        return imagined

    def close(self) -> None:
        """Let go of the memory, once nobody is judged any more."""
        self._sources.close()
        if isinstance(self.limiter, SharedBucket):
            self.limiter.close()

    # Room

    def has_room(self) -> bool:
        """Whether there is a place for one more connection, over all workers."""
        return self._why_full() is None

    def _why_full(self) -> str | None:
        if self._own_most is not None and self._memory.places[self._slot] >= self._own_most:
            return f"its worker may open no more than {self._own_most} files for connections"
        if self.max_connections is not None and self._memory.taken() >= self.max_connections:
            return f"max_connections is {self.max_connections}"
        return None

    def places_taken(self) -> int:
        """How many connections count for `max_connections`, over all workers."""
        return self._memory.taken()

    def reserve(self) -> float:
        """Keep a place and a token for the next client; see `Admission`."""
        with self._memory.lock:
            if self.waits_for_room and not self.has_room():
                return LOOK_AGAIN_S
            if self.waits_for_token:
                if delay_s := self.wait_time_s():
                    return delay_s
                self._has_token = isinstance(self.limiter, SharedBucket) and self.limiter.try_acquire()
            if self.waits_for_room:
                self._memory.places[self._slot] += 1
                self._has_place = True
        return 0.0

    def unreserve(self) -> None:
        """Give back what `reserve` kept and the client did not take."""
        if self._has_place:
            self._has_place = False
            self._memory.places[self._slot] -= 1
        if self._has_token:
            self._has_token = False
            if isinstance(self.limiter, SharedBucket):
                with self._memory.lock:
                    self.limiter.give_back()

    # The verdict

    def judge(self, peer: PeerName | None, host: str, is_allowed: bool) -> Denial | Any | None:
        """Judge a socket's peer, and take its place and its tokens in the same step; see `Admission`."""
        if not is_allowed:
            return FORBIDDEN
        with self._memory.lock:
            verdict = self._take_limits(host)
        if self._has_load_checks and not isinstance(verdict, Denial):
            # Not under the lock: the program's own hook may take its time.
            try:
                overload = self._overload(peer)
            except BaseException:
                self.give_back(verdict)
                raise
            if overload:
                self.give_back(verdict)
                return Denial(Refused.OVERLOADED, overload)
        return verdict

    def _take_limits(self, host: str) -> Denial | Hashable | None:
        """Take a place and tokens, or nothing but the tokens of stages that were passed."""
        if not self._has_place and (full := self._why_full()):
            return Denial(Refused.MAX_LIMIT, full)
        if self._has_source_limits and (denial := self._spend(host)):
            return denial
        if self._has_token:
            self._has_token = False
        elif self.limiter is not None and not self.limiter.try_acquire():
            return Denial(Refused.RATE_LIMITED, NO_TOKEN)
        source = source_key(host) if self._has_source_limits and self.max_per_source is not None else None
        if source is not None and not self._sources.take(source):
            return Denial(Refused.MAX_LIMIT, "too many sources have connections already")
        if self._has_place:
            self._has_place = False
        else:
            self._memory.places[self._slot] += 1
        self.open_count += 1
        return source

    def _spend(self, host: str) -> Denial | None:
        source = source_key(host)
        if self.max_per_source is not None and self._sources.get(source) >= self.max_per_source:
            return Denial(Refused.MAX_LIMIT, f"max_connections_per_source is {self.max_per_source}")
        if self.options.max_conn_rate_per_source is not None and not self._sources.try_acquire(source):
            return Denial(Refused.RATE_LIMITED, "max_conn_rate_per_source has no token left")
        return None

    def admit_source(self, connection: ServedConnection) -> None:
        """Judge the client that a PROXY header names."""
        with self._memory.lock:  # seen to be free and taken in one step
            super().admit_source(connection)

    def release(self, connection: ServedConnection) -> None:
        """Give back the place of an admitted connection that ended."""
        self.open_count -= 1
        self._memory.places[self._slot] -= 1
        if connection.counted_source is not None:
            source, connection.counted_source = connection.counted_source, None
            self._sources.release(source)

    def lock(self) -> AbstractContextManager[object]:
        """Keep all workers from taking places and tokens for the duration of a block."""
        return self._memory.lock

    def source_places_taken(self, host: str) -> int:
        """How many connections count for `max_connections_per_source` of a host's source, over all workers."""
        return self._sources.get(source_key(host))

    def source_wait_time_s(self, host: str) -> float:
        """Seconds until a host's source has a token."""
        return self._sources.wait_time(source_key(host))

    def give_back(self, source: Hashable | None) -> None:
        """Give back a place, and the one of its source if it took one."""
        self.open_count -= 1
        if self._memory.places[self._slot]:  # the parent may have begun another rehearsal, with none taken
            self._memory.places[self._slot] -= 1
        if source is not None:
            self._sources.release(source)

    def release_all(self) -> None:
        """Hold nothing any more."""
        self._memory.places[self._slot] = 0
        self._sources.forget(self._slot)

    def take_source(self, host: str) -> Hashable:
        """Take one of the places of a source; the caller holds the lock, or changes the options of this worker."""
        source = source_key(host)
        self._sources.take(source)
        return source

    def release_source(self, source: Hashable) -> None:
        """Give back a place of a source."""
        self._sources.release(source)
