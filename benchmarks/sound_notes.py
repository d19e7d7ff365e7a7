"""What the bundle's language model makes of a bracket about sounds behind the caller's words (`vivavoce.tell_sounds`).

    python -m benchmarks.sound_notes [--show]

Each question is answered greedily, 24 tokens at most, without a note and with each of four. Printed: how many answers begin with the same
eight words as without a note, how many name the sound, which is right only where it was asked about (`asked`), and with --show all of them.
"""

import argparse
from collections.abc import Sequence
from typing import Final

import torch

from agent.sounds import note_of
from server.eval.intervals import share
from streaming.batching import completed
from streaming.bundle import default_places
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel
from streaming.events import ContextMessage, SoundKind

_INSTRUCTIONS: Final = "You are a helpful assistant on the telephone. Answer in one short sentence."
_QUESTIONS: Final = (
    "What is the capital of France?",
    "How many legs does a spider have?",
    "I would like to book a table for two.",
    "Can you tell me what a tortoise is?",
    "What colour is the sky?",
    "Please repeat that.",
    "Is it safe to swim after eating?",
    "My name is Peter.",
)
_ASKED: Final = ("What was that sound?", "Do you hear that?")
_KINDS: Final = {SoundKind.DOG: "dog", SoundKind.MUSIC: "music", SoundKind.TRAFFIC: "traffic", SoundKind.SNEEZE: "sneez"}
_TOKENS: Final = 24
_SAME_WORDS: Final = 8


def answer(model: LlamaLanguageModel, text: str) -> str:
    """What it says to `text`."""
    template, sequence = ChatTemplate(model), model.sequence()
    messages = (ContextMessage("system", "", _INSTRUCTIONS), ContextMessage("user", "item_1", text))
    completed(model.sync(sequence, template.reply_prompt(messages, {}, model.context)))
    written: list[int] = []
    while len(written) < _TOKENS and sequence.logits is not None:
        token = int(sequence.logits.argmax())
        if token in model.end_tokens:
            break
        written.append(token)
        completed(model.append(sequence, token))
    return model.decode(written).strip()


def ask(model: LlamaLanguageModel, questions: Sequence[str], name: str, *, show: bool) -> None:
    """Each question, without a note and with each."""
    same = named = 0
    for question in questions:
        plain = answer(model, question)
        if show:
            print(f"{question}\n    {plain}")
        for kind, word in _KINDS.items():
            told = answer(model, question + note_of((kind,)))
            same += told.split()[:_SAME_WORDS] == plain.split()[:_SAME_WORDS]
            named += word in told.lower()
            if show:
                print(f"  {note_of((kind,))}: {told}")
    count = len(questions) * len(_KINDS)
    print(f"{name}: begins the same {share(same, count)}   names the sound {share(named, count)}")


def main() -> None:
    """See the module's docstring."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--show", action="store_true", help="print the answers")
    parser.add_argument("--threads", type=int, default=1, help="torch's")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    path = next((default_places().cache / "parts" / "smollm2-135m-instruct").glob("*.gguf"))
    model = LlamaLanguageModel.load(path)
    ask(model, _QUESTIONS, "not asked about", show=options.show)
    ask(model, _ASKED, "asked", show=options.show)


if __name__ == "__main__":
    main()
