"""Frames on a byte stream: COBS between zero bytes, with a CRC-32 that nothing wrong gets past.

Consistent overhead byte stuffing (COBS) takes every zero out of a frame's content, so that a zero
on the line is always a frame's edge: after garbage of any kind a reader is back in step at the next
zero.
"""

from __future__ import annotations

import zlib

__all__ = ["FRAME_MAX", "FrameReader", "cobs_decode", "cobs_encode", "encode_frame"]

FRAME_MAX = 16384  #: longest content, bytes; what is longer is dropped as garbage
_CRC_BYTES = 4
_RUN = 254  # longest run of non-zero bytes that one length byte covers


def cobs_encode(content: bytes) -> bytes:
    """Bytes without a zero that stand for any bytes."""
    out = bytearray()
    at = 0
    while True:
        zero = content.find(0, at, at + _RUN)
        run = content[at : zero if zero >= 0 else at + _RUN]
        out.append(len(run) + 1)
        out += run
        at += len(run)
        if zero >= 0:
            at += 1  # the length byte of the next run says that a zero was here
        elif at >= len(content):
            return bytes(out)


def cobs_decode(stuffed: bytes) -> bytes:
    """Bytes that `cobs_encode` was given.

    Raises
    ------
    ValueError
        It would never have given this.
    """
    out = bytearray()
    at = 0
    while at < len(stuffed):
        length = stuffed[at]
        run = stuffed[at + 1 : at + length]
        if not length or len(run) != length - 1 or 0 in run:
            raise ValueError(f"length byte at {at} must lead to the next, not {length!r}")
        out += run
        at += length
        if length <= _RUN and at < len(stuffed):
            out.append(0)
    return bytes(out)


def encode_frame(content: bytes) -> bytes:
    """Bytes on the line: the content and its CRC, least significant byte first, between zeros.

    Raises
    ------
    ValueError
        The content is empty or too long.
    """
    if not 1 <= len(content) <= FRAME_MAX:
        raise ValueError(f"content must have 1..{FRAME_MAX} bytes, not {len(content)!r}")
    crc = zlib.crc32(content).to_bytes(_CRC_BYTES, "little")
    return b"\0" + cobs_encode(content + crc) + b"\0"


class FrameReader:
    """Takes bytes as they come and gives the contents of the frames that are whole.

    It holds no more than one longest frame, whatever comes.
    """

    def __init__(self) -> None:
        self._held = bytearray()
        self._most = FRAME_MAX + _CRC_BYTES
        self._most += -(-self._most // _RUN)
        self.rejected = 0  #: stretches between zeros that were no frame

    def feed(self, received: bytes) -> list[bytes]:
        """Contents of the frames that end in these bytes, in order."""
        contents: list[bytes] = []
        *ended, rest = received.split(b"\0")
        for piece in ended:
            self._hold(piece)
            if self._held:
                content = self._content()
                if content is None:
                    self.rejected += 1
                else:
                    contents.append(content)
            self._held.clear()
        self._hold(rest)
        return contents

    def _hold(self, piece: bytes) -> None:
        # One byte too many is kept, which is enough to know the frame for too long.
        self._held += piece[: self._most + 1 - len(self._held)]

    def _content(self) -> bytes | None:
        if len(self._held) > self._most:
            return None
        try:
            decoded = cobs_decode(bytes(self._held))
        except ValueError:
            return None
        content, crc = decoded[:-_CRC_BYTES], decoded[-_CRC_BYTES:]
        if not content or zlib.crc32(content).to_bytes(_CRC_BYTES, "little") != crc:
            return None
        return content
