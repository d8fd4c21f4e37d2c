"""The host's side of a head or layer: packets, registers, and what keeps both in step."""

from __future__ import annotations

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from hw.packet import Answer, Command, PacketError, Shot, parse_answer, token_beats
from hw.params import HeadParams
from hw.registers import DATA_BITS, IDENTITY, VERSION, Access, RegisterMap
from sim.driver.backend import Backend
from sim.driver.errors import (
    AnswerMismatch,
    DeviceMismatch,
    DriverError,
    EmptyWindow,
    LinkError,
    PacketRefused,
    RegisterError,
    Timeout,
)

if TYPE_CHECKING:
    from analog_models import AnalogParams
    from sim.driver.calibration import CalibrationReport

__all__ = ["Counters", "Driver", "Identity", "Result", "Status"]

Ints = NDArray[np.int64]
Shots = Shot | Sequence[Shot] | None

_POLL_S = 0.002


@dataclass(frozen=True, kw_only=True)
class Identity:
    """What a device says it is."""

    name: str  #: four letters
    version: tuple[int, int]  #: of the register map, major and minor
    config_hash: str  #: first eight hexadecimal digits
    shape: Mapping[str, int]  #: sub-tiles, columns, rows, lanes, heads, widths, features
    latency_clk: int  #: of a packet that writes and queries
    query_latency_clk: int  #: of a packet that only queries


@dataclass(frozen=True, kw_only=True)
class Status:
    """What a device is doing."""

    idle: bool  #: nothing is in flight and nothing is held
    pending: bool  #: a setting, a soft reset or a self-test waits
    stale: bool  #: some valid column is past its age budget
    occupancy: int  #: tokens in the window
    subtile: int  #: sub-tile that the next token is written to
    column: int  #: column of it
    oldest_age: int  #: ticks; 0 without ages


@dataclass(frozen=True, kw_only=True)
class Counters:
    """Events since the last reset or `Driver.clear_counters`; each saturates."""

    tokens: int  #: columns written
    queries: int  #: valid answers, sent or held
    command_errors: int  #: packets with an unknown command
    length_errors: int  #: packets of the wrong length
    code_errors: int  #: packets with a code out of range
    empty_errors: int  #: queries on an empty window
    step_errors: int = 0  #: steps whose packets did not agree
    full_scale_total: int  #: lanes sent that were at full scale
    saturated_total: int = 0  #: lanes whose accumulated result was cut
    refreshes: int = 0  #: columns rewritten
    clocks_busy: int  #: clocks in which something was in flight or held
    clocks_idle: int  #: clocks in which nothing was

    @property
    def refused(self) -> int:
        """Packets and steps that were refused."""
        kinds = ("command", "length", "code", "empty", "step")
        return sum(int(getattr(self, f"{kind}_errors")) for kind in kinds)


@dataclass(frozen=True, kw_only=True)
class Result:
    """What a query gave; axes of query heads as the query had them."""

    sums: Ints  #: one signed sum per lane, (..., lanes)
    full_scale: NDArray[np.bool_]  #: some sub-tile's result of some lane is at full scale, (...)
    saturated: NDArray[np.bool_]  #: some lane's accumulated result was cut, (...)


@dataclass
class _Job:
    """Answers to one query, which may take several passes."""

    result: Result
    left: int  #: passes not answered yet
    error: PacketRefused | None = None


@dataclass
class _Step:
    """A packet of every head that may be answered."""

    tag: int
    owed: bool  #: false: it is answered only if it is refused
    job: _Job
    index: int = field(default=0)  #: pass of the job


class Driver:
    """Talks to a head or layer through a back end; the same whatever the device is made of.

    Arrays of codes have a leading axis of heads if the device has more than one. Queries may come
    in groups that share a head's keys and values: with `heads * g` queries, query `i` goes to head
    `i // g`, in `g` passes.

    Parameters
    ----------
    backend
        The device. `close`, or the end of a `with` block, closes it.
    params
        Configuration that the device must have.
    timeout_s
        Time after which an answer or the end of a wait is given up.
    credit
        Most answers that may be owed at once; by default, and at most, what the device allows.
    identify
        Check at once that the device is the one that ``params`` describe.

    Raises
    ------
    DeviceMismatch
        It is not.
    TypeError, ValueError
        An argument is not of its kind or out of its range.
    """

    def __init__(
        self,
        backend: Backend,
        params: HeadParams,
        *,
        timeout_s: float = 5.0,
        credit: int | None = None,
        identify: bool = True,
    ) -> None:
        if not isinstance(params, HeadParams):
            raise TypeError(f"params must be HeadParams, not {params!r}")
        if credit is not None and (isinstance(credit, bool) or not isinstance(credit, int)):
            raise TypeError(f"credit must be an int or None, not {credit!r}")
        if credit is not None and credit < 1:
            raise ValueError(f"credit must be at least 1, not {credit!r}")
        self.params, self.timeout_s = params, timeout_s
        self.registers = RegisterMap(params)
        self._backend = backend
        most = min(backend.credit, 2**params.tag_bits)
        self.credit = most if credit is None else min(credit, most)
        self._tag = 0
        self._steps: deque[_Step] = deque()
        self._jobs: deque[_Job] = deque()
        self._answers: list[deque[Answer]] = [deque() for _ in range(params.heads)]
        self._lost: str | None = None  # why packets and answers are out of step
        if identify:
            try:
                self.identify()
            except BaseException:
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # What went wrong in the block matters more than what then cannot be delivered.
        with contextlib.suppress(*(() if kind is None else (DriverError,))):
            self.close()

    def close(self) -> None:
        """Let go of the device.

        Raises
        ------
        LinkError
            A packet that was sent could not be delivered.
        """
        self._backend.close()

    # --- registers --------------------------------------------------------------------------
    def read(self, register: str, entry: int = 0) -> dict[str, int]:
        """Values of a register's fields, by name; of one entry of an array.

        Raises
        ------
        KeyError
            The device has no such register.
        RegisterError, LinkError
            The device refuses it, or cannot be reached.
        """
        found = self.registers[register]
        word = self._backend.read_register(found.offset + DATA_BITS // 8 * entry)
        return found.values(word)

    def write_fields(self, register: str, entry: int = 0, **values: int) -> None:
        """Write fields of a register; those not given keep their values.

        Raises
        ------
        KeyError
            The device has no such register or field.
        ValueError
            A value is out of its range.
        RegisterError, LinkError
            The device refuses it, or cannot be reached.
        """
        found = self.registers[register]
        address = found.offset + DATA_BITS // 8 * entry
        kept = [
            field.name
            for field in found.fields
            if field.access in (Access.SETTING, Access.DIRECT) and field.name not in values
        ]
        base = self._backend.read_register(address) if kept else 0
        self._backend.write_register(address, found.word(values, base))

    def identify(self) -> Identity:
        """Read what the device is, and refuse one of another configuration.

        Raises
        ------
        DeviceMismatch
            It is no head or layer, its registers are of another version, or it is configured
            otherwise; the message says how.
        LinkError
            It cannot be reached.
        """
        try:
            name = self.read("id")["value"]
            version = self.read("version")
        except RegisterError as error:
            raise DeviceMismatch(f"the device has no identity: {error}") from error
        if name != IDENTITY:
            raise DeviceMismatch(f"the device's identity must be {IDENTITY:#x}, not {name:#x}")
        if version["major"] != VERSION[0]:
            raise DeviceMismatch(
                f"the device's registers must be of version {VERSION[0]}, "
                f"not {version['major']}.{version['minor']}"
            )
        constants = [
            register
            for register in self.registers
            if register.fields[0].access is Access.CONSTANT
            and register.name not in ("id", "version")
        ]
        shape: dict[str, int] = {}
        wrong = []
        for register in constants:
            values = self.read(register.name)
            for entry in register.fields:
                value = values[entry.name]
                if value != entry.reset and register.name != "config_hash":
                    wrong.append(f"{entry.name} is {value}, not {entry.reset}")
                shape[entry.name] = value
        digits = f"{shape.pop('value'):08x}"
        wanted = self.params.config_hash[: len(digits)]
        if wrong or digits != wanted:
            raise DeviceMismatch(
                f"the device's configuration must be {wanted}, not {digits}: "
                + ("; ".join(wrong) or "a parameter differs that registers do not show")
            )
        latency = self.read("latency")
        return Identity(
            name=name.to_bytes(4, "big").decode("ascii"),
            version=(version["major"], version["minor"]),
            config_hash=digits,
            shape=shape,
            **latency,
        )

    def status(self) -> Status:
        """What the device is doing now."""
        state, pointer = self.read("state"), self.read("pointer")
        return Status(
            idle=bool(state["idle"]),
            pending=bool(state["pending"]),
            stale=bool(state.get("stale", 0)),
            occupancy=self.read("occupancy")["tokens"],
            subtile=pointer["subtile"],
            column=pointer["column"],
            oldest_age=self.read("oldest_age")["ticks"] if self.params.age_bits else 0,
        )

    def counters(self) -> Counters:
        """Events counted."""
        names = [register.name for register in self.registers.counters]
        return Counters(**{name: self.read(name)["count"] for name in names})

    def clear_counters(self) -> None:
        """Let every counter begin again from zero."""
        self._backend.write_register(
            self.registers["command"].offset, self.registers["command"]["clear_counters"].mask
        )

    def soft_reset(self) -> None:
        """Forget window, held result, counters and events; put settings to their reset values.

        The packets that were sent before are carried out first; answers to them can still be
        collected.

        Raises
        ------
        Timeout
            They are not taken in time.
        """
        self._deliver()
        self._command("soft_reset")

    def wait_idle(self, timeout_s: float | None = None) -> None:
        """Wait until every packet has been carried out, and nothing is held or pending.

        Raises
        ------
        Timeout
            It takes too long.
        """
        timeout_s = self.timeout_s if timeout_s is None else timeout_s
        until = time.monotonic() + timeout_s
        self._backend.deliver(timeout_s)
        while True:
            state = self.read("state")
            if state["idle"] and not state["pending"]:
                return
            if time.monotonic() >= until:
                raise Timeout(f"the device is not idle: {state}")
            time.sleep(_POLL_S)

    def _deliver(self) -> None:
        """Let packets that were sent be taken before a setting changes, if any are taken."""
        if self.read("control")["enable"]:
            self._backend.deliver(self.timeout_s)

    def _command(self, name: str) -> None:
        register = self.registers["command"]
        self._backend.write_register(register.offset, register[name].mask)
        self._wait_applied()

    def _wait_applied(self) -> None:
        until = time.monotonic() + self.timeout_s
        while self.read("state")["pending"]:
            if time.monotonic() >= until:
                raise Timeout(f"a setting has not been taken over within {self.timeout_s:g} s")
            time.sleep(_POLL_S)

    # --- settings ---------------------------------------------------------------------------
    def _places(self) -> dict[str, tuple[str, tuple[str, ...], int]]:
        """Register and fields of each setting, and what is added to a field for the setting."""
        places: dict[str, tuple[str, tuple[str, ...], int]] = {}
        names = {
            "age_tick": ("age_tick_clk", 1),
            "refresh_period": ("refresh_period_clk", 0),
        }
        for register in self.registers:
            if not register.waits:
                continue
            fields = tuple(field.name for field in register.fields)
            if register.name in ("control", "phases"):
                places |= {name: (register.name, (name,), 0) for name in fields}
            else:
                name, more = names.get(register.name, (register.name, 0))
                places[name] = (register.name, fields, more)
        return places

    def settings(self) -> dict[str, int | tuple[int, ...]]:
        """Settings in effect, by the names that `configure` takes."""
        values: dict[str, int | tuple[int, ...]] = {}
        words = {register: self.read(register) for register, _, _ in self._places().values()}
        for name, (register, fields, more) in self._places().items():
            got = tuple(words[register][field] + more for field in fields)
            values[name] = got if name.endswith("_levels") else got[0]
        return values

    def configure(self, **settings: int | Sequence[int]) -> None:
        """Change settings; they are in effect when this returns.

        Packets sent before are carried out under the old settings. What a device does not have
        has no setting.

        Parameters
        ----------
        settings
            ``enable``; ``write_clk``, ``guard_clk``; ``s_levels``, ``a_levels``: one level for
            each gain code; ``sinks``, in effect from an empty window; ``age_mask``,
            ``age_budget`` in ticks, ``age_tick_clk``; ``refresh_enable``,
            ``refresh_period_clk``.

        Raises
        ------
        TypeError, ValueError
            The device has no such setting, or a value is not of its kind or range; nothing has
            been changed then.
        Timeout
            They are not taken over in time.
        """
        places = self._places()
        writes: dict[str, dict[str, int]] = {}
        for name, given in settings.items():
            if name not in places:
                raise ValueError(f"setting must be one of {', '.join(places)}, not {name!r}")
            register, fields, more = places[name]
            several = name.endswith("_levels")
            values = tuple(given) if several and not isinstance(given, int) else (given,)
            if len(values) != len(fields):
                raise ValueError(f"{name} must hold {len(fields)} levels, not {given!r}")
            for field_name, value in zip(fields, values, strict=True):
                entry = self.registers[register][field_name]
                if not isinstance(value, int | np.integer):
                    raise TypeError(f"{name} must be an int, not {value!r}")
                low, high = entry.low + more, entry.high + more
                if not low <= value <= high:
                    raise ValueError(f"{name} must be in {low}..{high}, not {value!r}")
                writes.setdefault(register, {})[field_name] = int(value) - more
        self._deliver()
        for register, fields_given in writes.items():
            self.write_fields(register, **fields_given)
        self._wait_applied()

    # --- events -----------------------------------------------------------------------------
    def events(self) -> frozenset[str]:
        """Names of the events that have happened since they were cleared."""
        return frozenset(name for name, bit in self.read("sticky").items() if bit)

    def clear_events(self, *names: str) -> None:
        """Forget events; all of them by default."""
        self._backend.write_register(self.registers["sticky"].offset, self._event_bits(names))

    def interrupt_on(self, *names: str) -> None:
        """Let these events raise the interrupt line, and no others; none by default."""
        bits = self._event_bits(names) if names else 0
        self._backend.write_register(self.registers["irq_enable"].offset, bits)

    @property
    def irq(self) -> bool:
        """Whether the interrupt line is high."""
        offsets = [self.registers[name].offset for name in ("sticky", "irq_enable")]
        sticky, enabled = (self._backend.read_register(offset) for offset in offsets)
        return bool(sticky & enabled)

    def _event_bits(self, names: Sequence[str]) -> int:
        known = self.registers.events
        for name in names:
            if name not in known:
                raise ValueError(f"event must be one of {', '.join(known)}, not {name!r}")
        return sum(self.registers["sticky"][name].mask for name in names or known)

    # --- packets ----------------------------------------------------------------------------
    def write(self, k: ArrayLike, v: ArrayLike) -> None:
        """Append a token to the window.

        Parameters
        ----------
        k, v
            Codes, ``(rows,)`` and ``(lanes,)``, or with a leading axis of heads.

        Raises
        ------
        TypeError, ValueError
            Codes are not of their kind, shape or range; nothing has been sent.
        LinkError
            The device cannot be reached.
        """
        self._check_in_step()
        keys, values = self._token(k, v)
        self._send(Command.WRITE, k=keys, v=values)

    def flush(self) -> None:
        """Forget the window; the next token begins a sequence."""
        self._check_in_step()
        self._send(Command.FLUSH)

    def query(self, q: ArrayLike, shots: Shots = None) -> Ints:
        """Attend over the window.

        Parameters
        ----------
        q
            Codes, ``(rows,)`` or ``(g, rows)`` for one head, ``(heads * g, rows)`` for more; with
            a leading axis of shots, ``(shots, heads * g, rows)``, each shot has its own.
        shots
            How each of one or more passes is weighted and converted. All but the last are held,
            and all but the first accumulate onto the one before.

        Returns
        -------
        sums
            One signed sum per lane, axes of heads as ``q`` has them.

        Raises
        ------
        TypeError, ValueError
            Codes or shots are not of their kind, shape or range; nothing has been sent.
        EmptyWindow, PacketRefused
            The device refused it.
        AnswerMismatch, Timeout, LinkError
            The answer is none that is owed, does not come, or the device cannot be reached.
        DriverError
            Results of `submit` wait; `collect` them first.
        """
        self._check_nothing_owed()
        self.submit(q, shots=shots)
        return self.collect().sums

    def write_query(self, k: ArrayLike, v: ArrayLike, q: ArrayLike, shots: Shots = None) -> Ints:
        """Append a token, then attend over the window, the token included; see `query`."""
        self._check_nothing_owed()
        self.submit(q, k=k, v=v, shots=shots)
        return self.collect().sums

    def submit(
        self,
        q: ArrayLike,
        *,
        k: ArrayLike | None = None,
        v: ArrayLike | None = None,
        shots: Shots = None,
    ) -> None:
        """Send a query, or a token and its query, and do not wait; `collect` gives the result.

        As many answers as ``credit`` may be under way; more of them are received here first.

        Raises
        ------
        TypeError, ValueError
            Codes or shots are not of their kind, shape or range; nothing has been sent.
        AnswerMismatch, Timeout, LinkError
            As with `collect`; the query has not been sent.
        """
        self._check_in_step()
        plan = self._shots(shots)
        queries, axes = self._queries(q, len(plan))
        passes = queries.shape[1]
        if (k is None) != (v is None):
            raise ValueError("k and v must be given together, or neither")
        token = None if k is None or v is None else self._token(k, v)
        job = _Job(
            Result(
                sums=np.zeros((*axes, self.params.lanes), dtype=np.int64),
                full_scale=np.zeros(axes, dtype=np.bool_),
                saturated=np.zeros(axes, dtype=np.bool_),
            ),
            left=passes,
        )
        room = 2**self.params.tag_bits
        for index in range(passes):
            for number, shot in enumerate(plan):
                owed = number == len(plan) - 1
                while self._owed >= self.credit or len(self._steps) + len(plan) - number > room:
                    self._take_answers(self.timeout_s)
                step = _Step(self._tag, owed, job, index)
                codes: dict[str, Any] = {"q": queries[number, index], "shot": shot}
                command = Command.QUERY
                if token is not None:
                    command = Command.WRITE_QUERY
                    codes |= {"k": token[0], "v": token[1]}
                    token = None
                self._steps.append(step)
                self._send(command, **codes)
        self._jobs.append(job)

    def collect(self, timeout_s: float | None = None) -> Result:
        """Result of the oldest query that was submitted and not collected.

        Raises
        ------
        EmptyWindow, PacketRefused
            The device refused it; later ones can be collected.
        Timeout
            An answer does not come in time; it may be asked for again.
        AnswerMismatch, LinkError
            An answer is none that is owed, or the device cannot be reached: `recover`.
        DriverError
            Nothing has been submitted.
        """
        if not self._jobs:
            raise DriverError("nothing has been submitted that could be collected")
        job = self._jobs[0]
        while job.left:
            self._check_in_step()
            self._take_answers(self.timeout_s if timeout_s is None else timeout_s)
        self._jobs.popleft()
        if job.error is not None:
            raise job.error
        return job.result

    @property
    def uncollected(self) -> int:
        """Queries submitted whose results have not been collected."""
        return len(self._jobs)

    def attend(
        self,
        q: ArrayLike,
        k: ArrayLike,
        v: ArrayLike,
        *,
        shots: Shots = None,
        restart: bool = True,
        progress: Callable[[int], None] | None = None,
    ) -> Ints:
        """Attend over a whole sequence, token by token, each to itself and those before.

        Parameters
        ----------
        q, k, v
            Codes of every token, ``(tokens, ...)``, the other axes as `query` and `write` have
            them.
        shots
            As `query` has them; every shot has the same codes.
        restart
            Forget the window first.
        progress
            Called with the number of tokens answered so far.

        Returns
        -------
        sums
            ``(tokens, ..., lanes)``.

        Raises
        ------
        DriverError
            As with `query`. Sends nothing more then; what is under way can be collected.
        """
        self._check_nothing_owed()
        queries, keys, values = (np.asarray(codes) for codes in (q, k, v))
        tokens = len(queries)
        if not tokens or len(keys) != tokens or len(values) != tokens:
            raise ValueError(
                f"q, k and v must be of one or more tokens and as many each, "
                f"not {len(queries)}, {len(keys)} and {len(values)}"
            )
        if restart:
            self.flush()
        results: list[Ints] = []
        for token in range(tokens):
            self.submit(queries[token], k=keys[token], v=values[token], shots=shots)
            while self._jobs and (not self._jobs[0].left or token == tokens - 1):
                results.append(self.collect().sums)
                if progress is not None:
                    progress(len(results))
        return np.stack(results)

    def recover(self) -> None:
        """Bring host and device in step again after answers or a link were lost.

        Results under way are dropped, and the device is reset: the window is empty and settings
        have their reset values. Trims stay.

        Raises
        ------
        LinkError
            The device still cannot be reached.
        """
        self._backend.recover()
        self._steps.clear()
        self._jobs.clear()
        for answers in self._answers:
            answers.clear()
        self._command("soft_reset")  # packets are taken from here on
        with contextlib.suppress(Timeout):
            self.wait_idle()  # a step may have lost one of its packets
        for head in range(self.params.heads):
            with contextlib.suppress(Timeout):
                while True:
                    self._backend.receive_packet(head, 0.0)
        self._command("soft_reset")
        self._lost = None

    # --- trims and self-test ----------------------------------------------------------------
    def set_trim(self, trims: ArrayLike) -> None:
        """Set the offset that is subtracted from each lane's sum; at once.

        Parameters
        ----------
        trims
            ``(lanes,)``, or with a leading axis of heads.

        Raises
        ------
        TypeError, ValueError
            The device has no trims, or they are not of their kind, shape or range.
        """
        bits = self.params.trim_bits
        if not bits:
            raise ValueError("trims must be left alone on a device without any")
        limit = 1 << bits - 1
        checked = self._codes("trims", trims, self.params.lanes, -limit, limit - 1)
        for head, lanes in enumerate(checked):
            self._select_head(head)
            for lane, value in enumerate(lanes):
                self.write_fields("trim", lane, offset=int(value))

    def trim(self) -> Ints:
        """Trims as the device has them, with the axes of `set_trim`."""
        return self._per_head("trim", "offset")

    def self_test(
        self, q_codes: ArrayLike, subtile: int, *, s_gain: int = 0, a_gain: int = 0
    ) -> Ints:
        """Raw counts of one sub-tile for a query over the window as it is.

        The query leaves window, held result and counters alone; on an empty window it shows the
        converters' offsets. Packets are not taken meanwhile.

        Parameters
        ----------
        q_codes
            ``(rows,)``, or with a leading axis of heads.
        subtile
            Whose counts.
        s_gain, a_gain
            Gain codes, 0..3.

        Returns
        -------
        counts
            Signed, before trims; ``(lanes,)``, or with a leading axis of heads.

        Raises
        ------
        TypeError, ValueError
            The device has no self-test, or an argument is not of its kind, shape or range.
        Timeout
            The self-test does not end.
        """
        p = self.params
        if not p.self_test:
            raise ValueError("self_test must be left alone on a device without one")
        checked = self._codes("q_codes", q_codes, p.rows, 0, 2**p.q_bits - 1)
        fields = {"subtile": subtile}
        if p.shots:
            fields |= {"s_gain": s_gain, "a_gain": a_gain}
        elif s_gain or a_gain:
            raise ValueError(f"gain codes must be 0 without shots, not {(s_gain, a_gain)!r}")
        self.registers["test"].word(fields)
        with self.paused():
            for head, codes in enumerate(checked):
                self._select_head(head)
                for row, code in enumerate(codes):
                    self.write_fields("test_q", row, code=int(code))
            self.write_fields("test", **fields)
            self._command("test_start")
            until = time.monotonic() + self.timeout_s
            while not self.read("state")["test_done"]:
                if time.monotonic() >= until:
                    raise Timeout(f"the self-test has not ended within {self.timeout_s:g} s")
                time.sleep(_POLL_S)
            return self._per_head("test_count", "sum")

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Let the device take no packets; as before afterwards."""
        enabled = self.read("control")["enable"]
        if enabled:
            self.configure(enable=0)
        try:
            yield
        finally:
            if enabled:
                self.configure(enable=1)

    def calibrate(self, ideal: AnalogParams | None = None, **options: Any) -> CalibrationReport:
        """Measure every lane's offset and set the trims; see `sim.driver.calibration.calibrate`."""
        from sim.driver.calibration import calibrate

        return calibrate(self, ideal, **options)

    def _select_head(self, head: int) -> None:
        if self.params.heads > 1:
            self.write_fields("head_select", head=head)

    def _per_head(self, register: str, name: str) -> Ints:
        rows = []
        for head in range(self.params.heads):
            self._select_head(head)
            rows.append([self.read(register, lane)[name] for lane in range(self.params.lanes)])
        values = np.array(rows, dtype=np.int64)
        return values if self.params.heads > 1 else values[0]

    # --- details ----------------------------------------------------------------------------
    @property
    def _owed(self) -> int:
        """Answers that are under way."""
        return sum(step.owed for step in self._steps)

    def _check_in_step(self) -> None:
        if self._lost is not None:
            raise DriverError(f"packets and answers are out of step, recover first: {self._lost}")

    def _check_nothing_owed(self) -> None:
        self._check_in_step()
        if self._jobs:
            raise DriverError(f"{len(self._jobs)} results wait; collect them first")

    def _codes(self, name: str, codes: ArrayLike, count: int, low: int, high: int) -> Ints:
        """Codes of every head, (heads, count), checked."""
        array = np.asarray(codes)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name} must be integers, not dtype {array.dtype.name!r}")
        heads = self.params.heads
        wanted = (count,) if heads == 1 else (heads, count)
        if array.shape != wanted:
            raise ValueError(f"{name} must have shape {wanted}, not {array.shape!r}")
        self._check_range(name, array, low, high)
        return array.astype(np.int64).reshape(heads, count)

    @staticmethod
    def _check_range(name: str, array: NDArray[Any], low: int, high: int) -> None:
        outside = array[(array < low) | (array > high)]
        if outside.size:
            raise ValueError(f"{name} must be in {low}..{high}, not {int(outside[0])!r}")

    def _token(self, k: ArrayLike, v: ArrayLike) -> tuple[Ints, Ints]:
        high = 2**self.params.kv_bits - 1
        return (
            self._codes("k", k, self.params.rows, 0, high),
            self._codes("v", v, self.params.lanes, 0, high),
        )

    def _queries(self, q: ArrayLike, shots: int) -> tuple[Ints, tuple[int, ...]]:
        """Codes, (shots, passes, heads, rows), and the axes of the result."""
        heads, rows = self.params.heads, self.params.rows
        array = np.asarray(q)
        if array.dtype.kind not in "iu":
            raise TypeError(f"q must be integers, not dtype {array.dtype.name!r}")
        axes = array.shape[:-1]
        if array.ndim == 1 and heads == 1:
            array = array[np.newaxis]
        if array.ndim == 2:
            array = np.broadcast_to(array, (shots, *array.shape))
        else:
            axes = axes[1:]
        if (
            array.ndim != 3
            or array.shape[0] != shots
            or not array.shape[1]
            or array.shape[1] % heads
            or array.shape[2] != rows
        ):
            of_one = "(rows,), " if heads == 1 else ""
            raise ValueError(
                f"q must have shape {of_one}(heads * g, rows) or (shots, heads * g, rows), with "
                f"{heads} heads, {rows} rows and {shots} shots, not {np.shape(q)!r}"
            )
        self._check_range("q", array, 0, 2**self.params.q_bits - 1)
        grouped = array.astype(np.int64).reshape(shots, heads, -1, rows)
        return grouped.swapaxes(1, 2), axes

    def _shots(self, shots: Shots) -> list[Shot]:
        """Shots of one query, with their places in it."""
        plan = [shots or Shot()] if shots is None or isinstance(shots, Shot) else list(shots)
        if not plan or not all(isinstance(shot, Shot) for shot in plan):
            raise TypeError(f"shots must be a Shot or a sequence of some, not {shots!r}")
        if any(shot.hold for shot in plan):
            raise ValueError(f"shots must not ask for hold, the driver does, not {shots!r}")
        if not self.params.shots and plan != [Shot()]:
            raise ValueError(f"shots must be left out on a device without shots, not {shots!r}")
        if len(plan) > 2**self.params.tag_bits - 1:
            raise ValueError(
                f"shots must be at most {2**self.params.tag_bits - 1}, fewer than tags, "
                f"not {len(plan)!r}"
            )
        return [
            replace(shot, hold=number < len(plan) - 1, accumulate=shot.accumulate or number > 0)
            for number, shot in enumerate(plan)
        ]

    def _send(
        self,
        command: Command,
        *,
        k: Ints | None = None,
        v: Ints | None = None,
        q: Ints | None = None,
        shot: Shot | None = None,
    ) -> None:
        """Send a packet to every head, with one tag."""
        tag = self._tag
        self._tag = (tag + 1) % 2**self.params.tag_bits
        packets = [
            token_beats(
                self.params,
                command,
                tag,
                k=None if k is None else k[head].tolist(),
                v=None if v is None else v[head].tolist(),
                q=None if q is None else q[head].tolist(),
                shot=shot,
            )
            for head in range(self.params.heads)
        ]
        try:
            for head, beats in enumerate(packets):
                self._backend.send_packet(head, beats)
        except LinkError as error:
            self._lost = str(error)
            raise

    def _take_answers(self, timeout_s: float) -> None:
        """Receive every head's answer to the oldest step that is answered."""
        try:
            for head, answers in enumerate(self._answers):
                if not answers:
                    beats = self._backend.receive_packet(head, timeout_s)
                    try:
                        answers.append(parse_answer(self.params, beats))
                    except ValueError as error:
                        raise AnswerMismatch(f"head {head}: {error}") from error
            self._match([answers.popleft() for answers in self._answers])
        except (AnswerMismatch, LinkError) as error:
            self._lost = str(error)
            raise

    def _match(self, answers: list[Answer]) -> None:
        """Give the answers of a step to the query they belong to."""
        tags = {answer.tag for answer in answers}
        if len(tags) > 1:
            raise AnswerMismatch(f"heads must answer the same packet, not {sorted(tags)}")
        (tag,) = tags
        while self._steps and self._steps[0].tag != tag:
            if self._steps[0].owed:
                raise AnswerMismatch(f"packet {self._steps[0].tag} is answered next, not {tag}")
            self._steps.popleft()  # held, and not refused
        if not self._steps:
            raise AnswerMismatch(f"no answer to packet {tag} is owed")
        step = self._steps.popleft()
        job, result = step.job, step.job.result
        refused = [
            (answer.error, head)
            for head, answer in enumerate(answers)
            if answer.error is not PacketError.NONE
        ]
        job.left -= step.owed
        if refused:
            # A head whose packet was good only says that another's was not.
            kind, head = min(refused)
            if job.error is None:
                empty = kind is PacketError.EMPTY
                job.error = (
                    EmptyWindow(tag=tag, head=head)
                    if empty
                    else PacketRefused(kind, tag=tag, head=head)
                )
            return
        if not step.owed:
            raise AnswerMismatch(f"packet {tag} was to be held, but was answered")
        heads = self.params.heads
        sums = result.sums.reshape(heads, -1, self.params.lanes)
        full_scale = result.full_scale.reshape(heads, -1)
        saturated = result.saturated.reshape(heads, -1)
        for head, answer in enumerate(answers):
            sums[head, step.index] = answer.sums
            full_scale[head, step.index] = answer.full_scale
            saturated[head, step.index] = answer.saturated
