"""The broker's users: secrets made at the first start, and the definitions that the broker boots with.

Each role's secret lies in a volume of its own, and a container mounts its own role's only. The broker gets salted
hashes. What exists is kept, so a second start changes nothing.
"""

import base64
import hashlib
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rabbitbal.wire.topology import ROLES

VHOST = "/"


def prepare(secret_root: Path, definitions: Path, roles: tuple[str, ...] = tuple(ROLES)) -> None:
    """Make the missing secrets under ``secret_root/<role>/password`` and write the definitions file."""
    passwords = {role: _password(secret_root / role / "password") for role in roles}
    text = json.dumps(broker_definitions(passwords), indent=1)
    _write(definitions, text)


def _password(path: Path) -> str:
    if path.exists() and (known := path.read_text().strip()):
        return known
    made = secrets.token_urlsafe(32)
    _write(path, made)
    return made


def _write(path: Path, text: str) -> None:
    """Whole or not at all: a broker must never boot from half a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".new")
    draft.write_text(text)
    # Readable by whichever user the mounting container runs as; only containers of that role mount it.
    draft.chmod(0o444)
    os.replace(draft, path)


def broker_definitions(passwords: Mapping[str, str]) -> dict[str, Any]:
    """https://www.rabbitmq.com/docs/definitions"""
    return {
        "vhosts": [{"name": VHOST}],
        "users": [
            {
                "name": role,
                "password_hash": password_hash(password),
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": list(ROLES[role].tags),
            }
            for role, password in passwords.items()
        ],
        "permissions": [
            {
                "user": role,
                "vhost": VHOST,
                "configure": ROLES[role].configure,
                "write": ROLES[role].write,
                "read": ROLES[role].read,
            }
            for role in passwords
        ],
        "topic_permissions": [
            {"user": role, "vhost": VHOST, "exchange": exchange, "write": write, "read": read}
            for role in passwords
            for exchange, (write, read) in ROLES[role].topics.items()
        ],
    }


def password_hash(password: str, salt: bytes | None = None) -> str:
    """base64(salt + sha256(salt + password)), a salt of four bytes (https://www.rabbitmq.com/docs/passwords)."""
    salt = secrets.token_bytes(4) if salt is None else salt
    return base64.b64encode(salt + hashlib.sha256(salt + password.encode()).digest()).decode()
