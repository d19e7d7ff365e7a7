"""Models small enough for every test, with random weights: a speech recogniser of 60 words, and a language model of 300 tokens; an engine
of them and the conversations it has; and a way to write ONNX models by hand."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE, WordLevel
from tokenizers.trainers import BpeTrainer

from streaming.audio import AudioFrame, Samples
from streaming.audio_path import AudioPath
from streaming.batching import Call, Work
from streaming.chat import ChatTemplate
from streaming.decoder import LlamaLanguageModel, TokenSequence
from streaming.doors import EngineLoad, SessionEvent, SynthesisedAudio
from streaming.engine import Parts, SpeechEngine
from streaming.events import (
    CommitTurn,
    ContextMessage,
    Drop,
    EngineEvent,
    Respond,
    RespondOptions,
    ResponseFinished,
    SessionSpec,
    SetHistory,
    Speculate,
    SpeechStarted,
    StartTurn,
    TranscriptDone,
    TranscriptProvisional,
    WordMark,
)
from streaming.frame_rows import FrameRows
from streaming.models.llama import Llama, LlamaShape
from streaming.models.pocket_projector import Pieces, PocketProjector, ProjectorNetwork, ProjectorShape
from streaming.models.slots import SlottedLlama
from streaming.models.weights import Matrix, assemble
from streaming.models.whisper import Whisper, WhisperShape
from streaming.models.whisper_vocabulary import WhisperVocabulary
from streaming.recogniser import Recogniser
from streaming.replying import Writer
from streaming.sampling import Sampling
from streaming.tts import Speech
from streaming.vad import VadState

COMMANDS = ("endoftext", "startoftranscript", "en", "de", "transcribe", "nocaptions", "notimestamps", "0.00")


@pytest.fixture(scope="session")
def tiny_whisper() -> Whisper:
    """Whisper's lengths (30 s, 448 tokens), one narrow layer a side, float32. What it says is nonsense, but always the same."""
    torch.manual_seed(11)
    shape = WhisperShape(
        mels=80, width=16, heads=2, encoder_layers=2, decoder_layers=1, vocabulary=68, audio_positions=1500, text_positions=448
    )
    model = Whisper(shape).eval().requires_grad_(False)
    for parameter in model.parameters():
        parameter.data.normal_(0.0, 0.4)
    # Without these it says one word for ever: what reads words writes them too, and a bias of the last norm prefers one word.
    model.decoder.embeddings.data.mul_(0.5)
    model.decoder.norm.bias.data.zero_()
    model.decoder.positions.data.mul_(4.0)
    return model


@pytest.fixture(scope="session")
def tiny_recogniser(tiny_whisper: Whisper) -> Recogniser:
    """Words are "w0" to "w59"; w7 is never said."""
    words = [f"w{n}" for n in range(60)] + [f"<|{command}|>" for command in COMMANDS]
    tokenizer = Tokenizer(WordLevel({word: n for n, word in enumerate(words)}, unk_token="w0"))
    tokenizer.add_special_tokens(words[60:])
    return Recogniser(tiny_whisper, WhisperVocabulary(tokenizer, 68, suppressed=(7,), suppressed_first=(3, 60)))


@pytest.fixture(scope="session")
def tiny_language_model() -> LlamaLanguageModel:
    """A random decoder, float32, 256 positions, with a byte-level tokenizer of 300 tokens learned from a few sentences. What it says is
    nonsense, but always the same."""
    return random_language_model(256)


@pytest.fixture(scope="session")
def tiny_parts(tiny_recogniser: Recogniser) -> Parts:
    """Everything an engine needs, tiny: a VAD that hears loudness, a score that is always 0.9, a voice of one tone a word."""
    model = random_language_model(1_536)
    return Parts(LoudnessVad(), SureTurns(), tiny_recogniser, Writer(model, ChatTemplate(model), Sampling()), ToneVoice())


@pytest.fixture(scope="session")
def slotted_parts(tiny_parts: Parts) -> Parts:
    """The same with a decoder whose sequences live in slots."""
    model = random_language_model(512, SlottedLlama)
    return replace(tiny_parts, writer=Writer(model, ChatTemplate(model), Sampling()))


@pytest.fixture(scope="session")
def hearing_parts(tiny_parts: Parts) -> Parts:
    """The same with a language model that hears: a row every 80 ms."""
    model = random_language_model(1_536)
    template = ChatTemplate(model, path=AudioPath(TinyEncoder(32), before="<", after=">"))
    return replace(tiny_parts, writer=Writer(model, template, Sampling()))


@pytest.fixture(scope="session")
def projecting_parts(tiny_parts: Parts) -> Parts:
    """The same with one that hears by a projector behind the recogniser's encoder: a row for every piece that it believes to hear."""
    model = random_language_model(1_536)
    template = ChatTemplate(model, path=AudioPath(FrameRows(random_projector(model.embedding)), before="<", after=">"))
    return replace(tiny_parts, writer=Writer(model, template, Sampling()))


def random_projector(embedding: torch.Tensor) -> PocketProjector:
    """From frames of the tiny Whisper."""
    width = embedding.shape[1]
    shape = ProjectorShape(frame_width=16, stack=4, width=8, inner=12, layers=1, heads=2, window=9, embedding_width=width, sound_width=2)
    with torch.random.fork_rng():
        torch.manual_seed(4)
        network = ProjectorNetwork(shape)
        network.out.weight.data.mul_(6)
        tokens = torch.arange(10, 70)
        places = torch.cat((embedding[tokens], torch.randn(60, 2)), 1)
        pieces = Pieces(tokens, tokens, tokens, torch.zeros(60, dtype=torch.bool), places)
        return PocketProjector(network.requires_grad_(False), pieces, embedding)


@dataclass(eq=False)
class Look:
    """A `Call` of a `TinyEncoder`: windows (n, samples) to rows (n, width)."""

    station: "TinyEncoder"
    pcm: Samples
    found: torch.Tensor | None = None

    @property
    def rows(self) -> int:
        return len(self.pcm)


class TinyEncoder:
    """An `AudioEncoder` of one random product. A row is 80 ms of sound and 320 ms behind it, so the last four are provisional; five are
    committed at a time."""

    SIZE, AHEAD, BLOCK = 1_280, 4, 5
    rows_at_once = 64
    row_samples = SIZE

    def __init__(self, width: int) -> None:
        self.width = width
        self.failing = False
        generator = torch.Generator().manual_seed(3)
        self._weights = 0.05 * torch.randn(self.SIZE * (1 + self.AHEAD), width, generator=generator)

    def stream(self) -> "TinyStream":
        return TinyStream(self)

    def run(self, calls: Sequence[Call]) -> None:
        if self.failing:
            raise RuntimeError("out of memory")
        for call in calls:
            assert isinstance(call, Look)
            # One product a row: a product of many sums in another order.
            call.found = torch.stack([torch.from_numpy(window) @ self._weights for window in call.pcm])


class TinyStream:
    """An `AudioStream` of a `TinyEncoder`."""

    def __init__(self, encoder: TinyEncoder) -> None:
        self._encoder = encoder
        self._pcm = np.zeros(0, np.float32)
        self.committed = 0

    def push(self, pcm: Samples) -> None:
        self._pcm = np.concatenate((self._pcm, pcm))

    def _rows(self, start: int, end: int) -> Work[torch.Tensor]:
        size, reach = self._encoder.SIZE, self._encoder.AHEAD * self._encoder.SIZE
        pcm = np.pad(self._pcm, (0, max(0, end * size + reach - len(self._pcm))))
        look = Look(self._encoder, np.stack([pcm[index * size : (index + 1) * size + reach] for index in range(start, end)]))
        yield look
        assert look.found is not None
        return look.found

    def commit(self) -> Work[torch.Tensor | None]:
        start, end = self.committed, self.committed + self._encoder.BLOCK
        if len(self._pcm) < (end + self._encoder.AHEAD) * self._encoder.SIZE:
            return None
        rows = yield from self._rows(start, end)
        self.committed = end
        return rows

    def provisional(self) -> Work[torch.Tensor]:
        end = -(-len(self._pcm) // self._encoder.SIZE)
        if end == self.committed:
            return torch.zeros(0, self._encoder.width)
        return (yield from self._rows(self.committed, end))


class LoudnessVad:
    """Speech is what is louder than 0.01."""

    def step(self, windows: Samples, states: Sequence[VadState]) -> tuple[list[float], list[VadState]]:
        return [float(np.sqrt(np.mean(window**2)) > 0.01) for window in windows], list(states)


class SureTurns:
    """Every pause is scored 0.9."""

    def score(self, _pcm: Samples) -> float:
        return 0.9


class ToneVoice:
    """A clause is 100 samples a word, each of them the word's length."""

    def speak(self, text: str, _rate: int, _speed: float = 1.0, *, prompt: bool = False, name: str = "") -> Iterator[Speech]:
        del prompt, name
        words = text.split()
        if words:
            pcm = np.concatenate([np.full(100, len(word), np.int16) for word in words])
            yield Speech(pcm, (WordMark(len(text), len(pcm)),), False)


def random_language_model(context: int, decoder: type[Llama] = Llama) -> LlamaLanguageModel:
    """A random decoder with a byte-level tokenizer; the same weights for every context and kind."""
    tokenizer = Tokenizer(BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = BpeTrainer(vocab_size=300, special_tokens=special, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(
        ["system user assistant", "What is the weather in Paris today?", "It is the best time of the year."], trainer
    )
    shape = LlamaShape(vocabulary=304, layers=2, width=32, hidden=48, heads=4, kv_heads=2, head_width=8, context=context)
    generator = torch.Generator().manual_seed(7)

    def find(name: str) -> Matrix | None:
        kind = name.split(".")[-2]
        sizes = {
            "embed_tokens": (304, 32), "q_proj": (32, 32), "k_proj": (16, 32), "v_proj": (16, 32), "o_proj": (32, 32),
            "gate_proj": (48, 32), "up_proj": (48, 32), "down_proj": (32, 48),
        }  # fmt: skip
        if kind in ("lm_head",) or name.endswith(".bias"):
            return None
        return Matrix(torch.randn(sizes[kind], generator=generator) * 0.3 if kind in sizes else torch.ones(32))

    return LlamaLanguageModel(decoder(shape, assemble(shape, find, torch.float32)), tokenizer, context=context)


@dataclass
class Dialogue:
    """One engine, its lanes inline, and what came of each of its sessions; behaves as the conversation would."""

    brief: ClassVar = RespondOptions(max_output_tokens=24)

    parts: Parts
    speculate: bool = False
    kv_bytes: int = 1 << 30
    engine: SpeechEngine = field(init=False)
    events: dict[str, list[EngineEvent]] = field(default_factory=dict)
    sound: dict[str, list[int]] = field(default_factory=dict)
    at: dict[str, int] = field(default_factory=dict)
    prepared: dict[str, str] = field(default_factory=dict)
    history: dict[str, tuple[ContextMessage, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.engine = SpeechEngine(self.parts, threaded=False, clock=lambda: 0.0, kv_bytes=self.kv_bytes)

    @staticmethod
    def turn(seed: int, words: int = 3) -> Samples:
        """Bursts of noise with short pauses between them, then a long one."""
        noise = np.random.default_rng(seed)
        parts = [np.zeros(2_048, np.float32)]
        for _ in range(words):
            parts += [(noise.standard_normal(512 * int(noise.integers(8, 40))) * 0.1).astype(np.float32), np.zeros(512 * 5, np.float32)]
        return np.concatenate([*parts, np.zeros(512 * 12, np.float32)])

    def open(self, *sessions: str) -> None:
        for session in sessions:
            self.engine.open(session, SessionSpec(seed=5))
            self.events[session], self.sound[session], self.at[session], self.history[session] = [], [], 0, ()

    def steps(self, most: int = 100_000) -> int:
        """How many steps there were to make."""
        for made in range(most):
            if not self.engine.busy():
                return made
            for output in self.engine.step():
                if isinstance(output, SynthesisedAudio):
                    self.sound[output.session_id] += output.pcm.tolist()
                elif not isinstance(output, EngineLoad):
                    self._take(output)
        return most

    def _take(self, output: SessionEvent) -> None:
        session, event = output.session_id, output.event
        self.events[session].append(event)
        if isinstance(event, SpeechStarted) and session in self.prepared:
            self.engine.order(session, Drop(self.prepared.pop(session)))
        if isinstance(event, TranscriptProvisional) and event.text and self.speculate:
            response_id = f"speculation {len(self.events[session])}"
            self.prepared[session] = response_id
            self.engine.order(session, Speculate(response_id, event.item_id, event.text, self.brief))

    def feed(self, session: str, pcm: Samples) -> None:
        self.engine.feed(session, AudioFrame(pcm, self.at[session]))
        self.at[session] += len(pcm)

    def speak(self, session: str, item: str, pcm: Samples, cuts: list[int]) -> None:
        start = self.at[session]
        self.engine.order(session, StartTurn(item, start))
        for part in np.split(pcm, sorted(cut % len(pcm) for cut in cuts)):
            self.feed(session, part)
            self.steps()

    def commit(self, session: str, item: str, start: int) -> None:
        if (response_id := self.prepared.pop(session, None)) is not None:
            self.engine.order(session, Drop(response_id))
        self.engine.order(session, CommitTurn(item, start, self.at[session]))
        self.history[session] += (ContextMessage("user", item, None),)
        self.engine.order(session, SetHistory(self.history[session]))

    def ask(self, session: str, item: str, pcm: Samples, cuts: list[int], response_id: str) -> None:
        start = self.at[session]
        self.speak(session, item, pcm, cuts)
        self.commit(session, item, start)
        self.engine.order(session, Respond(response_id, self.brief))
        self.steps()

    def told(self, session: str, response_id: str) -> list[EngineEvent]:
        return [event for event in self.events[session] if getattr(event, "response_id", "") == response_id]

    def transcripts(self, session: str) -> list[str]:
        return [event.text for event in self.events[session] if isinstance(event, TranscriptDone)]

    def sequence(self, session: str) -> TokenSequence:
        return self.engine._sessions[session].sequence

    @classmethod
    def check_together_as_alone(cls, parts: Parts) -> None:
        """Two sessions that are heard together hold the tokens they hold alone, rows of sound among them."""
        together = cls(parts)
        together.open("a", "b")
        for number, name in enumerate("ab"):
            together.ask(name, "i", cls.turn(number), [], "r")
        for number, name in enumerate("ab"):
            alone = cls(parts)
            alone.open(name)
            alone.ask(name, "i", cls.turn(number), [], "r")
            assert [event.error for event in alone.events[name] if isinstance(event, ResponseFinished)] == [None]
            assert min(alone.sequence(name).tokens) < 0
            assert together.sequence(name).tokens == alone.sequence(name).tokens


@pytest.fixture(scope="session")
def talk() -> type[Dialogue]:
    """The class `Dialogue`."""
    return Dialogue


class Onnx:
    """Writes small ONNX models, byte by byte (onnx.proto3)."""

    # IR version 8; operator set 15.
    HEAD, TAIL = b"\x08\x08", b"\x42\x02\x10\x0f"

    def field(self, number: int, payload: bytes) -> bytes:
        """A length-delimited field of at most 16 kB."""
        assert len(payload) < 1 << 14
        size = bytes((len(payload),)) if len(payload) < 128 else bytes((len(payload) & 127 | 128, len(payload) >> 7))
        return bytes((number << 3 | 2,)) + size + payload

    def node(self, name: str, kind: str, inputs: str, outputs: str) -> bytes:
        """A node; its tensors are separated by spaces."""
        tensors = [(1, each) for each in inputs.split()] + [(2, each) for each in outputs.split()]
        return self.field(1, b"".join(self.field(number, each.encode()) for number, each in (*tensors, (3, name), (4, kind))))

    def weight(self, name: str, value: float) -> bytes:
        """An initializer: a float scalar (data_type 1, raw_data)."""
        return self.field(5, b"\x10\x01" + self.field(9, np.float32(value).tobytes()) + self.field(8, name.encode()))

    def value(self, number: int, name: str) -> bytes:
        """The declaration of a float tensor: an input (11), an output (12) or one between (13)."""
        return self.field(number, self.field(1, name.encode()) + self.field(2, b"\x0a\x02\x08\x01"))

    def model(self, *graph: bytes) -> bytes:
        """A model of these nodes, weights and declarations."""
        return self.HEAD + self.field(7, self.field(2, b"g") + b"".join(graph)) + self.TAIL


@pytest.fixture(scope="session")
def onnx() -> Onnx:
    return Onnx()
