"""An engine without a language model: it hears and speaks, and what it is asked to answer fails with a word."""

import pytest

from streaming.absent import AbsentLanguageModel, NoLanguageModelError
from streaming.batching import completed
from streaming.chat import ChatTemplate
from streaming.events import ContextMessage
from streaming.replying import Writer
from streaming.sampling import Sampling


def test_it_takes_what_a_caller_says_and_answers_nothing() -> None:
    model = AbsentLanguageModel()
    writer = Writer(model, ChatTemplate(model), Sampling())
    sequence = model.sequence()
    messages = (ContextMessage("system", "", "Be brief."), ContextMessage("user", "u", "Hello?"))
    completed(model.sync(sequence, writer.template.listening_prompt(messages, {}, "and", writer.budget)))
    assert (sequence.tokens, sequence.cache.bytes) == ([], 0)
    with pytest.raises(NoLanguageModelError, match="replies are made elsewhere"):
        completed(model.sync(sequence, writer.template.reply_prompt(messages, {}, writer.budget)))
    sequence.evict()
