"""Any causal language model that `transformers` runs, in the place of `streaming.models.llama`: for architectures that we have not written.

One sequence at a time: stretches of a step run one after the other, each with a cache of its own, which is cropped where a sequence is
rewound. Layers with a sliding window keep all they have seen, so that they can be. A model with a recurrent state can't be, and is refused.
Needs the extra `transformers`; the folder is Hugging Face's.
"""

import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final, cast

import torch
from torch import Tensor

from streaming.kv import KeyValueCache
from streaming.models.ctranslate2 import WeightsError
from streaming.models.llama import Stretch
from streaming.models.pretrained import load_pretrained, need_transformers

if TYPE_CHECKING:
    from transformers import DynamicCache, PreTrainedModel

__all__ = ["TransformersCache", "TransformersDecoder", "load_transformers"]


class TransformersCache(KeyValueCache):
    """Keys and values as `transformers` holds them, which grow with every step: no room is kept."""

    def __init__(self, capacity: int, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(0, 1, 1, capacity, dtype, device)
        self.held: DynamicCache = _empty()

    @property
    def bytes(self) -> int:
        return sum(part.nbytes for part in self._parts())

    @torch.inference_mode()
    def reserve(self, end: int) -> None:
        if end > self.capacity:
            raise ValueError(f"position {end} is beyond the {self.capacity} this sequence may have")

    def rewind(self, position: int) -> None:
        """Hold the first `position` positions. Raises ValueError where there are fewer."""
        surplus = self.held.get_seq_length() - position
        if surplus < 0:
            raise ValueError(f"position {position} is behind the {position + surplus} that are held")
        if surplus:
            self.held.crop(-surplus)

    def release(self) -> None:
        self.held = _empty()

    @torch.inference_mode()
    def snapshot(self, end: int) -> list[Tensor]:
        return [part[:, :, :end].clone() for part in self._parts()]

    @torch.inference_mode()
    def restore(self, snapshot: list[Tensor]) -> None:
        self.held = _empty()
        for layer, (keys, values) in enumerate(zip(snapshot[::2], snapshot[1::2], strict=True)):
            self.held.update(keys.clone(), values.clone(), layer)

    def _parts(self) -> list[Tensor]:
        """Keys and values of every layer, [1, heads, positions, width] each."""
        from transformers.cache_utils import CacheLayerMixin

        layers = [layer for layer in self.held.layers if isinstance(layer, CacheLayerMixin) and layer.is_initialized]
        return [part for layer in layers for part in (layer.keys, layer.values) if part is not None]


class TransformersDecoder:
    """`streaming.decoder.Decoder` with a model of `transformers`."""

    def __init__(self, model: "PreTrainedModel") -> None:
        """Raises WeightsError for a model whose sequences can't be rewound, or that says not how long they may be."""
        config = model.config.get_text_config(decoder=True)
        recurrent = model._is_stateful or not _empty(config).is_croppable
        if recurrent:
            raise WeightsError(f"a {config.model_type} model has a state that can't be rewound, and a caller may interrupt at any word")
        context, vocabulary = getattr(config, "max_position_embeddings", None), config.vocab_size
        if not isinstance(context, int):
            raise WeightsError(f"the config of a {config.model_type} model says not how many positions it has")
        self.context: Final = context
        self.vocabulary: Final[int] = vocabulary
        self.device: Final[torch.device] = model.device
        self._model = model
        # Most models compute the last logits only, where they are told.
        self._last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}

    @property
    def embedding(self) -> Tensor:
        """What stands for each token, [vocabulary, width]."""
        return cast("Tensor", self._model.get_input_embeddings().weight)

    def new_cache(self, capacity: int) -> KeyValueCache:
        """An empty cache for `capacity` positions."""
        return TransformersCache(capacity, self._model.dtype, self.device)

    @torch.inference_mode()
    def forward(self, stretches: Sequence[Stretch]) -> list[Tensor | None]:
        """As `Llama.forward`, one after the other."""
        for stretch in stretches:
            if not stretch.tokens or stretch.end > self.context:
                raise ValueError(f"{len(stretch.tokens)} tokens at position {stretch.start} of {self.context}")
            stretch.cache.reserve(stretch.end)
        return [self._run(stretch) for stretch in stretches]

    def _run(self, stretch: Stretch) -> Tensor | None:
        cache = stretch.cache
        assert isinstance(cache, TransformersCache)
        cache.rewind(stretch.start)
        tokens = torch.tensor([list(stretch.tokens)], device=self.device)
        if stretch.embedded is None:
            computed = self._model(input_ids=tokens, past_key_values=cache.held, use_cache=True, **self._last)
        else:
            rows = self._model.get_input_embeddings()(tokens.clamp(min=0))
            rows[tokens < 0] = stretch.embedded.to(rows)
            computed = self._model(inputs_embeds=rows, past_key_values=cache.held, use_cache=True, **self._last)
        logits: Tensor = computed.logits[0, -1]
        return logits.float().cpu() if stretch.scored else None


def load_transformers(folder: Path, dtype: torch.dtype, device: torch.device | str) -> TransformersDecoder:
    """The causal language model in a folder of Hugging Face's layout. Raises WeightsError, naming the folder, for what is none, or can't be
    run here, and OSError where a file is missing."""
    need_transformers(f"the language model in {folder}")
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except ValueError as error:
        raise WeightsError(f"{folder}: config.json names an architecture that transformers does not know ({error})") from error
    reference = AutoModelForCausalLM._model_mapping.get(type(config), None)
    if reference is None:
        raise WeightsError(f"{folder}: a {config.model_type} model is no causal language model")
    model = load_pretrained(folder, cast("type[PreTrainedModel]", reference), (), dtype, str(device))
    try:
        return TransformersDecoder(model)
    except WeightsError as error:
        raise WeightsError(f"{folder}: {error}") from error


def _empty(config: object = None) -> "DynamicCache":
    """A cache without positions. With a config it has that model's kinds of layers, without one all layers keep all."""
    from transformers import DynamicCache

    return DynamicCache(config=config)  # type: ignore[arg-type]
