"""Bindings that would run a request twice are found, and mistakes are told before anything is changed."""

import pytest

from rabbitbal.operator.bindings import (
    check_bind,
    check_move,
    check_unbind,
    checked_key,
    conflicts,
    holders,
    leads,
    missed,
)
from rabbitbal.operator.errors import Failed, Misused
from rabbitbal.operator.pools import Member, Pool, existing

WORKER = Member("w-1", "any", None, 4, 0)
POOLS = {
    "default": Pool("default", bindings=["default", "shop.*"], members=[WORKER]),
    "empty": Pool("empty"),
    "gone": Pool("gone", queue=False, bindings=["old"]),
    "north": Pool("north", bindings=["north", "shop.cart"], members=[WORKER]),
}


def test_where_a_key_leads() -> None:
    assert leads("shop.cart", POOLS) == ["default", "north"]
    assert leads("shop.list", POOLS) == ["default"]
    assert leads("nowhere", POOLS) == []
    assert holders("shop.*", POOLS) == ("default",)


def test_conflicts_name_the_bindings() -> None:
    assert conflicts("shop.x", ("north",), POOLS) == ["shop.* → default"]
    assert conflicts("north.#", ("default",), POOLS) == ["north → north"]
    assert conflicts("other", (), POOLS) == []


def test_what_is_no_key() -> None:
    with pytest.raises(Misused, match="'a b' is no key"):
        checked_key("a b")
    assert checked_key("a.*") == "a.*"


def test_a_pool_must_exist_and_have_a_queue() -> None:
    with pytest.raises(Failed, match="there is no pool 'x'; there are: default, empty, gone, north"):
        existing("x", POOLS)
    with pytest.raises(Failed, match="no queue"):
        existing("gone", POOLS)


def test_a_second_binding_of_a_key_is_refused_unless_it_is_meant() -> None:
    with pytest.raises(Failed, match=r"shop\.\* → default already: such requests would run twice"):
        check_bind("shop.list", "north", POOLS, also=False)
    check_bind("shop.list", "north", POOLS, also=True)
    check_bind("shop.list", "default", POOLS, also=False)
    check_bind("news", "north", POOLS, also=False)


def test_what_a_move_needs() -> None:
    assert check_move("default", "north", POOLS, force=False) == ("default",)
    assert check_move("north", "north", POOLS, force=False) == ("north",)
    with pytest.raises(Failed, match="there is no pool"):
        check_move("default", "x", POOLS, force=False)
    with pytest.raises(Failed, match="use `pools bind news north`"):
        check_move("news", "north", POOLS, force=False)
    with pytest.raises(Failed, match=r"what matches it: shop\.\* → default"):
        check_move("shop.list", "north", POOLS, force=False)
    with pytest.raises(Failed, match="empty has no workers"):
        check_move("default", "empty", POOLS, force=False)
    assert check_move("default", "empty", POOLS, force=True) == ("default",)
    with pytest.raises(Failed, match=r"shop\.\* → default, too"):
        check_move("shop.cart", "empty", POOLS, force=True)


def test_what_is_unbound() -> None:
    both = {**POOLS, "south": Pool("south", bindings=["north"])}
    assert check_unbind("north", None, both) == ("north", "south")
    assert check_unbind("north", "south", both) == ("south",)
    assert check_unbind("old", "gone", POOLS) == ("gone",)
    with pytest.raises(Failed, match="news is not bound to any pool"):
        check_unbind("news", None, POOLS)
    with pytest.raises(Failed, match="north is not bound to default"):
        check_unbind("north", "default", POOLS)
    with pytest.raises(Failed, match="there is no pool 'x'"):
        check_unbind("north", "x", POOLS)


def test_a_change_that_is_not_as_it_should_be_is_told() -> None:
    """Two operators at the same time: each unbinds what it saw and binds its own."""
    assert missed("north", ("north",), POOLS) is None
    assert missed("news", (), POOLS) is None
    assert missed("north", ("default",), POOLS) == (
        "north now leads to north: somebody else has changed it in the same moment"
    )
    assert missed("news", ("north",), POOLS) == (
        "news leads nowhere now: somebody else has changed it in the same moment"
    )
