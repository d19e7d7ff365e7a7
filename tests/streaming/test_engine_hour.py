"""A call of many turns on a tiny engine, with the conversation's memory in front of it: nothing grows with its length."""

from agent.heard import HeardReplies
from agent.history import History
from agent.items import ContentPart, Message, PartKind
from agent.memory import Memory
from streaming.engine import Parts
from streaming.events import NOTES, Respond, RespondOptions, ResponseFinished, SetHistory

_TURNS = 120
_BUDGET = 400
"""Characters; the tiny tokenizer makes about one token of each."""
_TURN = 90
"""Tokens of a turn and its answer, with what ChatML puts around them."""


def message(item_id: str, role: str, text: str) -> Message:
    return Message(item_id, role, (ContentPart(PartKind.INPUT_TEXT, text),))


def test_prompt_memory_and_prefill_are_flat_over_a_long_call(talk, tiny_parts: Parts) -> None:
    dialogue, history = talk(tiny_parts), History()
    memory = Memory(history, HeardReplies(), _BUDGET)
    dialogue.open("s")

    def believe() -> None:
        dialogue.engine.order("s", SetHistory(memory.context("Be kind.", history.items)))
        dialogue.steps()

    usages, held = [], []
    for number in range(_TURNS):
        history.add(message(f"u{number}", "user", "My name is Ada." if number == 0 else f"And what of {number}?"))
        believe()
        dialogue.engine.order("s", Respond(f"r{number}", RespondOptions(audio=False, max_output_tokens=2)))
        dialogue.steps()
        (finished,) = [event for event in dialogue.told("s", f"r{number}") if isinstance(event, ResponseFinished)]
        usages.append(finished.usage)
        held.append(dialogue.sequence("s").cache.bytes)
        history.add(message(f"a{number}", "assistant", "That is all there is to it."))
        memory.cover()  # nobody speaks now
        believe()
    assert max(usage.input_tokens for usage in usages) < tiny_parts.writer.budget - 100  # so the engine never had to leave anything out
    assert max(usage.input_tokens - usage.cached_tokens for usage in usages) < _TURN  # the rest was read while nobody waited
    assert max(held) == max(held[:20])
    context = memory.context("Be kind.", history.items)
    assert context[1].item_id == NOTES
    assert "My name is Ada." in (context[1].text or "")


def test_after_a_deletion_in_the_notes_the_keys_and_values_are_those_of_a_fresh_call(talk, tiny_parts: Parts) -> None:
    history, dialogue = History(), talk(tiny_parts)
    memory = Memory(history, HeardReplies(), _BUDGET)
    history.add(message("pin", "user", "My PIN is 1234."))
    for number in range(20):
        history.add(message(f"u{number}", "user", f"And what of {number}, I ask?"))
    memory.cover()
    dialogue.open("s", "fresh")
    dialogue.engine.order("s", SetHistory(memory.context("", history.items)))
    dialogue.steps()
    history.delete("pin")
    believed = memory.context("", history.items)
    for session in ("s", "fresh"):
        dialogue.engine.order(session, SetHistory(believed))
        dialogue.engine.order(session, Respond("r", RespondOptions(audio=False, max_output_tokens=8)))
        dialogue.steps()
    assert dialogue.sequence("s").tokens == dialogue.sequence("fresh").tokens
    assert "1234" not in tiny_parts.writer.model.decode(dialogue.sequence("s").tokens)
