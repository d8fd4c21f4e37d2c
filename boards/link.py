"""The device's end of the byte-stream protocol in hardware; see docs/link.md."""

from __future__ import annotations

import enum

from amaranth.hdl import Cat, Const, Module, Mux, Signal, Value, ValueLike
from amaranth.lib import stream
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import Component, In, Out, Signature, connect, flipped

from boards.frame_receiver import QUEUE, FrameReceiver
from boards.params import BoardParams
from boards.responder import SLOTS, Responder
from hw.register_bank import AXIL_PORTS
from hw.registers import ADDRESS_BITS, DATA_BITS

__all__ = ["BUILD_BYTES", "VERSION", "Kind", "Link", "Status", "device_signature"]

VERSION = 1  #: of the protocol
BUILD_BYTES = 6  #: of the build's configuration hash
_HEADER_BYTES = 7  # kind, session, sequence number
_ARGUMENT_BYTES = 6  # of the longest request but SEND
_RESPONSE = 0x80
_SEND_MS = 250  # a packet waits for room no longer


class Kind(enum.IntEnum):
    """Requests; `sim.driver.link.Kind` has the same."""

    OPEN = 1
    SEND = 2
    RECEIVE = 3
    READ = 4
    WRITE = 5
    DELIVER = 6
    BUILD = 7


class Status(enum.IntEnum):
    """First byte of a response; `sim.driver.link.Status` has the same."""

    OK = 0
    NOTHING = 1
    REFUSED = 2
    MALFORMED = 3
    FAILED = 4
    SESSION = 5


def device_signature(params: BoardParams) -> Signature:
    """Streams and registers of a head, as the link sees them, and when the head moves."""
    turned = {"in": Out, "out": In}
    bits = params.head.bus_bits
    streams = {
        "s_axis_tdata": Out(bits),
        "s_axis_tvalid": Out(1),
        "s_axis_tready": In(1),
        "s_axis_tlast": Out(1),
        "m_axis_tdata": In(bits),
        "m_axis_tvalid": In(1),
        "m_axis_tready": Out(1),
        "m_axis_tlast": In(1),
    }
    registers = {name: turned[flow](width) for name, (flow, width) in AXIL_PORTS.items()}
    return Signature({**streams, **registers, "step": In(1)})


class Link(Component):
    """Carries out a host's requests, each at most once, one after the other.

    Parameters
    ----------
    params
        Board parameters.

    Members
    -------
    received, valid : in
        Bytes from the line.
    send : Out(stream.Signature(8))
        Bytes to the line.
    device : Out(device_signature(params))
        Streams and registers of the head. Only in clocks in which it moves, those with ``step``,
        anything passes between it and the link.
    opened : Out(1)
        A session is open.
    rejected : Out(1)
        Bytes from the line were no frame.

    Timing
    ------
    A request is looked at when its frame has ended and the response before it has left. Its
    header takes two clocks a byte, and so does a token packet.
    """

    def __init__(self, params: BoardParams) -> None:
        self.params = params
        super().__init__(
            {
                "received": In(8),
                "valid": In(1),
                "send": Out(stream.Signature(8)),
                "device": Out(device_signature(params)),
                "opened": Out(1),
                "rejected": Out(1),
            }
        )
        self.frames = FrameReceiver(params.frame_bytes)
        self.responder = Responder(params)
        width = params.head.bus_bits + 1
        self.token_queue = SyncFIFOBuffered(width=width, depth=params.token_beats)
        self.result_queue = SyncFIFOBuffered(width=width, depth=params.result_beats)

    def elaborate(self, platform: object) -> Module:
        """Build the link."""
        m = Module()
        m.submodules.frames, m.submodules.responder = self.frames, self.responder
        m.submodules.token_queue, m.submodules.result_queue = self.token_queue, self.result_queue
        self._request = Signal(8 * _HEADER_BYTES)
        self._arguments = Signal(8 * _ARGUMENT_BYTES)
        self._forget = Signal()  # results that wait
        self._arriving = Signal()  # a result packet has begun to come and not ended
        self._patience = Signal(16)  # ms left
        self._outside = Signal()  # the address is none of the registers'
        self._queues(m)
        self._time(m)
        # Flip-flops drive the bus: its slave decides much in the clock in which it is asked.
        m.d.comb += [
            self._outside.eq(self._arguments[ADDRESS_BITS:16].any()),
            self.device.s_axil_araddr.eq(self._arguments[:16]),
            self.device.s_axil_awaddr.eq(self._arguments[:16]),
            self.device.s_axil_wdata.eq(self._arguments[16:]),
            self.device.s_axil_wstrb.eq(-1),
            self.device.s_axil_rready.eq(1),
            self.device.s_axil_bready.eq(1),
        ]
        m.d.comb += [
            self.frames.received.eq(self.received),
            self.frames.valid.eq(self.valid),
            self.rejected.eq(self.frames.rejected),
        ]
        connect(m, self.responder.send, flipped(self.send))
        self._requests(m)
        return m

    def _queues(self, m: Module) -> None:
        """Packets between the line and the head."""
        tokens, results, responder = self.token_queue, self.result_queue, self.responder
        m.d.comb += [
            Cat(self.device.s_axis_tdata, self.device.s_axis_tlast).eq(tokens.r_data),
            self.device.s_axis_tvalid.eq(tokens.r_rdy),
            tokens.r_en.eq(self.device.s_axis_tready & self.device.step),
            results.w_data.eq(Cat(self.device.m_axis_tdata, self.device.m_axis_tlast)),
            results.w_en.eq(self.device.m_axis_tvalid & self.device.step),
            self.device.m_axis_tready.eq(results.w_rdy),
            responder.beats.payload.eq(results.r_data),
            responder.beats.valid.eq(results.r_rdy),
            results.r_en.eq(responder.beats.ready | self._forget),
        ]
        with m.If(results.w_en & results.w_rdy):
            m.d.sync += self._arriving.eq(~self.device.m_axis_tlast)

    def _time(self, m: Module) -> None:
        """Milliseconds that a request still waits."""
        ms_clk = self.params.ms_clk
        ticks = Signal(range(ms_clk))
        m.d.sync += ticks.eq(ticks - 1)
        with m.If(ticks == 0):
            m.d.sync += ticks.eq(ms_clk - 1)
            with m.If(self._patience != 0):
                m.d.sync += self._patience.eq(self._patience - 1)

    def _requests(self, m: Module) -> None:
        """Look at a request, carry it out, respond."""
        p = self.params
        frames, responder, tokens = self.frames, self.responder, self.token_queue
        frame_bits = p.frame_bytes.bit_length() - 1
        beat_bits = p.bus_bytes.bit_length() - 1
        kind, session, sequence = self._request[:8], self._request[8:40], self._request[40:]
        index = Signal(frame_bits + 1)  # of a byte in the content
        place = Signal.like(index)  # of it after the header
        body = Signal.like(index)  # bytes after the header
        self._beats = beats = Signal.like(index)  # of a packet to be sent
        current, expected = Signal(32), Signal(16)
        kept = Signal(range(QUEUE + 1))  # responses that can be repeated
        behind = Signal(16)
        accepts = Signal()  # body and head are what the kind needs
        m.d.comb += [
            frames.index.eq(index),
            place.eq(index - _HEADER_BYTES),
            body.eq(frames.length - _HEADER_BYTES),
            beats.eq((body - 1) >> beat_bits),
            behind.eq(expected - 1 - sequence),
        ]
        self._status, self._follows = Signal(8), Signal(48)
        self._follow_bytes = Signal(range(7))
        m.d.comb += [
            responder.fixed.eq(
                Cat(kind | _RESPONSE, session, sequence, self._status)
                | self._follows << 8 * (_HEADER_BYTES + 1)
            ),
            responder.length.eq(_HEADER_BYTES + 1 + self._follow_bytes),
        ]
        greeting = Const(VERSION | p.bus_bytes << 8 | 1 << 24 | p.result_packets << 32, 48)
        slot = responder.slot
        chosen = Signal.like(slot)
        m.d.comb += slot.eq(chosen)

        with m.FSM():
            with m.State("IDLE"):
                m.d.sync += [index.eq(0), responder.packet.eq(0)]
                with m.If(frames.waiting & ~responder.busy):
                    m.next = "HEADER"
                    with m.If(frames.length < _HEADER_BYTES):
                        m.next = "DROP"
            with m.State("HEADER"):
                m.next = "HEADER_BYTE"
            with m.State("HEADER_BYTE"):
                m.d.sync += [
                    self._request.eq(Cat(self._request[8:], frames.byte)),
                    index.eq(index + 1),
                ]
                m.next = "HEADER"
                with m.If(index == _HEADER_BYTES - 1):
                    m.next = "DECIDE"
            with m.State("DECIDE"):
                m.d.sync += chosen.eq(SLOTS - 1)
                with m.If(kind == Kind.OPEN):
                    self._respond(m, Status.OK, greeting, 6)
                    with m.If(~self.opened | (session != current)):
                        m.d.sync += [
                            self.opened.eq(1),
                            current.eq(session),
                            expected.eq(0),
                            kept.eq(0),
                        ]
                        m.next = "FORGET"
                with m.Elif(~self.opened | (session != current)):
                    self._respond(m, Status.SESSION)
                with m.Elif(sequence == expected):
                    m.d.sync += [
                        chosen.eq(sequence[: QUEUE.bit_length() - 1]),
                        expected.eq(expected + 1),
                        kept.eq(kept + (kept != QUEUE)),
                    ]
                    m.next = "ARGUMENT"
                with m.Elif(behind < kept):
                    m.d.sync += chosen.eq(sequence[: QUEUE.bit_length() - 1])
                    m.next = "REPEAT"
                with m.Else():
                    # Behind a request that was lost: it will come again after it.
                    m.next = "DROP"
            with m.State("FORGET"):
                # Result packets that wait, and the rest of one that is coming.
                m.d.comb += self._forget.eq(1)
                with m.If(~self.result_queue.r_rdy & ~self._arriving):
                    m.next = "RESPOND"

            # Arguments: of a packet the head's number, else the whole body.
            with m.State("ARGUMENT"):
                m.next = "ARGUMENT_BYTE"
                with m.If((place == body) | (place == Mux(kind == Kind.SEND, 1, _ARGUMENT_BYTES))):
                    m.next = "CHECK"
            with m.State("ARGUMENT_BYTE"):
                m.d.sync += [
                    self._arguments.word_select(place[:3], 8).eq(frames.byte),
                    index.eq(index + 1),
                ]
                m.next = "ARGUMENT"
            with m.State("CHECK"):
                head_zero = self._arguments[:8] == 0
                with m.Switch(kind):
                    with m.Case(Kind.SEND):
                        whole = (body - 1)[:beat_bits] == 0
                        fits = (frames.length <= p.frame_bytes) & (beats <= tokens.depth)
                        m.d.comb += accepts.eq((body > 1) & whole & fits & head_zero)
                        m.d.sync += self._patience.eq(_SEND_MS)
                    with m.Case(Kind.RECEIVE):
                        m.d.comb += accepts.eq((body == 3) & head_zero)
                        m.d.sync += self._patience.eq(self._arguments[8:24])
                    with m.Case(Kind.READ):
                        m.d.comb += accepts.eq(body == 2)
                        m.d.sync += self.device.s_axil_arvalid.eq(accepts & ~self._outside)
                    with m.Case(Kind.WRITE):
                        m.d.comb += accepts.eq(body == 6)
                        m.d.sync += [
                            self.device.s_axil_awvalid.eq(accepts & ~self._outside),
                            self.device.s_axil_wvalid.eq(accepts & ~self._outside),
                        ]
                    with m.Case(Kind.DELIVER):
                        m.d.comb += accepts.eq(body == 2)
                        m.d.sync += self._patience.eq(self._arguments[:16])
                    with m.Case(Kind.BUILD):
                        m.d.comb += accepts.eq(body == 0)
                m.next = "CARRY_OUT"
                with m.If(~accepts):
                    self._respond(m, Status.MALFORMED)
            with m.State("CARRY_OUT"):
                self._carry_out(m)

            # A packet's beats, byte by byte, into its queue.
            beat = Signal(p.head.bus_bits)
            last = index == frames.length
            with m.State("PACKET"):
                m.next = "PACKET_BYTE"
            with m.State("PACKET_BYTE"):
                m.d.sync += [beat.eq(Cat(beat[8:], frames.byte)), index.eq(index + 1)]
                m.next = "PACKET"
                with m.If(place[:beat_bits] == 0):
                    m.next = "PACKET_BEAT"
            with m.State("PACKET_BEAT"):
                m.d.comb += [tokens.w_data.eq(Cat(beat, last)), tokens.w_en.eq(1)]
                m.next = "PACKET"
                with m.If(last):
                    self._respond(m, Status.OK)

            with m.State("RESPOND"):
                m.d.comb += responder.start.eq(1)
                m.next = "COMPOSE"
            with m.State("COMPOSE"):
                with m.If(~responder.composing):
                    m.next = "DROP"
            with m.State("REPEAT"):
                m.d.comb += responder.repeat.eq(1)
                m.next = "DROP"
            with m.State("DROP"):
                m.d.comb += frames.take.eq(1)
                m.next = "NEXT"
            with m.State("NEXT"):
                # The slot stays until the response has left.
                with m.If(~responder.busy):
                    m.next = "IDLE"

    def _respond(
        self, m: Module, status: Status, follows: ValueLike = 0, follow_bytes: int = 0
    ) -> None:
        """Go on with a response; in a state."""
        m.d.sync += [
            self._status.eq(status),
            self._follows.eq(follows),
            self._follow_bytes.eq(follow_bytes),
        ]
        m.next = "RESPOND"

    def _carry_out(self, m: Module) -> None:
        """Wait for what a request asks for; in the state of that name."""
        kind = self._request[:8]
        tokens, results = self.token_queue, self.result_queue
        late = self._patience == 0
        with m.Switch(kind):
            with m.Case(Kind.SEND):
                with m.If(tokens.level + self._beats <= tokens.depth):
                    m.next = "PACKET"
                with m.Elif(late):
                    self._respond(m, Status.FAILED)
            with m.Case(Kind.RECEIVE):
                # An invalid result is its header alone, and bit 0 of the header says so.
                beats = Mux(results.r_data[0], 1, self.params.head.result_beats)
                with m.If(results.r_rdy):
                    m.d.sync += self.responder.packet.eq(1)
                    self._respond(m, Status.OK, beats, 2)
                with m.Elif(late):
                    self._respond(m, Status.NOTHING)
            with m.Case(Kind.DELIVER):
                with m.If(tokens.level == 0):
                    self._respond(m, Status.OK)
                with m.Elif(late):
                    self._respond(m, Status.NOTHING)
            with m.Case(Kind.BUILD):
                build = int.from_bytes(bytes.fromhex(self.params.config_hash), "little")
                self._respond(m, Status.OK, Const(build, 8 * BUILD_BYTES), BUILD_BYTES)
            with m.Case(Kind.READ, Kind.WRITE):
                self._access(m, kind == Kind.READ)

    def _access(self, m: Module, reads: Value) -> None:
        """Wait for the answer to a register access; the bus was asked in the state before."""
        bus = self.device
        answered = Mux(reads, bus.s_axil_rvalid, bus.s_axil_bvalid)
        refused = Mux(reads, bus.s_axil_rresp, bus.s_axil_bresp) != 0
        with m.If(self._outside):
            self._respond(m, Status.REFUSED)
        with m.Elif(bus.step):
            for channel in ("ar", "aw", "w"):
                with m.If(getattr(bus, f"s_axil_{channel}ready")):
                    m.d.sync += getattr(bus, f"s_axil_{channel}valid").eq(0)
            with m.If(answered):
                self._respond(m, Status.OK)
                with m.If(refused):
                    self._respond(m, Status.REFUSED)
                with m.Elif(reads):
                    self._respond(m, Status.OK, bus.s_axil_rdata, DATA_BITS // 8)
