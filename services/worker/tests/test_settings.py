"""The worker's settings: every bad value names its variable."""

import pytest

from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.worker.settings import Membership, Settings


def test_the_defaults_serve_the_default_pool() -> None:
    """With as many slots as the concurrency."""
    assert read(Settings, {}).memberships() == (Membership("default", 4, 0),)


@pytest.mark.parametrize(
    ("pools", "slots"),
    [
        ("default", {"default": 3}),
        ("default:8,reports:2", {"default": 8, "reports": 2}),
        (" default:8 , reports ", {"default": 8, "reports": 3}),
        ("a-b_C9:9999", {"a-b_C9": 9999}),
        ("default:8:5,reports:2", {"default": 8, "reports": 2}),
    ],
)
def test_pools_have_their_own_slots(pools: str, slots: dict[str, int]) -> None:
    """A pool that names no number gets the concurrency."""
    found = read(Settings, {"RABBITBAL_POOLS": pools, "RABBITBAL_CONCURRENCY": "3"}).memberships()
    assert slots == {membership.pool: membership.slots for membership in found}


def test_a_pool_may_have_a_priority() -> None:
    """Spill-over: other workers of that pool are served first."""
    found = read(Settings, {"RABBITBAL_POOLS": "default:8,other:4:-1,third:1:100,last:1:-100"}).memberships()
    assert found == (
        Membership("default", 8, 0),
        Membership("other", 4, -1),
        Membership("third", 1, 100),
        Membership("last", 1, -100),
    )


@pytest.mark.parametrize(
    "pools",
    [
        *("default:0", "default:", "default:x", "default:-1", ":3", "a,,b", "a:1,a:2", "a b", "a.b", "#", "a" * 65),
        *("a:1:", "a:1:x", "a:1:101", "a:1:-101", "a:1:1000", "a:1:1:1", "a::1", "a:1:+1", "a:1:--1", "a:1: 1"),
    ],
)
def test_bad_pools_name_their_variable(pools: str) -> None:
    """A name that is no plain word, no slots, a pool named twice, or a priority that is no number or out of bounds."""
    with pytest.raises(SettingsError, match="RABBITBAL_POOLS"):
        read(Settings, {"RABBITBAL_POOLS": pools}).memberships()


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RABBITBAL_CONCURRENCY", "0"),
        ("RABBITBAL_CONCURRENCY", "1001"),
        ("RABBITBAL_CONCURRENCY", "many"),
        ("RABBITBAL_CLAIM_AFTER", "-1"),
        ("RABBITBAL_CLAIM_AFTER", "nan"),
        ("RABBITBAL_STREAMS", "-1"),
        ("RABBITBAL_WEBSOCKET_LIMIT", "1"),
        ("RABBITBAL_WEBSOCKET_LIMIT", "16000000000"),
        ("RABBITBAL_DRAIN", "-1"),
        ("RABBITBAL_DRAIN", "for ever"),
        ("RABBITBAL_BROKER_URL", "rabbitmq:5672"),
        ("RABBITBAL_LOG_LEVEL", "verbose"),
        ("RABBITBAL_WORKER_ID", "a.b"),
        ("RABBITBAL_WORKER_ID", "*"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, text: str) -> None:
    """One line for the operator, before anything is started."""
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {variable: text})
