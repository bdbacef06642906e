"""`python -m rabbitbal.topology users|objects`."""

import asyncio
import sys

from rabbitbal.runtime import logs
from rabbitbal.runtime.broker import LOSSES, Different
from rabbitbal.runtime.settings import SettingsError, describe, read
from rabbitbal.topology import users
from rabbitbal.topology.declare import declare
from rabbitbal.topology.settings import Settings

USAGE = """usage: python -m rabbitbal.topology users|objects

  users    make the missing secrets and the file of users and permissions that the broker boots with
  objects  declare exchanges, queues and bindings
"""


def main() -> int:
    if sys.argv[1:] not in (["users"], ["objects"]):
        print(f"{USAGE}\n{describe(Settings)}")
        return 0 if sys.argv[1:] in (["--help"], ["-h"]) else 2
    try:
        settings = read(Settings)
        settings.pools()
        logs.configure("topology", sys.argv[1])
        if sys.argv[1] == "users":
            users.prepare(settings.secret_root, settings.definitions)
        else:
            asyncio.run(declare(settings))
    except SettingsError as error:
        print(f"rabbitbal topology: {error}", file=sys.stderr)
        return 2
    except Different as error:
        print(f"rabbitbal topology: {error}", file=sys.stderr)
        return 1
    except LOSSES as error:
        print(f"rabbitbal topology: {error or type(error).__name__}", file=sys.stderr)
        return 1
    return 0


sys.exit(main())
