"""The demonstration under uvicorn alone, on a free port of the loopback: what the deployment is measured against."""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from streaming.http import Failed

DEMO = Path(__file__).parents[2] / "compose" / "demo"


@asynccontextmanager
async def uvicorn() -> AsyncIterator[str]:
    """Its URL."""
    command = (sys.executable, "-m", "uvicorn", "demo:app", "--app-dir", str(DEMO), "--port", "0", "--no-access-log")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
    )
    assert process.stderr is not None
    try:
        said = b""
        while (found := re.search(rb"running on (http://[\d.:]+)", said)) is None:
            line = await process.stderr.readline()
            if not line:
                raise Failed(f"uvicorn does not start: {said.decode()}")
            said += line
        yield found[1].decode()
    finally:
        process.kill()
        await process.wait()
