"""The torch model of teacher and student: encoder, pooling and heads."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from ...errors import ModelError
from ..recipe import Pooling


class Outputs(NamedTuple):
    """Logits [batch, labels] and embedding: pooled [batch, hidden], or projected and L2-normalised [batch, dim]."""

    logits: Tensor
    embedding: Tensor


class Detailed(NamedTuple):
    """Outputs with details that only objectives use.

    ``projection`` is the embedding before its normalisation. ``attentions`` has the attention maps of each layer,
    [batch, heads, tokens, tokens]; it is empty without ``output_attentions=True``.
    """

    logits: Tensor
    embedding: Tensor
    projection: Tensor
    attentions: tuple[Tensor, ...]


@dataclass(frozen=True)
class HeadConfig:
    """Pooling and heads of a model.

    Args:
        num_labels: number of outputs of the classifier.
        pooling: ``mean`` over the attention mask, or ``cls`` for the first token.
        embedding_dim: dimension of the embedding; None if the embedding is the pooled vector.
        dropout: on the pooled vector before the classifier, while training.
        projection_bias: whether the projection to the embedding has a bias.
        all_layers: whether the projection reads the concatenated mean-pooled states of all layers, and not only the
            pooled state of the last layer; the classifier always reads the last layer.
    """

    num_labels: int
    pooling: Pooling = "mean"
    embedding_dim: int | None = None
    dropout: float = 0.1
    projection_bias: bool = False
    all_layers: bool = False


class EncoderClassifier(nn.Module):
    """A transformer encoder with a linear classifier and, in a student, a linear projection to the keys' space."""

    def __init__(self, encoder: PreTrainedModel, head: HeadConfig) -> None:
        super().__init__()
        hidden = encoder.config.hidden_size
        self.encoder = encoder
        self.head = head
        self.dropout = nn.Dropout(head.dropout)
        self.classifier = nn.Linear(hidden, head.num_labels)
        wide = hidden * encoder.config.num_hidden_layers if head.all_layers else hidden
        dim, bias = head.embedding_dim, head.projection_bias
        self.projection = None if dim is None else nn.Linear(wide, dim, bias=bias)

    def forward(self, *, detailed: bool = False, **inputs: Any) -> Outputs | Detailed:
        """Compute the outputs of a batch.

        Args:
            detailed: return Detailed instead of Outputs.
            **inputs: the tokenizer's outputs, each [batch, tokens], or ``inputs_embeds`` instead of the ids; other
                options of the encoder.
        """
        states = self.encoder(**inputs, output_hidden_states=self.head.all_layers, return_dict=True)
        pooled = pool(states.last_hidden_state, inputs["attention_mask"], self.head.pooling)
        logits = self.classifier(self.dropout(pooled))
        read = pool_layers(states, inputs["attention_mask"]) if self.head.all_layers else pooled
        projected = read if self.projection is None else self.projection(read)
        embedding = read if self.projection is None else nn.functional.normalize(projected, dim=-1)
        if detailed:
            return Detailed(logits, embedding, projected, tuple(states.get("attentions") or ()))
        return Outputs(logits, embedding)

    def save(self, folder: Path) -> None:
        """Write the encoder as a Hugging Face folder, and the heads to the same folder."""
        self.encoder.save_pretrained(folder)
        heads = {
            name: value.contiguous() for name, value in self.state_dict().items() if not name.startswith("encoder.")
        }
        save_file(heads, str(folder / "heads.safetensors"))
        (folder / "heads.json").write_text(json.dumps(asdict(self.head)), encoding="utf-8")

    @classmethod
    def load(cls, folder: Path, attention: str | None = None) -> EncoderClassifier:
        """Load a saved model in float32 and evaluation mode.

        Args:
            folder: written by ``save``.
            attention: the attention implementation, see ``load_encoder``.

        Raises:
            ModelError: the encoder cannot be loaded, or the heads do not fit it.
        """
        head = HeadConfig(**json.loads((folder / "heads.json").read_text(encoding="utf-8")))
        model = cls(load_encoder(str(folder), attention), head)
        missing, unexpected = model.load_state_dict(load_file(str(folder / "heads.safetensors")), strict=False)
        missing = [name for name in missing if not name.startswith("encoder.")]
        if missing or unexpected:
            raise ModelError("the heads do not fit the encoder", path=folder, found=str([*missing, *unexpected]))
        return model.eval()


def pool(states: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Pool token states [batch, tokens, hidden] to one vector per row [batch, hidden], without padding."""
    if pooling == "cls":
        return states[:, 0]
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def pool_layers(outputs: Any, mask: Tensor) -> Tensor:
    """Concatenate the mean-pooled states of all layers, from the first to the last: [batch, layers * hidden].

    Args:
        outputs: the encoder's outputs, with ``hidden_states``.
        mask: [batch, tokens].
    """
    layers = (*outputs.hidden_states[1:-1], outputs.last_hidden_state)  # without the embeddings
    return torch.cat([pool(states, mask, "mean") for states in layers], dim=-1)


def takes_token_types(config: Any) -> bool:
    """Whether a model with this configuration uses token_type_ids."""
    return getattr(config, "type_vocab_size", 0) > 1


def load_config(model: str) -> Any:
    """Load the configuration of a model.

    Args:
        model: hub id or folder.

    Raises:
        ModelError: it cannot be loaded.
    """
    with _model_errors(model):
        return AutoConfig.from_pretrained(model)


def load_encoder(model: str, attention: str | None = None) -> PreTrainedModel:
    """Load an encoder in float32, without a pooler.

    Args:
        model: hub id or folder.
        attention: name of the attention implementation in transformers; only ``eager`` returns attention maps without
            a warning. Default None, the model's own.

    Raises:
        ModelError: the model does not exist, AutoModel cannot load it, or it is not an encoder.
    """
    options: dict[str, Any] = {"dtype": torch.float32, "attn_implementation": attention}
    with _model_errors(model), _silent_about_poolers():
        try:
            # An unused pooler would have random weights if the checkpoint has none, and a parameter without a gradient
            # is an error with several processes.
            encoder = AutoModel.from_pretrained(model, add_pooling_layer=False, **options)
        except TypeError:  # the model's class does not have this option
            encoder = AutoModel.from_pretrained(model, **options)
    if getattr(encoder.config, "is_encoder_decoder", False) or not hasattr(encoder.config, "hidden_size"):
        raise ModelError(
            "the model is not an encoder",
            path=model,
            found=encoder.config.model_type,
            expected="an encoder such as BERT or MiniLM",
        )
    return encoder


@contextmanager
def _silent_about_poolers() -> Iterator[None]:
    """Hide transformers' warning about an unused pooler; warnings about other unused weights are shown."""

    def tell(record: logging.LogRecord) -> bool:
        return "pooler" not in record.getMessage()

    logger = logging.getLogger("transformers.modeling_utils")
    logger.addFilter(tell)
    try:
        yield
    finally:
        logger.removeFilter(tell)


class _model_errors:  # noqa: N801  (reads as the context it is)
    """Convert errors of transformers into ModelError."""

    def __init__(self, model: str) -> None:
        self.model = model

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, Exception) and not isinstance(error, ModelError):
            raise ModelError(
                "the model cannot be loaded",
                path=self.model,
                found=str(error).splitlines()[0] if str(error) else type(error).__name__,
                expected="a hub id, or a folder with config.json and weights that transformers' AutoModel reads",
                remedy="Check the name; without a network only local folders can be used.",
            ) from error


def require_usable(encoder: PreTrainedModel, model: str, max_length: int) -> None:
    """Check on one text that an encoder works, possibly with fewer layers than its checkpoint.

    Args:
        encoder: the encoder.
        model: its hub id or folder, for the error.
        max_length: number of tokens of the text.

    Raises:
        ModelError: the encoder does not return token states, or it returns other states after it is saved and loaded
            (if the kind of a layer depends on its position, as in ModernBERT).
    """
    # Without padding, from which some models count positions. The tokens differ, so that attention has an effect.
    ids = torch.arange(max_length).unsqueeze(0) % (encoder.config.vocab_size - 1)
    ids += ids >= (encoder.config.pad_token_id or 0)
    try:
        states = _states(encoder, ids)
    except Exception as error:
        raise ModelError(
            "the model cannot be used as an encoder",
            path=model,
            found=(str(error).splitlines() or [type(error).__name__])[0],
            expected=f"states of {max_length} tokens",
            remedy="Lower --max-length, keep other --student-layers, or use another model.",
        ) from error
    again = AutoModel.from_config(encoder.config)
    again.load_state_dict(encoder.state_dict(), strict=False)
    if not torch.allclose(_states(again, ids), states, atol=1e-5):
        raise ModelError(
            "the model's layers do not work in other positions",
            path=model,
            found=f"{type(encoder).__name__} cut to {encoder.config.num_hidden_layers} layers",
            expected="layers of the same kind in all positions",
            remedy="Keep other --student-layers, or start from another model: --student MODEL.",
        )


@torch.inference_mode()
def _states(encoder: PreTrainedModel, ids: Tensor) -> Tensor:
    states: Tensor = encoder.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), return_dict=True)[0]
    return states


def layer_stack(encoder: nn.Module, count: int) -> nn.ModuleList:
    """Find the encoder's transformer layers, the ModuleList with ``count`` entries.

    Raises:
        ModelError: there is none.
    """
    stacks = [module for module in encoder.modules() if isinstance(module, nn.ModuleList) and len(module) == count]
    if not stacks:
        raise ModelError(
            "the model's layers were not found",
            found=type(encoder).__name__,
            expected=f"a ModuleList of {count} layers",
            remedy="Start the student from another model: --student MODEL.",
        )
    return stacks[0]


def require_layers(layers: Sequence[int], count: int) -> None:
    """Check that a model has all of at least one layers.

    Args:
        layers: 0-based numbers, ascending.
        count: number of the model's layers.

    Raises:
        ModelError: there are no layers, or the model does not have one.
    """
    if not layers or max(layers) >= count:
        raise ModelError(
            "the teacher has no such layer",
            found=",".join(map(str, layers)),
            expected=f"numbers from 0 to {count - 1}",
            remedy="Correct --student-layers.",
        )


def keep_layers(encoder: PreTrainedModel, layers: Sequence[int]) -> PreTrainedModel:
    """Remove all other layers of an encoder in place, and its unused pooler.

    Args:
        encoder: the encoder.
        layers: 0-based numbers of the layers to keep, ascending.

    Raises:
        ModelError: the encoder does not have a layer, or its layers were not found.
    """
    count = encoder.config.num_hidden_layers
    require_layers(layers, count)
    stack = layer_stack(encoder, count)
    kept = [stack[layer] for layer in layers]
    del stack[:]
    stack.extend(kept)
    encoder.config.num_hidden_layers = len(kept)
    if getattr(encoder, "pooler", None) is not None:
        encoder.pooler = None
    return encoder
