"""One reply: prompt, prefill, decoding, clauses to the voice, or a function call."""

import json
import logging
from collections.abc import Callable, Container, Mapping
from dataclasses import replace

from streaming.audio_path import Sound
from streaming.batching import Work
from streaming.chat import ChatTemplate
from streaming.constrained import SchemaWriter
from streaming.decoder import ContextFullError, LanguageModel, TokenSequence
from streaming.events import (
    ContextMessage,
    EngineEvent,
    FinishReason,
    RespondOptions,
    TextDelta,
    ToolArgumentsDelta,
    ToolCallReady,
    ToolSpec,
    Usage,
)
from streaming.sampling import Sampler, Sampling
from streaming.speaking import Speaker
from streaming.text import Clause, ClauseCutter, TextDecoder

__all__ = ["Reply", "Saying", "Writer"]

log = logging.getLogger(__name__)

_RESERVE = 512
"""Positions of the context kept for the reply itself: about two minutes of speech."""


class Writer:
    """What every reply of an engine shares: the language model, its template, its choices."""

    def __init__(self, model: LanguageModel, template: ChatTemplate, sampling: Sampling) -> None:
        self.model = model
        self.template = template
        self.sampling = sampling
        self.texts = model.token_texts()
        self.schemas = SchemaWriter(model)

    @property
    def budget(self) -> int:
        """Positions a prompt may have."""
        return self.model.context - _RESERVE


class Reply:
    """A response on its way; `work` makes it. Ends, whatever happens, in one `ResponseFinished` by the speaker. A speculation stops at its
    first clause until it is adopted."""

    def __init__(
        self, writer: Writer, sequence: TokenSequence, sampler: Sampler, speaker: Speaker, tell: Callable[[EngineEvent], None],
        response_id: str, options: RespondOptions, context: tuple[ContextMessage, ...], texts: Mapping[str, str],
        sounds: Mapping[str, Sound], *, speculative: bool = False,
    ) -> None:  # fmt: skip
        self._writer = writer
        self._sequence = sequence
        self._sampler = sampler
        self._speaker = speaker
        self._tell = tell
        self._response_id = response_id
        self._options = options
        self._context = context
        self._texts = texts
        self._sounds = sounds
        # Its prompt has been made: what changes now changes nothing in it.
        self._prompted = False
        self._usage = Usage()
        # Whether it may still be dropped.
        self.speculative = speculative
        self._clauses = 0
        # Something has been told of it.
        self._worded = False
        # The end has been handed to the voice: nothing is left to do here.
        self.done = False
        self.work = self._run()

    @property
    def held(self) -> bool:
        """Whether it is a speculation that has gone as far as it may."""
        return self.speculative and self._clauses > 0

    @property
    def audible(self) -> bool:
        """Whether it is spoken."""
        return self._options.audio

    @property
    def written(self) -> int:
        """Tokens of it so far."""
        prompt = self._usage.input_tokens
        return max(0, len(self._sequence.tokens) - prompt) if prompt else 0

    @property
    def voice_wants_words(self) -> bool:
        """Whether the voice has no clause in hand but the one it speaks."""
        return not self._speaker.waiting

    @property
    def unheard(self) -> list[str]:
        """The items of its context whose sound it waits for."""
        if self._prompted or not self._sounds:
            return []
        items = [message.item_id for message in self._context]
        return [item_id for item_id in items if item_id in self._sounds and not self._sounds[item_id].concluded]

    def ready(self, waiting: Container[str]) -> bool:
        """Whether all sound it needs is there, and no transcript it needs is still `waiting` to be finished."""
        return self._prompted or (not self.unheard and not self.reads(waiting))

    def reads(self, waiting: Container[str]) -> bool:
        """Whether it needs a transcript that is `waiting` to be finished."""
        return not self._prompted and any(self._needs_words(one) for one in self._context if one.item_id in waiting)

    def _needs_words(self, message: ContextMessage) -> bool:
        """Whether a message is told by its transcript: where its sound is not there, or gave no rows."""
        path, sound = self._writer.template.path, self._sounds.get(message.item_id)
        heard = sound is not None and not (sound.concluded and not sound.tokens)
        return message.text is None and (path is None or path.words or not heard)

    def abort(self) -> None:
        """Stop. The end is told when the voice has let go."""
        self.work.close()
        self._speaker.abort()
        self._speaker.finish(FinishReason.ABORTED, None, self._usage)

    def _run(self) -> Work[None]:
        try:
            reason = yield from self._reply()
            self._speaker.finish(reason, None, self._usage)
        except ContextFullError as error:
            self._speaker.finish(FinishReason.ERROR, str(error), self._usage)
        except Exception as error:
            log.exception("response %s failed", self._response_id)
            self._sequence.evict()  # what broke it may stand in the keys and values, or be what they take
            self._speaker.finish(FinishReason.ERROR, f"{type(error).__name__}: {error}", self._usage)
        finally:
            self.done = True

    def _reply(self) -> Work[FinishReason]:
        tool = _forced(self._options)
        context = self._context if tool is None else (*self._context, _asked(tool))
        prompt = self._writer.template.reply_prompt(context, self._texts, self._writer.budget, self._sounds)
        self._prompted = True
        self._usage = Usage(len(prompt.tokens), self._sequence.common(prompt.tokens))
        yield from self._writer.model.sync(self._sequence, prompt)
        if tool is not None:
            yield from self._call(tool)
            return FinishReason.TOOL_CALLS
        return (yield from self._speak())

    def _speak(self) -> Work[FinishReason]:
        """Decode to the end of the message, or to the limit."""
        cutter, decoder = ClauseCutter(), TextDecoder(self._writer.texts)
        limit = self._options.max_output_tokens or self._writer.model.context
        sampling = self._sampling()
        said: list[int] = []
        reason = FinishReason.LENGTH
        while len(said) < limit and not self._speaker.failed:
            assert self._sequence.logits is not None
            token = self._sampler.choose(self._sequence.logits, said, sampling)
            if token in self._writer.model.end_tokens:
                reason = FinishReason.STOP
                break
            said.append(token)
            self._usage = replace(self._usage, output_tokens=len(said))
            self._write(cutter, decoder.push(token))
            if len(self._sequence.tokens) + 1 >= self._writer.model.context:
                break
            yield from self._writer.model.append(self._sequence, token)
        for clause in cutter.flush():
            self._say(clause)
        return reason

    def _write(self, cutter: ClauseCutter, text: str) -> None:
        if not self._worded:
            text = text.lstrip()  # SentencePiece begins a text with a space
        if text:
            self._worded = True
            self._tell(TextDelta(self._response_id, text))
            for clause in cutter.push(text):
                self._say(clause)

    def _say(self, clause: Clause) -> None:
        self._clauses += 1
        self._speaker.say(clause)

    def _call(self, tool: ToolSpec) -> Work[None]:
        schema = json.loads(tool.parameters)
        before = len(self._sequence.tokens)

        def tell(delta: str) -> None:
            self._tell(ToolArgumentsDelta(self._response_id, 0, tool.name, delta))

        arguments = yield from self._writer.schemas.write(self._sequence, schema, tell)
        self._usage = replace(self._usage, output_tokens=len(self._sequence.tokens) - before)
        self._tell(ToolCallReady(self._response_id, 0, tool.name, arguments))

    def _sampling(self) -> Sampling:
        if self._options.temperature is None:
            return self._writer.sampling
        return replace(self._writer.sampling, temperature=min(2.0, max(0.0, self._options.temperature)))


class Saying:
    """A response whose words come from outside: it needs no model."""

    def __init__(self, speaker: Speaker, tell: Callable[[EngineEvent], None], response_id: str) -> None:
        self._speaker = speaker
        self._tell = tell
        self._response_id = response_id
        self._cutter = ClauseCutter()

    def say(self, text: str) -> None:
        """Speak `text` to its end, whatever follows."""
        if text:
            self._tell(TextDelta(self._response_id, text))
        for clause in (*self._cutter.push(text), *self._cutter.flush()):
            self._speaker.say(clause)

    def finish(self) -> None:
        """Nothing follows."""
        self._speaker.finish(FinishReason.STOP)

    def abort(self) -> None:
        """Stop. The end is told when the voice has let go."""
        self._speaker.abort()
        self._speaker.finish(FinishReason.ABORTED)


def _forced(options: RespondOptions) -> ToolSpec | None:
    """The function that must be called, if one must: the one named, or under "required" the first."""
    if options.tool_choice in ("auto", "none"):
        return None
    return next((tool for tool in options.tools if options.tool_choice in (tool.name, "required")), None)


def _asked(tool: ToolSpec) -> ContextMessage:
    """What a model without a tool template is told of the function it must call."""
    text = (
        f"Call the function {tool.name} ({tool.description or 'no description'}). Take its arguments from what I said, "
        f"as JSON that follows this schema: {tool.parameters}"
    )
    return ContextMessage("user", "", text)
