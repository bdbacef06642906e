"""Figures there and back, and what somebody else sent for figures."""

import contextlib
import json
from dataclasses import asdict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.figures import (
    MOST_BYTES,
    MOST_POOLS,
    EdgeFigures,
    PoolFigures,
    WorkerFigures,
    decode_figures,
    encode_figures,
)

MOST = 2**63 - 1
EDGE = EdgeFigures(2000, 1000, 7, 5, 1, 3, 1500, False, {"answered": 4, "queue-timeout": 1})
WORKER = WorkerFigures(2000, 1000, 3, 1, False, 1 << 26, {"default": PoolFigures(4, -1, 2, 9, 123)})

counts = st.integers(0, MOST)
edges = st.builds(
    EdgeFigures,
    *[counts] * 6,
    st.none() | counts,
    st.booleans(),
    st.dictionaries(st.from_regex(r"[a-z][a-z-]{0,31}", fullmatch=True), counts, max_size=4),
)
shares = st.builds(PoolFigures, counts, st.integers(-MOST, MOST), counts, counts, counts)
workers = st.builds(
    WorkerFigures,
    *[counts] * 4,
    st.booleans(),
    counts,
    st.dictionaries(st.from_regex(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}", fullmatch=True), shares, max_size=4),
    st.booleans(),
)


def changed(figures: EdgeFigures | WorkerFigures, **changes: Any) -> bytes:
    """The payload with members replaced; one that is ... is left out."""
    found = json.loads(encode_figures(figures)) | changes
    return json.dumps({name: value for name, value in found.items() if value is not ...}).encode()


@given(edges | workers)
def test_figures_survive_the_journey(figures: EdgeFigures | WorkerFigures) -> None:
    """Whatever counts they hold, up to the largest that the wire has."""
    assert decode_figures(encode_figures(figures)) == figures


def test_names_that_are_not_known_are_ignored() -> None:
    """A newer edge or worker may say more."""
    assert decode_figures(changed(EDGE, heat=[1, {"a": None}])) == EDGE
    assert decode_figures(changed(WORKER, heat="much")) == WORKER


def test_whoever_does_not_leave_need_not_say_so() -> None:
    """The flags that are absent are not set; `oldest` is as good as null."""
    assert decode_figures(changed(EDGE, leaving=...)) == EDGE
    assert decode_figures(changed(WORKER, leaving=..., drained=...)) == WORKER
    found = decode_figures(changed(EDGE, oldest=...))
    assert isinstance(found, EdgeFigures)
    assert found.oldest is None


@given(st.binary(max_size=300))
def test_bytes_of_anybody_are_figures_or_an_error(payload: bytes) -> None:
    """Nothing else comes of them."""
    with contextlib.suppress(WireError):
        decode_figures(payload)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from([EDGE, WORKER]), st.data())
def test_any_value_in_any_place_is_figures_or_an_error(
    figures: EdgeFigures | WorkerFigures, data: st.DataObject
) -> None:
    """One member, or one of a pool, is a stranger's."""
    found: dict[str, Any] = {"of": "edge" if figures is EDGE else "worker", **asdict(figures)}
    place = found
    if figures is WORKER and data.draw(st.booleans()):
        place = found["pools"]["default"]
    place[data.draw(st.sampled_from(sorted(place)))] = data.draw(json_values)
    with contextlib.suppress(WireError):
        assert decode_figures(json.dumps(found).encode()) is not None


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"\xff\xfe",
        b"null",
        b"7",
        b"[]",
        b"{}",
        b"[" * 60_000,
        b'{"a":' * 10_000,
        b'{"of": "tap"}',
        b'{"of": null}',
        b'{"of": ["edge"]}',
        b" " * (MOST_BYTES + 1),
        encode_figures(EDGE)[:-1],
        encode_figures(EDGE) + b"x",
        changed(EDGE, at=float("nan")),
        changed(EDGE, opened=-1),
        changed(EDGE, opened=MOST + 1),
        changed(EDGE, closed=1.0),
        changed(EDGE, untold="1"),
        changed(EDGE, pending=True),
        changed(EDGE, pending=...),
        changed(EDGE, oldest=-1),
        changed(EDGE, oldest="now"),
        changed(EDGE, leaving=1),
        changed(EDGE, leaving=None),
        changed(EDGE, endings=...),
        changed(EDGE, endings=[]),
        changed(EDGE, endings={"Answered": 1}),
        changed(EDGE, endings={"a" * 33: 1}),
        changed(EDGE, endings={"": 1}),
        changed(EDGE, endings={"answered": -1}),
        changed(EDGE, endings={"answered\n": 1}),
        changed(EDGE, endings={f"r{'x' * number}": 1 for number in range(MOST_POOLS + 1)}),
        changed(WORKER, memory=None),
        changed(WORKER, drained="yes"),
        changed(WORKER, pools=...),
        changed(WORKER, pools=[["default", 1]]),
        changed(WORKER, pools={"default": 4}),
        changed(WORKER, pools={"default": {}}),
        changed(WORKER, pools={"default": asdict(PoolFigures(4, 0, 0, 0, 0)) | {"slots": -1}}),
        changed(WORKER, pools={"default": asdict(PoolFigures(4, 0, 0, 0, 0)) | {"priority": 1 << 63}}),
        changed(WORKER, pools={"default": asdict(PoolFigures(4, 0, 0, 0, 0)) | {"busy": False}}),
        changed(WORKER, pools={"": asdict(PoolFigures(4, 0, 0, 0, 0))}),
        changed(WORKER, pools={"../etc": asdict(PoolFigures(4, 0, 0, 0, 0))}),
        changed(WORKER, pools={"a" * 65: asdict(PoolFigures(4, 0, 0, 0, 0))}),
        changed(WORKER, pools={"shop\n": asdict(PoolFigures(4, 0, 0, 0, 0))}),
        changed(WORKER, pools={f"p{n}": asdict(PoolFigures(4, 0, 0, 0, 0)) for n in range(MOST_POOLS + 1)}),
    ],
)
def test_what_is_not_of_the_shape_is_refused(payload: bytes) -> None:
    """With a short text that does not repeat what the stranger sent."""
    with pytest.raises(WireError) as caught:
        decode_figures(payload)
    assert len(str(caught.value)) < 200


def test_a_number_that_is_too_long_to_read_is_refused() -> None:
    """Python would not even turn it into an integer."""
    with pytest.raises(WireError):
        decode_figures(b'{"of": "edge", "at": ' + b"9" * 60_000 + b"}")
