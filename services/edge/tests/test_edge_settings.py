"""The edge's settings: every bad value names its variable."""

import asyncio

import pytest

from rabbitbal.edge.serve import serve
from rabbitbal.edge.settings import Settings
from rabbitbal.runtime.lifecycle import Stop
from rabbitbal.runtime.settings import SettingsError, describe, read


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RABBITBAL_BROKER_URL", "rabbitmq:5672"),
        ("RABBITBAL_PORT", "65536"),
        ("RABBITBAL_PORT", "-1"),
        ("RABBITBAL_TIMEOUT", "0"),
        ("RABBITBAL_TIMEOUT", "soon"),
        ("RABBITBAL_TIMEOUT", "nan"),
        ("RABBITBAL_BODY_LIMIT", "-1"),
        ("RABBITBAL_HEADER_LIMIT", "1023"),
        ("RABBITBAL_TARGET_LIMIT", "63"),
        ("RABBITBAL_ROUTE_GRACE", "61"),
        ("RABBITBAL_BROKER_GRACE", "601"),
        ("RABBITBAL_MAX_PENDING", "0"),
        ("RABBITBAL_BUFFER_LIMIT", "1"),
        ("RABBITBAL_EXPOSE_WORKER", "perhaps"),
        ("RABBITBAL_EDGE_ID", "*"),
        ("RABBITBAL_EDGE_ID", "a.b"),
        ("RABBITBAL_LOG_LEVEL", "loud"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, text: str) -> None:
    """One line for the operator, before anything is started."""
    with pytest.raises(SettingsError, match=variable):
        read(Settings, {variable: text})


async def test_bad_networks_name_their_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    """They are parsed when the edge starts; nothing listens yet."""
    monkeypatch.setattr("rabbitbal.runtime.logs.configure", lambda *_: None)
    with pytest.raises(SettingsError, match="RABBITBAL_TRUSTED_PROXIES"):
        await asyncio.wait_for(serve(Settings(trusted_proxies="10.0.0.0/8, nginx"), Stop()), 5)


def test_every_setting_has_a_help_text() -> None:
    """`--help` is where an operator looks."""
    lines = describe(Settings).splitlines()[2:]
    assert [line for line in lines if not line.split("(default")[0].split(maxsplit=1)[1:]] == []
