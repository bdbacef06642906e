"""The worker's settings: every bad value names its variable."""

import pytest

from rabbitbal.runtime.settings import SettingsError, read
from rabbitbal.worker.settings import Settings


def test_the_defaults_serve_the_default_pool() -> None:
    """With as many slots as the concurrency."""
    assert read(Settings, {}).slots() == {"default": 4}


@pytest.mark.parametrize(
    ("pools", "slots"),
    [
        ("default", {"default": 3}),
        ("default:8,reports:2", {"default": 8, "reports": 2}),
        (" default:8 , reports ", {"default": 8, "reports": 3}),
        ("a-b_C9:9999", {"a-b_C9": 9999}),
    ],
)
def test_pools_have_their_own_slots(pools: str, slots: dict[str, int]) -> None:
    """A pool that names no number gets the concurrency."""
    assert slots == read(Settings, {"RABBITBAL_POOLS": pools, "RABBITBAL_CONCURRENCY": "3"}).slots()


@pytest.mark.parametrize(
    "pools", ["default:0", "default:", "default:x", "default:-1", ":3", "a,,b", "a:1,a:2", "a b", "a.b", "#", "a" * 65]
)
def test_bad_pools_name_their_variable(pools: str) -> None:
    """A name that is no plain word, no slots, or a pool named twice."""
    with pytest.raises(SettingsError, match="RABBITBAL_POOLS"):
        read(Settings, {"RABBITBAL_POOLS": pools}).slots()


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
