"""Whatever happens, in whatever order: what is always true of what the conversation orders, and that a log replays to the same commands."""

from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.commands import (
    ArgumentsDelta,
    ArgumentsDone,
    Command,
    ContentPartAdded,
    ContentPartDone,
    Cut,
    Duck,
    InputCommitted,
    InputSpeechStarted,
    InputSpeechStopped,
    ItemAdded,
    ItemDeleted,
    ItemDone,
    ItemTruncated,
    OpenPlayout,
    OutputAudioDone,
    OutputItemAdded,
    OutputItemDone,
    OutputTextDelta,
    OutputTextDone,
    OutputTranscriptDelta,
    OutputTranscriptDone,
    Release,
    ResponseCreated,
    ResponseDone,
    ResponseStatus,
    Resume,
    TranscriptionCompleted,
    TranscriptionDelta,
    TranscriptionFailed,
)
from agent.events import CancelResponse, ClearInput, CommitInput, CreateItem, DeleteItem, RetrieveItem, TruncateItem
from agent.items import FunctionCallOutput, ItemStatus
from agent.settings import PlaybackOwner, SemanticVad, ServerVad, SessionKind, Transcription, TurnDetection
from streaming.events import (
    Abort,
    CommitTurn,
    EndOfTurnScore,
    EngineFailed,
    FinishReason,
    Listened,
    Respond,
    Say,
    SetHistory,
    StartTurn,
    ToolCallReady,
    ToolSpec,
    TranscriptDelta,
    TranscriptDone,
    TranscriptFailed,
)


class Rules:
    """Reads commands in their order and fails at the first that breaks a rule."""

    def __init__(self) -> None:
        self.begun: dict[str, bool] = {}  # responses, and whether they are in the conversation
        self.done: set[str] = set()
        self.cut: set[str] = set()
        self.ordered: set[str] = set()
        self.items: dict[str, str] = {}  # output items that are open, and whose they are
        self.parts: dict[str, str] = {}  # the text given of each open part
        self.known: set[str] = set()  # items of the conversation
        self.committed: set[str] = set()
        self.transcribed: set[str] = set()
        self.speaking: str | None = None
        self.turns_end = 0
        self.ids: Counter[str] = Counter()

    def read(self, command: Command) -> None:
        match command:
            case ResponseCreated() | ResponseDone():
                self._response(command)
            case OutputItemAdded() | OutputItemDone() | ItemAdded() | ItemDone() | ItemDeleted() | ItemTruncated():
                self._item(command)
            case Release() | OpenPlayout() | Duck() | Resume() | Cut() | Abort() | Respond() | Say():
                self._order(command)
            case InputSpeechStarted() | InputSpeechStopped() | InputCommitted() | CommitTurn() | StartTurn():
                self._turn(command)
            case TranscriptionDelta() | TranscriptionCompleted() | TranscriptionFailed():
                self._transcription(command)
            case SetHistory(messages):
                running = {item for item, response in self.items.items() if self.begun[response]}
                assert not running & {message.item_id for message in messages if message.role == "assistant"}
            case _:
                self._part(command)

    def _response(self, command: ResponseCreated | ResponseDone) -> None:
        response = command.response
        if isinstance(command, ResponseCreated):
            assert response.id not in self.begun
            if response.conversation_id is not None:
                assert all(other in self.done for other, inside in self.begun.items() if inside), "two at once"
            self.begun[response.id] = response.conversation_id is not None
            return
        assert response.id in self.begun
        assert response.id not in self.done
        assert response.id not in self.items.values(), "an item is still open"
        assert all(item.status is not ItemStatus.IN_PROGRESS for item in response.output)
        assert response.status is not ResponseStatus.IN_PROGRESS
        self.done.add(response.id)

    def _item(self, command: Command) -> None:
        match command:
            case OutputItemAdded(response_id, _, item):
                assert self.begun.keys() - self.done >= {response_id}
                assert item.id not in self.items
                self.ids[item.id] += 1
                self.items[item.id] = response_id
            case OutputItemDone(response_id, _, item):
                assert self.items.pop(item.id) == response_id
                assert item.status is not ItemStatus.IN_PROGRESS
                assert item.id not in self.parts, "a part is still open"
            case ItemAdded(item, previous):
                assert item.id not in self.known
                assert previous is None or previous in self.known
                self.known.add(item.id)
            case ItemDone(item, previous):
                assert item.id in self.known
                assert previous is None or previous in self.known
            case ItemDeleted(item_id):
                self.known.remove(item_id)
            case ItemTruncated(item_id):
                assert item_id in self.known

    def _order(self, command: Command) -> None:
        match command:
            case Respond(response_id) | Say(response_id):
                assert response_id not in self.ordered
                assert response_id not in self.done
                self.ordered.add(response_id)
            case Abort(response_id):
                assert response_id in self.ordered
                assert response_id not in self.done
            case Cut(response_id):
                assert response_id not in self.cut
                self.cut.add(response_id)
            case OpenPlayout(part):
                assert part.response_id not in self.cut | self.done
            case Release(response_id):
                assert response_id not in self.cut | self.done
            case Duck(response_id) | Resume(response_id):
                assert response_id not in self.cut

    def _turn(self, command: Command) -> None:
        match command:
            case InputSpeechStarted(_, item_id):
                assert self.speaking is None
                self.speaking = item_id
            case InputSpeechStopped(_, item_id):
                assert self.speaking == item_id
                self.speaking = None
            case InputCommitted(item_id, previous):
                assert item_id not in self.committed
                assert previous is None or previous in self.known
                self.committed.add(item_id)
            case CommitTurn(item_id, start, end):
                assert self.turns_end <= start <= end
                self.turns_end = end
            case StartTurn(_, start):
                assert self.turns_end <= start

    def _transcription(self, command: Command) -> None:
        item_id = command.item_id
        assert item_id not in self.transcribed
        assert item_id in self.committed or item_id == self.speaking, "not yet named to the client"
        if not isinstance(command, TranscriptionDelta):
            assert item_id in self.committed
            self.transcribed.add(item_id)

    def _part(self, command: Command) -> None:
        match command:
            case ContentPartAdded(part):
                assert part.item_id in self.items
                self.parts[part.item_id] = ""
            case OutputTextDelta(part, delta) | OutputTranscriptDelta(part, delta):
                assert delta
                self.parts[part.item_id] += delta
            case OutputTextDone(part, text) | OutputTranscriptDone(part, text):
                assert self.parts[part.item_id] == text
            case ContentPartDone(part, _, text):
                assert self.parts.pop(part.item_id) == text
            case OutputAudioDone(part) | ArgumentsDelta(part) | ArgumentsDone(part):
                assert self.items[part.item_id] == part.response_id


WEATHER = ToolSpec("get_weather", "", "{}")
DETECTIONS: list[TurnDetection | None] = [
    None,
    ServerVad(),
    ServerVad(create_response=False),
    ServerVad(interrupt_response=False),
    ServerVad(silence_duration_ms=200, idle_timeout_ms=5_000),
    SemanticVad(),
]


def pick(values, number: int):
    """Some value of a sequence, or None of an empty one."""
    return values[number % len(values)] if values else None


def on_response(call, number: int, act: Callable[[str], object]) -> None:
    """Do something to a response that was ordered at some time, finished or not."""
    order = pick(call.ordered((Respond, Say)), number)
    if order is not None:
        act(order.response_id)


def on_item(call, number: int, act: Callable[[str], object]) -> None:
    added = pick(call.ordered(ItemAdded), number)
    act(added.item.id if added is not None else "item_none")


def on_turn(call, number: int, act: Callable[[str], object]) -> None:
    started = pick(call.ordered((StartTurn, CommitTurn)), number)
    if started is not None:
        act(started.item_id)


def answer_a_call(call, number: int) -> None:
    done = pick(call.ordered(ArgumentsDone), number)
    if done is not None:
        call.tell(CreateItem(None, FunctionCallOutput("", done.call_id, "Rain"), None))


def tell_a_story(call, number: int) -> None:
    """A question, and the beginning of a long answer."""
    call.speak(640)
    call.hush(640)
    on_turn(call, -1, lambda item: call.tell(TranscriptDone(item, "Tell me a story.", 0.9, "en")))
    call.create_response()
    on_response(call, -1, lambda response: call.say("One two three four five six seven eight nine ten ", response))
    call.listen(number % 10 * 32)


def truncate_the_reply(call, number: int) -> None:
    added = call.ordered(OutputItemAdded)
    call.tell(TruncateItem("truncate", added[-1].item.id if added else "item_none", 0, number % 3_000))


ACTIONS: list[Callable[[object, int], object]] = [
    lambda call, n: call.speak(n % 20 * 32),
    lambda call, _: call.speak(320),
    lambda call, n: call.hush(n % 40 * 32),
    lambda call, _: call.hush(640),
    lambda call, n: call.listen(n % 40 * 32),
    lambda call, n: call.wait(n % 3_000),
    lambda call, _: call.tell(Listened(call.heard)),
    lambda call, n: call.tell(EndOfTurnScore(call.heard, n % 100 / 100)),
    lambda call, _: call.tell(CommitInput("commit", call.heard)),
    lambda call, _: call.tell(ClearInput("clear", call.heard)),
    lambda call, n: call.write_item("Hello.", previous=(None, "root", "none")[n % 3]),
    lambda call, n: on_item(call, n, lambda item: call.tell(DeleteItem("delete", item))),
    lambda call, n: on_item(call, n, lambda item: call.tell(RetrieveItem("retrieve", item))),
    lambda call, n: on_item(call, -1, lambda item: call.tell(TruncateItem("truncate", item, 0, n % 3_000))),
    lambda call, n: on_item(call, n, lambda item: call.tell(TruncateItem("truncate", item, 0, n % 3_000))),
    lambda call, _: call.create_response(),
    lambda call, _: call.create_response(output_audio=False, instructions="Be brief."),
    lambda call, n: call.create_response(in_conversation=False, input=((), None)[n % 2], output_audio=bool(n % 3)),
    lambda call, _: call.tell(CancelResponse("cancel", None)),
    lambda call, n: on_response(call, n, lambda response: call.tell(CancelResponse("cancel", response))),
    lambda call, n: call.update(turn_detection=DETECTIONS[n % len(DETECTIONS)]),
    lambda call, n: call.update(
        transcription=(None, Transcription())[n % 2],
        playback=PlaybackOwner.ACKED if n % 3 else PlaybackOwner.CLIENT,
        output_audio=bool(n % 5),
    ),
    lambda call, n: call.update(voice=("joe", "amy")[n % 2]),
    lambda call, _: on_turn(call, -1, lambda item: call.tell(TranscriptDelta(item, "some words", 0.9, "en"))),
    lambda call, n: on_turn(call, n, lambda item: call.tell(TranscriptDelta(item, "late words", 0.9, "en"))),
    lambda call, n: on_turn(call, -1, lambda item: call.tell(TranscriptDone(item, ("", "Some words.")[n % 4 > 0], 0.9, "en"))),
    lambda call, n: on_turn(call, n, lambda item: call.tell(TranscriptFailed(item, "out of memory"))),
    lambda call, _: on_response(call, -1, lambda response: call.say("One two three ", response)),
    lambda call, _: on_response(call, -1, lambda response: call.say("four five.", response)),
    lambda call, n: on_response(call, n, lambda response: call.say("six", response)),
    lambda call, _: on_response(call, -1, lambda response: call.text(" words", response)),
    lambda call, n: on_response(call, n, lambda response: call.tell(ToolCallReady(response, n % 3, "get_weather", "{}"))),
    lambda call, _: on_response(call, -1, lambda response: call.finish(response_id=response)),
    lambda call, n: on_response(call, n, lambda response: call.finish(list(FinishReason)[n % 5], "it failed", response)),
    answer_a_call,
    tell_a_story,
    tell_a_story,
    tell_a_story,
    truncate_the_reply,
    lambda call, n: call.speak(n % 4 * 96),
    lambda call, n: call.speak(n % 4 * 96) + call.hush(160),
    lambda call, n: call.update(turn_detection=ServerVad(interrupt_response=bool(n % 3))),
    lambda call, n: call.send(n % 1_000),
    lambda call, n: setattr(call, "sends", bool(n % 2)),
    lambda call, n: call.tell(EngineFailed("exited with -9")) if n % 10 == 0 else None,
]

steps = st.lists(st.tuples(st.integers(0, len(ACTIONS) - 1), st.integers(0, 2_999)), max_size=40)


def wind_up(call) -> None:
    """Let everything that has begun come to its end."""
    call.sends = True
    for _ in range(20):
        running = {c.response.id for c in call.ordered(ResponseCreated)} - {c.response.id for c in call.ordered(ResponseDone)}
        for turn in call.ordered(CommitTurn):
            call.tell(TranscriptDone(turn.item_id, "Some words.", 0.9, "en"))
        for order in call.ordered((Respond, Say)):
            if order.response_id in running:
                call.finish(response_id=order.response_id)
        call.send()
        if not running:
            return


@pytest.mark.parametrize("kind", SessionKind)
@given(steps=steps, detection=st.sampled_from(DETECTIONS))
@settings(max_examples=150, deadline=None, derandomize=True)
def test_always(call, kind, steps, detection) -> None:
    session = call(kind=kind, turn_detection=detection, transcription=True, tools=(WEATHER,))
    for action, number in steps:
        ACTIONS[action](session, number)
    wind_up(session)
    rules = Rules()
    for command in session.commands:
        rules.read(command)
    assert rules.begun.keys() == rules.done, "a response without its response.done"
    assert not rules.items
    assert not rules.parts
    assert all(count == 1 for count in rules.ids.values())
    assert rules.speaking is None or kind is SessionKind.REALTIME


def test_the_rules_notice(call) -> None:
    """The rules themselves: a conversation that says its response.done twice breaks one."""
    session = call()
    session.create_response()
    session.answer("Hello.")
    rules = Rules()
    for command in session.commands:
        rules.read(command)
    with pytest.raises(AssertionError):
        rules.read(session.last(ResponseDone))
