"""The torch model of teacher and student: encoder, pooling and heads."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel

from ...errors import ModelError
from ..recipe import Pooling
from .checkpoint import ChosenPooling, load_encoder, sentence_pooling, silent


class Outputs(NamedTuple):
    """Logits [batch, labels] and embedding: pooled [batch, hidden], or projected and L2-normalised [batch, dim]."""

    logits: Tensor
    embedding: Tensor


class Detailed(NamedTuple):
    """Outputs with details that only objectives use.

    ``projection`` is the embedding before its normalisation. ``attentions`` has the attention maps of each layer,
    [batch, heads, tokens, tokens]; it is empty without ``output_attentions=True``. ``general`` is the general embedding
    [batch, general_dim]; it is None in a model without one.
    """

    logits: Tensor
    embedding: Tensor
    projection: Tensor
    attentions: tuple[Tensor, ...]
    general: Tensor | None = None


@dataclass(frozen=True)
class HeadConfig:
    """Pooling and heads of a model.

    Args:
        num_labels: number of outputs of the classifier.
        pooling: ``mean`` over the attention mask, ``cls`` for the first token, or ``last`` for the last one.
        embedding_dim: dimension of the embedding; None if the embedding is the pooled vector.
        dropout: on the pooled vector before the classifier, while training.
        projection_bias: whether the projection to the embedding has a bias.
        all_layers: whether the projection reads the concatenated mean-pooled states of all layers, and not only the
            pooled state of the last layer; the classifier always reads the last layer.
        general_dim: dimension of the general embedding, a linear map of the mean-pooled states of all layers that the
            objective ``general`` trains; None for none.
    """

    num_labels: int
    pooling: ChosenPooling = "mean"
    embedding_dim: int | None = None
    dropout: float = 0.1
    projection_bias: bool = False
    all_layers: bool = False
    general_dim: int | None = None


class EncoderClassifier(nn.Module):
    """A transformer encoder with a linear classifier and, in a student, a linear projection to the keys' space."""

    def __init__(self, encoder: PreTrainedModel, head: HeadConfig) -> None:
        super().__init__()
        hidden = encoder.config.hidden_size
        self.encoder = encoder
        self.head = head
        self.dropout = nn.Dropout(head.dropout)
        self.classifier = nn.Linear(hidden, head.num_labels)
        all_layers = hidden * encoder.config.num_hidden_layers
        dim, bias = head.embedding_dim, head.projection_bias
        self.projection = None if dim is None else nn.Linear(all_layers if head.all_layers else hidden, dim, bias=bias)
        self.general = None if head.general_dim is None else nn.Linear(all_layers, head.general_dim)

    def forward(self, *, detailed: bool = False, **inputs: Any) -> Outputs | Detailed:
        """Compute the outputs of a batch.

        Args:
            detailed: return Detailed instead of Outputs.
            **inputs: the tokenizer's outputs, each [batch, tokens], or ``inputs_embeds`` instead of the ids; other
                options of the encoder.
        """
        general = self.general if detailed else None
        read_all = self.head.all_layers or general is not None
        states = self.encoder(**inputs, output_hidden_states=read_all, return_dict=True)
        pooled = pool(states.last_hidden_state, inputs["attention_mask"], self.head.pooling)
        logits = self.classifier(self.dropout(pooled))
        layers = pool_layers(states, inputs["attention_mask"]) if read_all else pooled
        read = layers if self.head.all_layers else pooled
        projected = read if self.projection is None else self.projection(read)
        embedding = read if self.projection is None else nn.functional.normalize(projected, dim=-1)
        if detailed:
            attentions = tuple(states.get("attentions") or ())
            return Detailed(logits, embedding, projected, attentions, None if general is None else general(layers))
        return Outputs(logits, embedding)

    def save(self, folder: Path) -> None:
        """Write the encoder as a Hugging Face folder, and the heads to the same folder."""
        with silent():
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


def pool(states: Tensor, mask: Tensor, pooling: ChosenPooling) -> Tensor:
    """Pool token states [batch, tokens, hidden] to one vector per row [batch, hidden]; the padding is on the right."""
    if pooling == "cls":
        return states[:, 0]
    if pooling == "last":  # a one where the next token is padding
        mask = mask - nn.functional.pad(mask[:, 1:], (0, 1))
    if torch.onnx.is_in_onnx_export():  # one product: fewer nodes, and no weighted copy of the states
        shares = mask.to(states.dtype)
        shares = shares / shares.sum(dim=1, keepdim=True).clamp(min=1.0)
        return (shares.unsqueeze(1) @ states).squeeze(1)
    weights = mask.to(states.dtype).unsqueeze(-1)
    return (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1.0)


def pool_layers(outputs: Any, mask: Tensor) -> Tensor:
    """Concatenate the mean-pooled states of all layers, from the first to the last: [batch, layers * hidden].

    Args:
        outputs: the encoder's outputs, with ``hidden_states``.
        mask: [batch, tokens].
    """
    layers = (*outputs.hidden_states[1:-1], outputs.last_hidden_state)  # without the embeddings
    if torch.onnx.is_in_onnx_export():
        # One product for all layers: with one per layer, ONNX Runtime does not find the attention of the next layer.
        return pool(torch.cat(layers, dim=-1), mask, "mean")
    return torch.cat([pool(states, mask, "mean") for states in layers], dim=-1)


def padding_id(config: Any) -> int:
    """Return the token id that pads a batch; any will do where the model names none, because the mask hides it."""
    return max(config.pad_token_id or 0, 0)  # some decoders have -1 for none


def takes_token_types(config: Any) -> bool:
    """Whether a model with this configuration uses token_type_ids."""
    return getattr(config, "type_vocab_size", 0) > 1


def choose_pooling(pooling: Pooling, model: str, encoder: PreTrainedModel) -> ChosenPooling:
    """Resolve the pooling ``auto``.

    Args:
        pooling: of the recipe.
        model: hub id or folder of the encoder.
        encoder: the encoder.

    Raises:
        ModelError: it is a sentence-transformers model with a pooling that the student cannot have.
    """
    if pooling != "auto":
        return pooling
    return sentence_pooling(model) or ("last" if is_causal(encoder) else "mean")


def is_causal(encoder: PreTrainedModel) -> bool:
    """Whether the state of a token does not depend on the tokens after it, as in a decoder."""
    tokens = torch.arange(2, 6).unsqueeze(0) % encoder.config.vocab_size
    other = tokens.clone()
    other[0, -1] += 1
    return torch.allclose(_states(encoder, tokens)[0, 0], _states(encoder, other)[0, 0], atol=1e-6)


def require_usable(encoder: PreTrainedModel, model: str, max_length: int) -> None:
    """Check on one text that a model returns token states.

    Args:
        encoder: the model.
        model: its hub id or folder, for the error.
        max_length: number of tokens of the text.

    Raises:
        ModelError: it does not return token states.
    """
    # Without padding, from which some models count positions.
    ids = torch.arange(max_length).unsqueeze(0) % (encoder.config.vocab_size - 1)
    ids += ids >= padding_id(encoder.config)
    try:
        _states(encoder, ids)
    except Exception as error:
        raise ModelError(
            "the model cannot be used as an encoder",
            path=model,
            found=(str(error).splitlines() or [type(error).__name__])[0],
            expected=f"states of {max_length} tokens",
            remedy="Lower --max-length, keep other --student-layers, or use another model.",
        ) from error


@torch.inference_mode()
def _states(encoder: PreTrainedModel, ids: Tensor) -> Tensor:
    training = encoder.training
    states: Tensor = encoder.eval()(input_ids=ids, attention_mask=torch.ones_like(ids), return_dict=True)[0]
    encoder.train(training)
    return states
