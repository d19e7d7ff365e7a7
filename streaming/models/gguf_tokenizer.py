"""The tokenizer that travels in a GGUF file: byte-level BPE ("gpt2") or SentencePiece's BPE ("llama")."""

from collections.abc import Callable
from typing import Final

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from streaming.models.ctranslate2 import WeightsError
from streaming.models.gguf_file import GgufFile
from streaming.models.ranked_tokenizer import byte_words

__all__ = ["QWEN_WORDS", "gguf_tokenizer"]

_CONTROL: Final = (2, 3, 4, 5)
"""`tokenizer.ggml.token_type` of what is no text: unknown, control, user-defined, and unused, which fills a vocabulary up."""

_BYTE: Final = 6
"""The same of SentencePiece's bytes, `<0x0A>`."""

_SPACE: Final = "\u2581"
"""SentencePiece's letter for a space."""


_WORDS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+"
_REST: Final = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

QWEN_WORDS: Final = rf"{_WORDS}|\p{{N}}|{_REST}"
"""How every Qwen cuts text."""

_PRE_TOKENIZERS: Final[dict[str, Callable[[], pre_tokenizers.PreTokenizer]]] = {
    "smollm": lambda: pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)]
    ),
    "qwen2": lambda: byte_words(QWEN_WORDS),
    "llama-bpe": lambda: byte_words(rf"{_WORDS}|\p{{N}}{{1,3}}|{_REST}"),
}
"""How text is cut before byte-pair merges, by `tokenizer.ggml.pre`."""

_WHOLE_FIRST: Final = ("llama-bpe",)
"""Where a word that is a token is that token, whatever the merges make of it."""


def gguf_tokenizer(file: GgufFile) -> Tokenizer:
    """The tokenizer of the file. Raises WeightsError for a kind that is not known here, and one that does not fit itself."""
    tokens, kinds = file.texts("tokenizer.ggml.tokens"), file.numbers("tokenizer.ggml.token_type")
    if len(kinds) != len(tokens):
        raise WeightsError(f"{file.path}: {len(tokens)} tokens have {len(kinds)} types")
    kind = file.text("tokenizer.ggml.model")
    if kind == "gpt2":
        tokenizer = _byte_level(file, tokens)
    elif kind == "llama":
        tokenizer = _sentence_piece(file, tokens, kinds)
    else:
        raise WeightsError(f"{file.path}: the tokenizer {kind} is not known here (known: gpt2, llama)")
    special = [AddedToken(token, special=True, normalized=False) for token, kind in zip(tokens, kinds, strict=True) if kind in _CONTROL]
    tokenizer.add_special_tokens(special)
    return tokenizer


def _byte_level(file: GgufFile, tokens: list[str]) -> Tokenizer:
    pre = file.text("tokenizer.ggml.pre")
    if pre not in _PRE_TOKENIZERS:
        raise WeightsError(f"{file.path}: the tokenizer gpt2/{pre} is not known here (known: {', '.join(_PRE_TOKENIZERS)})")
    merges = [(first, second) for first, _, second in (merge.partition(" ") for merge in file.texts("tokenizer.ggml.merges"))]
    vocabulary = {token: index for index, token in enumerate(tokens)}
    try:
        tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in _WHOLE_FIRST))
    except Exception as error:  # tokenizers raises nothing narrower
        raise WeightsError(f"{file.path}: its merges are not of its tokens ({error})") from error
    tokenizer.pre_tokenizer = _PRE_TOKENIZERS[pre]()
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_piece(file: GgufFile, tokens: list[str], kinds: list[int]) -> Tokenizer:
    """SentencePiece has no merges: of all pairs that are a token it joins the one with the best score. So every way to cut a token into
    two tokens is a merge, the best scores first."""
    scores = file.scores("tokenizer.ggml.scores")
    if len(scores) != len(tokens):
        raise WeightsError(f"{file.path}: {len(tokens)} tokens have {len(scores)} scores")
    vocabulary = {token: index for index, token in enumerate(tokens)}
    plain = {token: scores[index] for token, index in vocabulary.items() if kinds[index] not in (*_CONTROL, _BYTE)}
    merges = [
        (score, vocabulary[token], token[:at], token[at:])
        for token, score in plain.items()
        for at in range(1, len(token))
        if token[:at] in plain and token[at:] in plain
    ]
    merges.sort(key=lambda merge: (-merge[0], merge[1], vocabulary[merge[2]]))
    unknown = tokens[int(file.number("tokenizer.ggml.unknown_token_id", 0))]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, [(first, second) for *_, first, second in merges], unk_token=unknown, fuse_unk=True, byte_fallback=True)
    )
    prefixed = not file.has("tokenizer.ggml.add_space_prefix") or file.flag("tokenizer.ggml.add_space_prefix")
    spaces = normalizers.Replace(" ", _SPACE)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), spaces]) if prefixed else spaces
    joined = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    tokenizer.decoder = decoders.Sequence([*joined, decoders.Strip(" ", 1, 0)] if prefixed else joined)
    return tokenizer
