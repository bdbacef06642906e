"""One request on one connection to the upstream, and its response: both at once, as far as they go."""

import asyncio

from rabbitbal.worker.targets.connection import Connection
from rabbitbal.worker.targets.contract import Answer
from rabbitbal.worker.targets.network import Lost
from rabbitbal.worker.targets.pairing import end
from rabbitbal.worker.targets.upload import Upload


async def forward(connection: Connection, head: bytes, upload: Upload, answer: Answer) -> bool:
    """Send the request and pass on its response, except for its end. True after 101: the rest is another protocol's.

    The response may begin, and end, before the request has. Raises Lost and h11's errors, and what ``upload`` and
    ``answer`` raise.
    """
    data = head
    if upload.opening:
        data += connection.piece(upload.opening)
    if upload.whole:
        data += connection.end()
    try:
        rest = data[connection.wire.send_now(data) :]
    except Lost:
        # The upstream may have said why before it closed.
        return await _receive(connection, answer)
    if upload.whole and not rest:
        return await _receive(connection, answer)
    sending = asyncio.create_task(upload.send(connection, rest), name="upload")
    receiving = asyncio.create_task(_receive(connection, answer), name="response")
    try:
        await asyncio.wait((sending, receiving), return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            sending.result()
            await asyncio.wait((receiving,))
        return receiving.result()
    finally:
        await end(sending, receiving)


async def _receive(connection: Connection, answer: Answer) -> bool:
    status, fields = await connection.response()
    await answer.start(status, fields)
    if status == 101:
        return True
    while piece := await connection.body():
        await answer.write(piece)
    return False
