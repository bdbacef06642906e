"""Programs that play a hostile peer inside a container of the deployment, with the secret of its role."""

import json
from pathlib import Path
from typing import Any

from integration.deployment import Container, Deployment

HERE = Path(__file__).parent

# The tests are not in the containers: the one module that a program needs goes along.
PREAMBLE = """
import sys, types
for name in ("integration", "integration.malformed", "integration.malformed.messages"):
    sys.modules[name] = module = types.ModuleType(name)
exec({source!r}, module.__dict__)
"""

# What lies in the queue of dead requests: read as the operator, who alone may. Printed: how many, and what is wrong.
DEAD = """
import asyncio, collections, json, os, pathlib
import aio_pika

async def main():
    secret = pathlib.Path(os.environ["RABBITBAL_BROKER_PASSWORD_FILE"]).read_text().strip()
    connection = await aio_pika.connect(host="rabbitmq", login="topology", password=secret)
    queue = await (await connection.channel()).get_queue("dead.requests", ensure=False)
    errors = collections.Counter()
    while (message := await queue.get(no_ack=True, fail=False)) is not None:
        error = message.headers.get("error")
        errors[error if isinstance(error, str) else ""] += 1
    await connection.close()
    print(json.dumps(errors))

asyncio.run(main())
"""


def play(deployment: Deployment, container: Container, program: str, *arguments: object) -> dict[str, Any]:
    """Run ``program`` in the container, and what it prints."""
    text = PREAMBLE.format(source=(HERE / "messages.py").read_text()) + (HERE / program).read_text()
    return dict(json.loads(deployment.exec(container, "python", "-c", text, *map(str, arguments))))


def dead(deployment: Deployment) -> dict[str, int]:
    """How often which error is given in the queue of dead requests, which is empty afterwards."""
    (job,) = deployment.containers("topology")
    run = ("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", job.service, "-c", DEAD)
    return dict(json.loads(deployment._compose.run(*run)))
