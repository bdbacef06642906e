"""Settings from the environment: what is read, what is refused, and that a refusal names the variable."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from rabbitbal.runtime.settings import BROKER_URL, SettingsError, describe, public, read, setting


@dataclass(frozen=True)
class Sample:
    body_limit: int = setting(8, "bytes", least=1, most=100)
    timeout: float = setting(1.5, "seconds", least=0.1, most=60)
    expose: bool = setting(False, "show it")
    file: Path | None = setting(None, "where", secret=True)
    broker_url: str = setting("amqp://edge@rabbitmq/", "broker", matches=BROKER_URL)


@dataclass(frozen=True)
class Required:
    name: str = setting(help="who")


def test_without_variables_every_default_holds() -> None:
    """Nothing has to be set."""
    assert Sample() == read(Sample, {})


def test_an_empty_variable_counts_as_unset() -> None:
    """Compose files write `VAR: ${VAR:-}`."""
    assert Sample() == read(Sample, {"RABBITBAL_BODY_LIMIT": "", "RABBITBAL_TIMEOUT": "  "})


def test_values_are_read_by_type() -> None:
    """Numbers, switches, paths and text."""
    environ = {
        "RABBITBAL_BODY_LIMIT": "100",
        "RABBITBAL_TIMEOUT": " 0.1 ",
        "RABBITBAL_EXPOSE": "Yes",
        "RABBITBAL_FILE": "/run/secrets/x",
        "RABBITBAL_BROKER_URL": "amqps://u:p@broker:5671/vhost",
        "BODY_LIMIT": "7",
    }
    assert Sample(100, 0.1, True, Path("/run/secrets/x"), "amqps://u:p@broker:5671/vhost") == read(Sample, environ)


@pytest.mark.parametrize("text", ["0", "false", "No"])
def test_a_switch_can_be_off(text: str) -> None:
    """In three spellings."""
    assert read(Sample, {"RABBITBAL_EXPOSE": text}).expose is False


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("RABBITBAL_BODY_LIMIT", "0"),
        ("RABBITBAL_BODY_LIMIT", "101"),
        ("RABBITBAL_BODY_LIMIT", "1.5"),
        ("RABBITBAL_BODY_LIMIT", "ten"),
        ("RABBITBAL_TIMEOUT", "0.09"),
        ("RABBITBAL_TIMEOUT", "inf"),
        ("RABBITBAL_TIMEOUT", "nan"),
        ("RABBITBAL_EXPOSE", "maybe"),
        ("RABBITBAL_BROKER_URL", "rabbitmq:5672"),
        ("RABBITBAL_BROKER_URL", "http://rabbitmq:5672/"),
    ],
)
def test_a_bad_value_names_its_variable(variable: str, text: str) -> None:
    """One line that an operator can act on."""
    with pytest.raises(SettingsError, match=variable) as caught:
        read(Sample, {variable: text})
    assert "\n" not in str(caught.value)


def test_a_missing_value_names_its_variable() -> None:
    """And says what it is for."""
    with pytest.raises(SettingsError, match="RABBITBAL_NAME must be set: who"):
        read(Required, {})


def test_a_password_is_in_no_error_and_in_no_listing() -> None:
    """Neither of a secret setting nor inside a URL."""
    with pytest.raises(SettingsError) as caught:
        read(Sample, {"RABBITBAL_BROKER_URL": "http://u:hidden@broker/"})
    shown = public(Sample(file=Path("/secret"), broker_url="amqp://u:hidden@broker:5672/"))
    assert "hidden" not in str(caught.value)
    assert shown == {
        "RABBITBAL_BODY_LIMIT": 8,
        "RABBITBAL_TIMEOUT": 1.5,
        "RABBITBAL_EXPOSE": False,
        "RABBITBAL_BROKER_URL": "amqp://u:***@broker:5672/",
    }


def test_the_description_names_every_variable() -> None:
    """`--help` shows the default, or that there is none."""
    lines = describe(Sample).splitlines()
    assert lines[2].split() == ["RABBITBAL_BODY_LIMIT", "bytes", "(default", "8)"]
    assert "required" in describe(Required)
