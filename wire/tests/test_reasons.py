"""Every reason is a status and a text, and a response that HTTP knows."""

import pytest

from rabbitbal.wire.fields import first
from rabbitbal.wire.message import Response, decode_response, encode_response
from rabbitbal.wire.reasons import ERROR_FIELD, Reason, error_response, status_of

# The endings of a request, as the design and docs/wire-format.md name them.
STATUSES = {
    "bad-request": 400,
    "header-too-large": 431,
    "target-too-long": 414,
    "body-too-large": 413,
    "suspected-bot": 429,
    "unroutable": 503,
    "overloaded": 503,
    "queue-timeout": 504,
    "worker-timeout": 504,
    "worker-lost": 502,
    "poison": 502,
    "app-error": 500,
    "bad-response": 502,
    "broker-down": 503,
    "client-gone": 499,
    "superseded": 499,
    "edge-error": 500,
}


def test_these_are_all_the_reasons() -> None:
    assert {reason.value: status_of(reason) for reason in Reason} == STATUSES


@pytest.mark.parametrize("reason", Reason)
def test_every_reason_has_a_response_that_says_it(reason: Reason) -> None:
    response = error_response(reason)
    assert response.status == status_of(reason)
    assert first(response.fields, b"rabbitbal-error") == reason.value.encode()
    assert first(response.fields, b"cache-control") == b"no-store"
    text = response.body.decode()
    assert text.startswith(f"rabbitbal: {reason.value}: ")
    assert text.endswith("\n")
    assert len(text.removeprefix(f"rabbitbal: {reason.value}: ").strip()) > 10


@pytest.mark.parametrize("reason", Reason)
def test_every_response_survives_the_journey(reason: Reason) -> None:
    for response in (error_response(reason), error_response(reason, 7)):
        assert decode_response(encode_response(response)) == response


def test_every_text_is_different() -> None:
    assert len({error_response(reason).body for reason in Reason}) == len(Reason)


@pytest.mark.parametrize(("seconds", "sent"), [(1, b"1"), (30, b"30"), (0, b"1"), (-5, b"1"), (100_000, b"100000")])
def test_retry_after_is_whole_seconds_and_at_least_one(seconds: int, sent: bytes) -> None:
    assert first(error_response(Reason.OVERLOADED, seconds).fields, b"retry-after") == sent


def test_retry_after_is_only_said_when_it_is_known() -> None:
    assert first(error_response(Reason.OVERLOADED).fields, b"retry-after") is None


def test_a_response_is_made_anew_each_time() -> None:
    one: Response = error_response(Reason.POISON)
    one.fields.append((b"X", b"y"))
    assert (b"X", b"y") not in error_response(Reason.POISON).fields


def test_the_error_field_is_a_field_of_ours() -> None:
    assert ERROR_FIELD == b"Rabbitbal-Error"
