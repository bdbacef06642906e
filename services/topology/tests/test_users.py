"""The broker's users: secrets that last, and definitions that a broker boots from."""

import base64
import json
import re
import stat
from pathlib import Path

import pytest

from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.topology.settings import Settings
from rabbitbal.topology.users import broker_definitions, password_hash, prepare
from rabbitbal.wire.topology import ROLES


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "secrets"


@pytest.fixture
def definitions(tmp_path: Path) -> Path:
    return tmp_path / "definitions" / "definitions.json"


def passwords(root: Path) -> dict[str, str]:
    return {role: (root / role / "password").read_text() for role in ROLES}


def test_the_hash_is_the_one_of_the_documentation() -> None:
    """https://www.rabbitmq.com/docs/passwords#computing-password-hash: "test12" with the salt 908DC60A."""
    assert password_hash("test12", bytes.fromhex("908DC60A")) == "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR"


def test_two_hashes_of_one_password_differ() -> None:
    """The salt is drawn anew."""
    assert password_hash("same") != password_hash("same")


def test_every_role_gets_a_password_of_its_own(root: Path, definitions: Path) -> None:
    """Long, different, and good in a URL."""
    prepare(root, definitions)
    made = passwords(root)
    assert len(ROLES) == len(set(made.values()))
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{43}", password) for password in made.values())


def test_a_second_start_keeps_the_passwords(root: Path, definitions: Path) -> None:
    """Services that run have read them already; a missing one alone is made."""
    prepare(root, definitions)
    before = passwords(root)
    (root / "edge" / "password").unlink()
    (root / "tap" / "password").chmod(0o600)
    (root / "tap" / "password").write_text("\n")
    prepare(root, definitions)
    after = passwords(root)
    assert {"edge", "tap"} == {role for role in ROLES if before[role] != after[role]}
    assert after["tap"].strip() != ""


def test_a_password_of_the_operator_is_kept(root: Path, definitions: Path) -> None:
    """Also with the newline that an editor leaves; the hash is that of the text alone."""
    (root / "edge").mkdir(parents=True)
    (root / "edge" / "password").write_text("chosen\n")
    prepare(root, definitions)
    assert (root / "edge" / "password").read_text() == "chosen\n"
    (edge,) = [user for user in json.loads(definitions.read_text())["users"] if user["name"] == "edge"]
    salt = base64.b64decode(edge["password_hash"])[:4]
    assert password_hash("chosen", salt) == edge["password_hash"]


def test_files_can_be_read_and_not_written(root: Path, definitions: Path) -> None:
    """By whichever user the container runs as; no draft is left behind."""
    prepare(root, definitions)
    files = [definitions, *(root / role / "password" for role in ROLES)]
    assert {0o444} == {stat.S_IMODE(file.stat().st_mode) for file in files}
    found = {file for place in (root, definitions.parent) for file in place.rglob("*") if file.is_file()}
    assert set(files) == found


def test_no_password_is_in_the_definitions(root: Path, definitions: Path) -> None:
    """The broker gets salted hashes."""
    prepare(root, definitions)
    text = definitions.read_text()
    assert [role for role, password in passwords(root).items() if password in text] == []


def test_the_definitions_name_what_the_broker_wants() -> None:
    """Users without tags, permissions for each, and topic permissions for exchanges that exist."""
    made = broker_definitions(dict.fromkeys(ROLES, "x"))
    assert {"vhosts", "users", "permissions", "topic_permissions"} == set(made)
    assert made["vhosts"] == [{"name": "/"}]
    assert set(ROLES) == {user["name"] for user in made["users"]} == {right["user"] for right in made["permissions"]}
    assert "guest" not in {user["name"] for user in made["users"]}
    assert {user["name"]: user["tags"] for user in made["users"] if user["tags"]} == {"operator": ["monitoring"]}
    assert {"rabbit_password_hashing_sha256"} == {user["hashing_algorithm"] for user in made["users"]}
    for right in [*made["permissions"], *made["topic_permissions"]]:
        for kind in ("configure", "write", "read"):
            re.compile(right.get(kind, ""))


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RABBITBAL_POOL_LENGTH", "0"),
        ("RABBITBAL_POOL_LENGTH_BYTES", "1"),
        ("RABBITBAL_QUEUE_TYPE", "stream"),
        ("RABBITBAL_DECLARE_TIMEOUT", "0"),
        ("RABBITBAL_BROKER_URL", "rabbitmq"),
        ("RABBITBAL_POOLS_DECLARED", ","),
        ("RABBITBAL_POOLS_DECLARED", "a b"),
        ("RABBITBAL_POOLS_DECLARED", "a.b"),
        ("RABBITBAL_POOLS_DECLARED", "a,#"),
        ("RABBITBAL_POOLS_DECLARED", "a:"),
        ("RABBITBAL_POOLS_DECLARED", "a:stuck"),
        ("RABBITBAL_POOLS_DECLARED", "a:sticky:sticky"),
        ("RABBITBAL_POOLS_DECLARED", "a,a:sticky"),
        ("RABBITBAL_POOLS_DECLARED", "-a"),
        ("RABBITBAL_POOLS_DECLARED", "é"),
        ("RABBITBAL_POOLS_DECLARED", "a" * 65),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, text: str) -> None:
    """One line for the operator."""
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {variable: text}).pools()


def test_pools_are_named_by_a_list() -> None:
    """Spaces do not matter."""
    declared = " default, reports-2,shop:sticky,"
    assert read(Settings, {"RABBITBAL_POOLS_DECLARED": declared}).pools() == {
        "default": False,
        "reports-2": False,
        "shop": True,
    }
