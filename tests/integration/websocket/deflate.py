"""The client's half of permessage-deflate (RFC 7692): what the suite needs of it, on zlib."""

import re
import zlib

from integration.websocket.frames import BadFrame

TAIL = b"\x00\x00\xff\xff"


class Deflate:
    """One direction each way, as the server's answer to the offer says."""

    def __init__(self, extensions: str) -> None:
        if extensions.split(";")[0].strip() != "permessage-deflate":
            raise BadFrame(f"the server chose the extension {extensions!r}")
        self._ours = -window(extensions, "client_max_window_bits")
        self._theirs = -window(extensions, "server_max_window_bits")
        self._forget_ours = "client_no_context_takeover" in extensions
        self._forget_theirs = "server_no_context_takeover" in extensions
        self._out = zlib.compressobj(wbits=self._ours)
        self._in = zlib.decompressobj(wbits=self._theirs)

    def compress(self, payload: bytes) -> bytes:
        if self._forget_ours:
            self._out = zlib.compressobj(wbits=self._ours)
        packed = self._out.compress(payload) + self._out.flush(zlib.Z_SYNC_FLUSH)
        return packed.removesuffix(TAIL) or b"\x00"

    def decompress(self, payload: bytes) -> bytes:
        """Raises BadFrame."""
        if self._forget_theirs:
            self._in = zlib.decompressobj(wbits=self._theirs)
        try:
            return self._in.decompress(payload + TAIL)
        except zlib.error as error:
            raise BadFrame(f"the server's message cannot be decompressed: {error}") from error


def window(extensions: str, name: str) -> int:
    found = re.search(rf'{name}\s*=\s*"?(\d+)', extensions)
    # zlib cannot make a raw window of 8 bits: 9 reads what 8 wrote, and no server is asked for less than 9.
    return max(int(found[1]), 9) if found else 15
