"""What of an early fact the model is still told late in a call: oldest messages left out, notes, or a summary by the model itself.

    python -m benchmarks.memory [--dialogues 20] [--model FILE.gguf] [--summaries] [--json FILE]

Scripted dialogues of a fixed seed: the caller states five facts (a name, an address, an order number, an appointment, an allergy) in their
first turns, and 150 turns of small talk follow, in which they say much of themselves that nobody needs. A fact has survived if its key (the
name, the number ...) is in what the model is told in the end; that it is told is no promise that it is used. `leaving out` is
`streaming.chat` alone, with the budget of the model; `notes` is `agent.memory`; `summary` is what the model writes, greedily and at most
200 tokens, when asked to summarise what the notes cover and its own summary before, each time that something is covered. Rates with
Wilson's 95 % interval; tokens are medians.
"""

import argparse
import json
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from agent.heard import HeardReplies
from agent.history import History
from agent.items import ContentPart, Message, PartKind
from agent.memory import Memory
from benchmarks.decoder import DEFAULT_MODEL
from server.eval.intervals import share
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel
from streaming.events import NOTES, ContextMessage
from streaming.replying import Writer
from streaming.sampling import Sampling

_SEED: Final = 5
_TURNS: Final = 150
_SUMMARY: Final = 200
"""Tokens of a summary at most."""
_NAMES: Final = ("Miriam", "Okafor", "Jonas", "Priya", "Leclerc", "Tanaka", "Rosalind", "Dmitri", "Saoirse", "Emeka")
_STREETS: Final = ("Willow", "Harbour", "Mill", "Chestnut", "Station", "Abbey", "Quarry", "Meadow")
_ALLERGIES: Final = ("peanuts", "shellfish", "penicillin", "latex", "sesame", "lactose")
_DAYS: Final = ("Monday", "Tuesday", "Thursday", "Saturday")
_WHO: Final = ("neighbour", "sister", "dog", "colleague", "uncle", "landlord", "cat", "friend", "boss", "cousin")
_WHAT: Final = ("the river", "old films", "the garden", "loud music", "the market", "chess", "the rain", "tortoises", "the bus", "painting")
_CHAT: Final = (
    ("What do you think of {what}?", "I find that there is much to be said for it, and that it depends on the day."),
    ("My {who} likes {what} very much.", "That is lovely to hear, it is good to have something to enjoy like that."),
    ("I'm a little tired of {what} lately.", "I understand, sometimes one needs a change from the things one knows too well."),
    ("We talked about {what} with my {who}.", "And did you agree? People often see such things quite differently."),
    ("I went to see {what} with my {who} last week.", "How nice, I hope that it was as good as you had expected it to be."),
    ("Can you tell me something about {what}?", "There would be a lot to tell, but the short of it is that it takes patience."),
)
_TEMPLATES: Final = (
    ("By the way, my name is {name}.", "Nice to meet you."),
    ("I live at {number} {street} Street.", "Thank you, I have noted that."),
    ("The order I am calling about has the number {order}.", "Let me have a look at that."),
    ("I'd like an appointment on {day} at {hour}.", "I will see what can be done."),
    ("I am allergic to {allergy}, I should say.", "Of course, I will keep that in mind."),
)


@dataclass(frozen=True)
class Scripted:
    """Turns of (caller, agent), and the keys of the facts in them."""

    turns: Sequence[tuple[str, str]]
    keys: Sequence[str]


def scripted(number: int) -> Scripted:
    """Dialogue `number`."""
    chance = random.Random(f"{_SEED}/{number}")
    values = {
        "name": chance.choice(_NAMES), "number": str(chance.randint(11, 989)), "street": chance.choice(_STREETS),
        "order": str(chance.randint(10_000, 99_999)), "day": chance.choice(_DAYS), "hour": str(chance.randint(1, 12)) + ":30",
        "allergy": chance.choice(_ALLERGIES),
    }  # fmt: skip
    facts = [(caller.format(**values), agent) for caller, agent in _TEMPLATES]
    turns = [turn for fact in facts for turn in (small_talk(chance), fact)]
    turns += [small_talk(chance) for _ in range(_TURNS)]
    keys = [values["name"], f"{values['number']} {values['street']}", values["order"], values["hour"], values["allergy"]]
    return Scripted(turns, keys)


def small_talk(chance: random.Random) -> tuple[str, str]:
    """A turn of it."""
    caller, agent = chance.choice(_CHAT)
    return caller.format(who=chance.choice(_WHO), what=chance.choice(_WHAT)), agent


def history_of(dialogue: Scripted) -> History:
    """The dialogue as items."""
    history = History()
    for number, (caller, agent) in enumerate(dialogue.turns):
        history.add(Message(f"u{number}", "user", (ContentPart(PartKind.INPUT_AUDIO, caller),)))
        history.add(Message(f"a{number}", "assistant", (ContentPart(PartKind.OUTPUT_AUDIO, agent),)))
    return history


def told_by_turns(history: History) -> list[tuple[ContextMessage, ...]]:
    """What the model is told with notes, each time that something has been covered, turn by turn as in a call; and in the end."""
    growing, heard = History(), HeardReplies()
    memory, told = Memory(growing, heard), []
    for item in history.items:
        growing.add(item)
        if memory.cover():
            told.append(memory.context("", growing.items))
    return [*told, memory.context("", growing.items)]


def summary_of(writer: Writer, plain: Sequence[ContextMessage], told: Sequence[tuple[ContextMessage, ...]]) -> str:
    """The model's summary in the end: of what was covered each time, and of its summary before."""
    text, done = "", 0
    for messages in told[:-1]:
        first = next(message.item_id for message in messages if message.item_id != NOTES)
        covered = next(index for index, message in enumerate(plain) if message.item_id == first)
        text = summarised(writer, text, plain[done:covered])
        done = covered
    return text


def summarised(writer: Writer, before: str, messages: Sequence[ContextMessage]) -> str:
    """The model's summary of a dialogue; greedy."""
    spoken = "\n".join(f"{'Caller' if message.role == 'user' else 'Agent'}: {message.text}" for message in messages)
    task = "Summarise this call for the agent: keep all names, numbers, dates and wishes of the caller."
    earlier = f"Before that: {before}\n" if before else ""
    asked = ContextMessage("user", "", f"{earlier}{spoken}\n\n{task}")
    system = ContextMessage("system", "", "You summarise telephone calls in a few short sentences.")
    sequence, model = writer.model.sequence(), writer.model
    completed(model.sync(sequence, writer.template.reply_prompt((system, asked), {}, writer.budget)))
    written: list[int] = []
    while len(written) < _SUMMARY and sequence.logits is not None:
        token = int(sequence.logits.argmax())
        if token in model.end_tokens:
            break
        written.append(token)
        completed(model.append(sequence, token))
    return "".join(writer.texts[token].decode("utf-8", "ignore") for token in written)


def main() -> None:
    """Compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dialogues", type=int, default=20)
    parser.add_argument("--model", type=Path, default=DEFAULT_MODEL)
    parser.add_argument("--threads", type=int, default=2, help="torch's")
    parser.add_argument("--summaries", action="store_true", help="have the model summarise too: some seconds each")
    parser.add_argument("--json", type=Path, help="where the summaries go")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    model = LlamaLanguageModel.load(options.model)
    writer = Writer(model, ChatTemplate(model), Sampling())
    survived: dict[str, list[bool]] = {}
    tokens: dict[str, list[int]] = {}
    summaries = []
    for number in range(options.dialogues):
        dialogue = scripted(number)
        history = history_of(dialogue)
        turns = told_by_turns(history)
        notes = turns[-1]
        plain = Memory(history, HeardReplies()).context("", history.items)
        rest = [message for message in notes if message.item_id != NOTES]
        told = {"leaving out": plain, "notes": notes}
        if options.summaries:
            text = summary_of(writer, plain, turns)
            summaries.append(text)
            told["summary"] = (ContextMessage("system", NOTES, f"Earlier in this call: {text}"), *rest)
        for name, messages in told.items():
            prompt = writer.template.reply_prompt(tuple(messages), {}, writer.budget)
            seen = model.decode(prompt.tokens)
            survived.setdefault(name, []).extend(key in seen for key in dialogue.keys)
            tokens.setdefault(name, []).append(len(prompt.tokens))
    for name, hits in survived.items():
        print(f"{name:12} {share(sum(hits), len(hits))}, {statistics.median(tokens[name]):.0f} tokens")
    if options.json:
        options.json.write_text(json.dumps(summaries, indent=1))


if __name__ == "__main__":
    main()
