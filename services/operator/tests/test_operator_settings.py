"""Where the broker is, and who the operator is there."""

from pathlib import Path

import pytest

from rabbitbal.operator.errors import Failed
from rabbitbal.operator.settings import Settings
from rabbitbal.runtime.settings import read


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({}, "http://rabbitmq:15672/"),
        ({"RABBITBAL_BROKER_URL": "amqp://operator@broker.test:5673/"}, "http://broker.test:15672/"),
        ({"RABBITBAL_BROKER_URL": "amqp://operator@[::1]:5673/"}, "http://[::1]:15672/"),
        ({"RABBITBAL_MANAGEMENT_URL": "https://api.test/broker/"}, "https://api.test/broker/"),
    ],
)
def test_the_api_is_where_the_broker_is_unless_said(environ: dict[str, str], expected: str) -> None:
    assert read(Settings, environ).management() == expected


def test_the_password_is_that_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("secret\n")
    assert Settings(broker_password_file=file).login() == ("operator", "secret")
    with pytest.raises(Failed, match=r"cannot read the password in .*: No such file"):
        Settings(broker_password_file=tmp_path / "none").login()
