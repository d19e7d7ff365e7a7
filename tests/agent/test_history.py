"""Items in order: where they go, and what is refused."""

import pytest

from agent.history import History, RefusedError
from agent.items import FunctionCall, FunctionCallOutput, Message


def message(item_id: str) -> Message:
    return Message(item_id, "user", ())


@pytest.fixture
def history() -> History:
    kept = History()
    kept.add(message("a"))
    kept.add(message("b"))
    return kept


@pytest.mark.parametrize(("behind", "previous", "order"), [(None, "b", "abc"), ("root", None, "cab"), ("a", "a", "acb"), ("b", "b", "abc")])
def test_where_an_item_goes(history, behind, previous, order) -> None:
    assert history.add(message("c"), behind) == previous
    assert "".join(item.id for item in history.items) == order
    assert history.previous_id("c") == previous
    assert history.last == history.items[-1]


@pytest.mark.parametrize(
    ("item", "behind", "code"),
    [
        (message("a"), None, "item_create_duplicate_item_id"),
        (message("c"), "none", "item_create_invalid_previous_item_id"),
        (FunctionCallOutput("c", "call_1", ""), None, "invalid_value"),
    ],
)
def test_what_is_refused_changes_nothing(history, item, behind, code) -> None:
    before = history.items
    with pytest.raises(RefusedError) as refused:
        history.add(item, behind)
    assert refused.value.code == code
    assert history.items == before


def test_an_output_needs_its_call(history) -> None:
    history.add(FunctionCall("f", "call_1", "get", "{}"))
    assert history.add(FunctionCallOutput("o", "call_1", "4")) == "f"


def test_delete_and_replace(history) -> None:
    history.delete("a")
    history.replace(message("a"))
    assert [item.id for item in history.items] == ["b"]
    with pytest.raises(RefusedError, match="'a' does not exist"):
        history.delete("a")
    history.delete("b")
    assert history.last is None


def test_a_full_history_makes_room_for_what_is_said() -> None:
    history = History(max_items=2)
    assert not history.is_full
    for item_id in "abcd":
        history.add(message(item_id))
    assert history.is_full
    assert [item.id for item in history.trim()] == ["a", "b"]
    assert [item.id for item in history.items] == ["c", "d"]
    assert history.trim() == []


def test_the_version_rises_with_every_change(history) -> None:
    versions = [history.version]
    for change in (lambda: history.add(message("c")), lambda: history.replace(message("c")), lambda: history.delete("c")):
        change()
        versions.append(history.version)
    assert versions == sorted(set(versions))
    history.replace(message("gone"))
    assert history.version == versions[-1]
