"""What waits in a WebSocket: frames for their message, messages for the application, bytes for the client."""

import asyncio
import codecs
from collections import deque

from websockets.frames import Frame, Opcode

from rabbitbal.worker.targets.contract import Answer, BadResponse
from rabbitbal.worker.targets.lifespan import Message

# An inbox takes one message more while it has fewer than these.
MESSAGES = 16
BYTES = 1024 * 1024
# An outbox with more bytes than this makes the senders wait.
HIGH = 64 * 1024


class Assembly:
    """A message that arrives in frames. The protocol has checked their order, and bounds their sum."""

    def __init__(self) -> None:
        self._parts = bytearray()
        self._text = False

    def add(self, frame: Frame) -> str | bytes | None:
        """The message, if this is its last frame. Raises UnicodeDecodeError at the first frame that is no UTF-8."""
        if frame.opcode is not Opcode.CONT:
            self._text = frame.opcode is Opcode.TEXT
            if frame.fin:
                return str(frame.data, "utf-8") if self._text else bytes(frame.data)
            self._decoder = codecs.getincrementaldecoder("utf-8")()
        if self._text:
            self._decoder.decode(bytes(frame.data), frame.fin)
        self._parts += frame.data
        if not frame.fin:
            return None
        parts, self._parts = self._parts, bytearray()
        return parts.decode() if self._text else bytes(parts)


class Inbox:
    """Messages that the application has not taken yet. The last one is the disconnect, whatever was before it."""

    def __init__(self) -> None:
        self._messages: deque[tuple[Message, int]] = deque([({"type": "websocket.connect"}, 0)])
        self._size = 0
        self._end: Message | None = None
        self._arrived = asyncio.Event()
        self._taken = asyncio.Event()

    @property
    def ended(self) -> bool:
        return self._end is not None

    @property
    def full(self) -> bool:
        return len(self._messages) >= MESSAGES or self._size >= BYTES

    async def put(self, message: Message, size: int) -> None:
        """Wait for room. What comes behind the end is dropped."""
        while self.full and not self.ended:
            self._taken.clear()
            await self._taken.wait()
        if not self.ended:
            self._messages.append((message, size))
            self._size += size
            self._arrived.set()

    def end(self, code: int, reason: str = "") -> None:
        """The first end counts."""
        if self._end is None:
            self._end = {"type": "websocket.disconnect", "code": code, "reason": reason}
            self._arrived.set()
            self._taken.set()

    async def take(self) -> Message:
        """The next message; the disconnect at the end and ever after."""
        while not self._messages:
            if self._end is not None:
                return self._end
            self._arrived.clear()
            await self._arrived.wait()
        message, size = self._messages.popleft()
        self._size -= size
        self._taken.set()
        return message


class Outbox:
    """Bytes that the answer has not taken yet. They leave in order and whole, also when who sent them is cancelled."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._pieces: deque[bytes] = deque()
        self._moved = asyncio.Event()
        self._writing: asyncio.Task[None] | None = None
        self._error: OSError | None = None
        self._size = 0
        self.written = 0
        """Bytes that the answer took."""

    @property
    def full(self) -> bool:
        return self._size > HIGH and self._error is None

    def put(self, piece: bytes) -> None:
        if self._error is not None:
            return
        self._pieces.append(piece)
        self._size += len(piece)
        if self._writing is None:
            self._writing = asyncio.create_task(self._write())

    async def room(self) -> None:
        """Until a sender may go on. Raises OSError where nobody takes its bytes."""
        while self.full:
            self._moved.clear()
            await self._moved.wait()
        if self._error is not None:
            raise self._error

    async def flushed(self, patience: float) -> None:
        """Until everything has left. Raises OSError when nothing moved for so many seconds, or nobody takes it."""
        while self._size and self._error is None:
            self._moved.clear()
            try:
                await asyncio.wait_for(self._moved.wait(), patience)
            except TimeoutError:
                self.stop(ConnectionResetError(f"the client has read nothing for {patience:g} s"))
        if self._error is not None:
            raise self._error

    def stop(self, error: OSError) -> None:
        """Nobody takes what is left, nor more. Whoever waits is told."""
        self._error = self._error or error
        self._moved.set()
        if self._writing is not None:
            self._writing.cancel()

    async def _write(self) -> None:
        try:
            while self._pieces:
                # Small frames that wait together leave together.
                chunk = b"".join(self._pieces)
                self._pieces.clear()
                await self._answer.write(chunk)
                self._size -= len(chunk)
                self.written += len(chunk)
                self._moved.set()
        except (OSError, BadResponse) as error:
            # The answer was ended while this was waiting to leave.
            self.stop(error if isinstance(error, OSError) else ConnectionResetError(str(error)))
        finally:
            self._writing = None
