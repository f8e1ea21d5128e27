"""One edge node: its session, its sequence, and what of it waits. Pure: no clock, no log, no connection.

    never born --NBIRTH--> online <--NBIRTH / NDEATH of the same bdSeq--> dead

In the order of their sequence numbers (0 to 255, then 0) messages are taken at once. One that is ahead waits for those
before it; after the reorder timeout these are a gap. Data that no birth explains waits for one. What waits is stored
with the rest of the state, so that it may be acknowledged; see `headrace.connectors.sparkplug.store`.
"""

from collections.abc import Callable, Iterable

from headrace.connectors.formats.parts import most_output
from headrace.connectors.sparkplug.catalogue import NOTHING, Catalogue, UnknownMetric, documents
from headrace.connectors.sparkplug.session import Gap, Held, Life, Message, Outcome, Reading, Refusal, Session
from headrace.connectors.sparkplug.settings import SparkplugSettings
from headrace.connectors.sparkplug.wire import BadPayload

#: Sequence numbers; a message that is more than half of them ahead is behind.
NUMBERS = 256
HALF = NUMBERS // 2
#: Kinds that are understood without what came before; they say which values there are, or have none.
_EXPLAIN_THEMSELVES = ("DBIRTH", "DDEATH")
#: The node among its devices.
NODE = ""


class Edge:
    """One edge node.

    Args:
        name: its descriptor, `GROUP/EDGE`.
        settings: times and bounds.
        time_field: of the documents, ms since 1970 UTC.
    """

    def __init__(self, name: str, settings: SparkplugSettings, time_field: str = "timestamp") -> None:
        self.name = name
        self._settings = settings
        self._time_field = time_field
        self.session = Session()
        #: By device; those of the node under `NODE`.
        self.catalogues: dict[str, Catalogue] = {}
        self.held: dict[int, Held] = {}
        self.held_bytes = 0
        #: Keys of `catalogues` and `held` that have changed since they were stored.
        self.changed_catalogues: set[str] = set()
        self.changed_held: set[int] = set()
        self._asked_ms: int | None = None
        self._heard = False

    def take(self, message: Message, seen: bool, out: Outcome) -> None:
        """Take a message; `seen` says that the same bytes came on the same topic lately."""
        self._heard = True
        if message.about.kind == "NBIRTH":
            self._take_birth(message, seen, out)
        elif message.about.kind == "NDEATH":
            self._take_death(message, out)
        else:
            self._take_in_session(message, seen, out)
        self._bound(out)

    def pass_time(self, now_ms: int, out: Outcome) -> None:
        """Wait no longer for what should have come by now."""
        patience = now_ms - 1000 * self._settings.reorder_timeout
        while self._numbers(lambda held: held.for_order and held.message.came_ms <= patience):
            self._give_up(self._numbers(lambda held: held.for_order), out)
        patience = now_ms - 1000 * self._settings.hold
        for number in self._numbers(lambda held: not held.for_order and held.message.came_ms <= patience):
            self._leave(number, f"no birth certificate explained it in {self._settings.hold:g} s", out)

    def is_rebirth_due(self, now_ms: int) -> bool:
        """Whether to ask it for its births now: they are wanted, it speaks, and it was not asked for a while."""
        waited = self._asked_ms is None or now_ms - self._asked_ms >= 1000 * self._settings.rebirth_interval
        return self.session.wants_rebirth and self._heard and waited

    def note_asked(self, now_ms: int) -> None:
        """It was asked for its births."""
        self._asked_ms, self._heard = now_ms, False

    def keep(self, number: int, held: Held) -> None:
        """Put a message among those that wait."""
        self.held[number] = held
        self.held_bytes += len(held.message.raw)

    # --- births and deaths ---

    def _take_birth(self, message: Message, seen: bool, out: Outcome) -> None:
        session, stamp, bd_seq = self.session, message.payload.timestamp, message.payload.bd_seq
        if seen and stamp and session.born_ms is not None and stamp <= session.born_ms:
            session.counts.repeats += 1
            if stamp == session.born_ms and not session.online:
                self._come_to_life(NODE, message, out)  # its death, which was before it, came again too
                session.online = True
            return
        declared = self._declared(message, Outcome() if seen else out)
        if declared is None:
            return
        catalogue, found = declared
        if self._is_of_earlier_session(message):
            out.readings += [Reading(each, message) for each in found]
            session.counts.late += 1
            return
        self._settle(message, out)
        same = session.online and bd_seq == session.bd_seq
        if not same:
            self._end_lives("taken over", message, out)
        for device, known in list(self.catalogues.items()):
            self._know(device, NOTHING._replace(connection=known.connection) if same else None)
        session.before, session.seq, session.bd_seq = session.seq, message.seq, bd_seq
        session.born_ms = session.last_ms = stamp
        session.online, session.wants_rebirth = True, False
        session.missing.clear()
        session.counts.births += 1
        # One that comes again, out of turn, takes effect again, but its values were read.
        self._be_born(NODE, (catalogue, [] if seen else found), message, out)
        self._drain(out)

    def _is_of_earlier_session(self, birth: Message) -> bool:
        """Whether both clock and session number say that a later birth has overtaken it."""
        session, stamp, bd_seq = self.session, birth.payload.timestamp, birth.payload.bd_seq
        if stamp is None or session.born_ms is None or bd_seq is None or session.bd_seq is None:
            return False
        return stamp < session.born_ms and 0 < (session.bd_seq - bd_seq) % NUMBERS < HALF

    def _be_born(self, device: str, declared: tuple[Catalogue, list[bytes]], message: Message, out: Outcome) -> None:
        """A node or a device is there, with these metrics."""
        catalogue, found = declared
        self._know(device, catalogue._replace(connection=self.catalogues.get(device, NOTHING).connection))
        self._come_to_life(device, message, out)
        out.readings += [Reading(each, message) for each in found]
        self._explain(device, out)

    def _declared(self, message: Message, out: Outcome) -> tuple[Catalogue, list[bytes]] | None:
        """What a birth says; None where it is refused."""
        try:
            catalogue = Catalogue.of(message.payload.metrics)
            return catalogue, self._documents(message, catalogue)
        except BadPayload as error:
            out.refusals.append(Refusal(message, str(error)))
            return None

    def _take_death(self, message: Message, out: Outcome) -> None:
        session, bd_seq = self.session, message.payload.bd_seq
        if None not in (session.bd_seq, bd_seq) and bd_seq != session.bd_seq:
            session.counts.stale_deaths += 1
        elif session.online:
            session.online, session.wants_rebirth = False, False
            session.counts.deaths += 1
            self._end_lives("death certificate", message, out)

    def _come_to_life(self, device: str, message: Message, out: Outcome) -> None:
        catalogue = self.catalogues.get(device, NOTHING)
        if not catalogue.connection:
            connection = f"{self.session.bd_seq}-{message.payload.timestamp or message.came_ms}-{device or 'node'}"
            self._know(device, catalogue._replace(connection=connection))
            out.lives.append(Life(self._device_id(device), self.name, "connected", connection, message.came_ms))

    def _end_lives(self, reason: str, message: Message, out: Outcome) -> None:
        for device in sorted(self.catalogues, reverse=True):  # the node last
            self._end_life(device, reason, message, out)

    def _end_life(self, device: str, reason: str, message: Message, out: Outcome) -> None:
        catalogue = self.catalogues.get(device, NOTHING)
        if catalogue.connection:
            self._know(device, catalogue._replace(connection=""))
            ended = Life(
                self._device_id(device), self.name, "disconnected", catalogue.connection, message.came_ms, reason
            )
            out.lives.append(ended)

    def _device_id(self, device: str) -> str:
        return f"{self.name}/{device}" if device else self.name

    def _know(self, device: str, catalogue: Catalogue | None) -> None:
        if catalogue is None:
            del self.catalogues[device]
        else:
            self.catalogues[device] = catalogue
        self.changed_catalogues.add(device)

    # --- the sequence ---

    def _take_in_session(self, message: Message, seen: bool, out: Outcome) -> None:
        session = self.session
        if session.seq is None:
            if seen:
                session.counts.repeats += 1
            else:
                session.wants_rebirth = True
                self._hold(message, for_order=False)
            return
        expected = (session.seq + 1) % NUMBERS
        # A device without a clock may say the same again when the numbers have come round; it is not a repeat then.
        if seen and not (message.seq == expected and message.payload.timestamp == session.last_ms):
            session.counts.repeats += 1
            return
        session.wants_rebirth |= not session.online  # who speaks is not dead
        if self._is_of_before(message, expected):
            session.before = message.seq
            self._take_stray(message, out)
        elif message.seq == expected:
            self._advance(message, out)
            self._drain(out)
        elif message.seq in session.missing and not self._is_newer(message):
            session.missing.remove(message.seq)
            session.counts.late += 1
            self._apply(message, out)
        else:
            self._hold(message, for_order=True)

    def _is_of_before(self, message: Message, expected: int) -> bool:
        """Whether it was sent before the last birth, and overtaken by it.

        A clock that was set back says so too, of messages in the order of this session; they belong to it.
        """
        session, stamp = self.session, message.payload.timestamp
        if stamp is None or session.born_ms is None or stamp >= session.born_ms:
            return False
        return message.seq != expected or (session.before is not None and expected == (session.before + 1) % NUMBERS)

    def _is_newer(self, message: Message) -> bool:
        """Whether it was sent after what was taken last: it is not one that was missing, but of a session to come."""
        sent, last_ms = message.payload.timestamp, self.session.last_ms
        return sent is not None and last_ms is not None and sent > last_ms

    def _take_stray(self, message: Message, out: Outcome) -> None:
        """One that others have overtaken for good: its values are read, and it changes nothing."""
        self.session.counts.late += 1
        if message.about.kind in _EXPLAIN_THEMSELVES:
            self._read_alone(message, out)
        else:
            self._apply(message, out)

    def _read_alone(self, message: Message, out: Outcome) -> None:
        declared = self._declared(message, out) if message.about.kind == "DBIRTH" else None
        out.readings += [Reading(each, message) for each in declared[1]] if declared else []

    def _advance(self, message: Message, out: Outcome) -> None:
        session = self.session
        session.seq, session.last_ms = message.seq, message.payload.timestamp
        if message.seq in session.missing:
            session.missing.remove(message.seq)
        self._apply(message, out)

    def _drain(self, out: Outcome) -> None:
        """Take what has waited for what has come."""
        session = self.session
        while session.seq is not None and (number := self._next_in_order((session.seq + 1) % NUMBERS)) is not None:
            self._advance(self._release(number), out)

    def _next_in_order(self, seq: int) -> int | None:
        found = self._numbers(lambda held: held.for_order and held.message.seq == seq)
        return found[0] if found else None

    def _give_up(self, numbers: Iterable[int], out: Outcome) -> None:
        """Wait no longer for what is before the next of these messages, which wait in vain; takes one or more."""
        session = self.session
        assert session.seq is not None
        expected = (session.seq + 1) % NUMBERS
        ahead, number = min(((self.held[each].message.seq - expected) % NUMBERS, each) for each in numbers)
        if ahead < HALF:
            if ahead:
                session.counts.gaps += 1
                session.counts.missing += ahead
                out.gaps.append(Gap(self.name, ahead))
                numbers_missing = [(expected + each) % NUMBERS for each in range(ahead)]
                session.missing = sorted({*session.missing, *numbers_missing})
                session.wants_rebirth = True
            session.seq = (expected + ahead - 1) % NUMBERS
            self._advance(self._release(number), out)
            self._drain(out)
        elif self.held[number].after != session.seq:
            self._take_stray(self._release(number), out)  # the others went on without it: it alone is old
        else:
            session.counts.resets += 1
            session.seq = session.before = None
            session.wants_rebirth = True
            for each in self._numbers(lambda held: held.for_order):
                self._rehold(each, for_order=False)

    def _settle(self, birth: Message, out: Outcome) -> None:
        """Before a birth takes effect: finish what was sent before it, and line up what was sent after it."""
        stamp = birth.payload.timestamp

        def is_older(held: Held) -> bool:
            sent = held.message.payload.timestamp
            return sent is None or stamp is None or sent < stamp

        while self.session.seq is not None and (older := self._numbers(lambda held: held.for_order and is_older(held))):
            self._give_up(older, out)
        # What has its place in a sequence keeps it, also where it waits for a birth.
        for number in self._numbers(lambda held: (held.for_order or held.after is None) and not is_older(held)):
            self._rehold(number, for_order=True, after=birth.seq)

    # --- what a message says ---

    def _apply(self, message: Message, out: Outcome) -> None:
        kind, device = message.about.kind, message.about.device
        if kind == "DBIRTH":
            declared = self._declared(message, out)
            if declared is not None:
                self._be_born(device, declared, message, out)
        elif kind == "DDEATH":
            self._end_life(device, "device death certificate", message, out)
        elif not self._explained(message, out):
            self.session.wants_rebirth = True
            self._hold(message, for_order=False)

    def _explained(self, message: Message, out: Outcome) -> bool:
        """Whether what is known explains the data; if it does, they are read, or refused."""
        try:
            known = self.catalogues.get(message.about.device, NOTHING)
            found = self._documents(message, known)
        except UnknownMetric:
            return False
        except BadPayload as error:
            out.refusals.append(Refusal(message, str(error)))
        else:
            out.readings += [Reading(each, message) for each in found]
        return True

    def _documents(self, message: Message, catalogue: Catalogue) -> list[bytes]:
        most = most_output(message.raw)
        return documents(message.payload, catalogue, message.came_ms, self._time_field, most)

    def _explain(self, device: str, out: Outcome) -> None:
        """A birth has come: read what has waited for it."""
        for number in self._numbers(lambda held: not held.for_order):
            message = self.held[number].message
            if message.about.kind in _EXPLAIN_THEMSELVES:
                if device == NODE:
                    self._leave(number, "", out)
            elif message.about.device == device and self._explained(message, out):
                self._release(number)

    # --- what waits ---

    def _numbers(self, wanted: Callable[[Held], bool]) -> list[int]:
        return [number for number, held in self.held.items() if wanted(held)] if self.held else []

    def _hold(self, message: Message, *, for_order: bool) -> None:
        number = self.session.next_number
        self.session.next_number += 1
        self.keep(number, Held(message, for_order, self.session.seq))
        self.changed_held.add(number)

    def _rehold(self, number: int, *, for_order: bool, after: int | None = None) -> None:
        self.held[number] = Held(self.held[number].message, for_order, after)
        self.changed_held.add(number)

    def _release(self, number: int) -> Message:
        message = self.held.pop(number).message
        self.held_bytes -= len(message.raw)
        self.changed_held.add(number)
        return message

    def _leave(self, number: int, reason: str, out: Outcome) -> None:
        """It has waited for a birth in vain: data are refused; a device's birth, which explains itself, is read."""
        message = self._release(number)
        if message.about.kind in _EXPLAIN_THEMSELVES:
            self._read_alone(message, out)
        else:
            out.refusals.append(Refusal(message, reason))

    def _bound(self, out: Outcome) -> None:
        """Keep what waits within its bounds."""
        while for_order := self._numbers(lambda held: held.for_order):
            if len(for_order) < HALF and self._fits():
                return
            self._give_up(for_order, out)
        while not self._fits():
            self._leave(next(iter(self.held)), "too much of its edge node waits for a birth certificate", out)

    def _fits(self) -> bool:
        return len(self.held) <= self._settings.max_held and self.held_bytes <= self._settings.max_held_bytes
