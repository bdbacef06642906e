"""Flow control: the two sides agree on what may be sent, and the receiver finds out who does not keep to it."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rabbitbal.wire.errors import WireError
from rabbitbal.wire.flow import CHUNK, FIRST_WINDOW, OVERHEAD, WINDOW, Inflow, Outflow, cost


def test_a_message_costs_more_than_its_payload() -> None:
    """Or a flood of empty ones would cost nothing."""
    assert (cost(b""), cost(b"abc")) == (OVERHEAD, OVERHEAD + 3)


@pytest.mark.parametrize(
    ("granted", "room"),
    [(0, 0), (OVERHEAD - 1, 0), (OVERHEAD, 0), (OVERHEAD + 1, 1), (OVERHEAD + CHUNK, CHUNK), (10 * CHUNK, CHUNK)],
)
def test_there_is_room_for_what_was_granted_and_for_one_chunk_at_most(granted: int, room: int) -> None:
    assert Outflow(granted).room == room


def test_credit_is_used_up_and_only_a_larger_grant_counts() -> None:
    """Grants may come twice, or late."""
    out = Outflow(2 * OVERHEAD + 10)
    assert [out.send(b"12345", last=False), out.send(b"12345", last=False), out.room] == [1, 2, 0]
    out.grant(OVERHEAD)
    assert out.room == 0
    for _ in range(2):
        out.grant(3 * OVERHEAD + 11)
        assert out.room == 1


def test_the_end_needs_no_credit() -> None:
    """The receiver does not count it either."""
    out, into = Outflow(0), Inflow(0)
    into.receive(out.send(b"", last=True), b"", more=False)
    assert (out.spent, into.received, into.ended) == (0, 0, True)


@pytest.mark.parametrize("sequence", [0, 1, 3, 4])
def test_a_piece_out_of_its_order_is_refused(sequence: int) -> None:
    """One that is missing, or comes twice."""
    into = Inflow()
    into.receive(1, b"a", more=True)
    with pytest.raises(WireError, match="came after piece 1"):
        into.receive(sequence, b"b", more=True)
    into.receive(2, b"b", more=True)


def test_nothing_may_come_behind_the_last_piece() -> None:
    into = Inflow()
    into.receive(1, b"a", more=False)
    with pytest.raises(WireError, match="behind the last"):
        into.receive(2, b"", more=False)


def test_a_piece_may_not_be_larger_than_a_chunk() -> None:
    into = Inflow()
    into.receive(1, b"a" * CHUNK, more=True)
    with pytest.raises(WireError, match="larger than"):
        into.receive(2, b"a" * (CHUNK + 1), more=True)


def test_a_sender_may_not_overdraw() -> None:
    """To the byte."""
    into = Inflow(OVERHEAD + 10)
    into.receive(1, b"a" * 10, more=True)
    with pytest.raises(WireError, match="credit"):
        into.receive(2, b"a", more=False)
    into = Inflow(OVERHEAD + 10)
    with pytest.raises(WireError, match="credit"):
        into.receive(1, b"a" * 11, more=True)


def test_empty_pieces_use_credit_up() -> None:
    """Except for the last."""
    into = Inflow(2 * OVERHEAD)
    into.receive(1, b"", more=True)
    into.receive(2, b"", more=True)
    with pytest.raises(WireError, match="credit"):
        into.receive(3, b"", more=True)


def test_credit_is_announced_half_a_window_at_a_time() -> None:
    """Not for every piece."""
    into = Inflow(4 * cost(b"ab"))
    for sequence in range(1, 5):
        into.receive(sequence, b"ab", more=True)
    assert [into.take(b"ab") for _ in range(4)] == [None, 6 * cost(b"ab"), None, 8 * cost(b"ab")]


def test_no_credit_is_announced_behind_the_end() -> None:
    """Nobody would use it."""
    into = Inflow(2 * cost(b"ab"))
    into.receive(1, b"ab", more=True)
    into.receive(2, b"ab", more=False)
    assert [into.take(b"ab"), into.take(b"ab")] == [None, None]


def test_a_window_grows_and_never_shrinks() -> None:
    """What was granted stays granted."""
    into = Inflow(FIRST_WINDOW)
    assert into.widen(WINDOW) == into.widen(FIRST_WINDOW) == into.granted == WINDOW
    into.receive(1, b"a" * CHUNK, more=True)
    into.take(b"a" * CHUNK)
    assert into.widen(2 * WINDOW) == cost(b"a" * CHUNK) + 2 * WINDOW


@given(
    body=st.lists(st.integers(1, 3 * CHUNK), max_size=20),
    window=st.sampled_from([OVERHEAD + 1, 1000, FIRST_WINDOW, WINDOW]),
    unread=st.integers(0, 3),
)
def test_a_sender_that_keeps_to_its_credit_is_never_refused_and_never_stuck(
    body: list[int], window: int, unread: int
) -> None:
    """Whatever the sizes, the window, and how far the reader is behind; and the receiver never holds more than it."""
    body = [min(size, 20 * window) for size in body]
    into = Inflow(window)
    out = Outflow(into.granted)
    held: list[bytes] = []

    def take(leave: int) -> None:
        while len(held) > leave:
            if (credit := into.take(held.pop(0))) is not None:
                out.grant(credit)

    for size in body:
        while size:
            if not out.room:
                take(0)
            piece = b"a" * min(size, out.room)
            assert piece, "nothing is held back, and there is no credit"
            into.receive(out.send(piece, last=False), piece, more=True)
            held.append(piece)
            assert sum(map(cost, held)) <= window
            size -= len(piece)
            take(unread)
    into.receive(out.send(b"", last=True), b"", more=False)
