"""Tiny random checkpoints of the model families that teachers and students are made from."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import transformers
from tokenizers import processors
from transformers import AutoModel, AutoModelForSequenceClassification

from .tiny_models import HIDDEN, POSITIONS, VOCABULARY, tiny_tokenizer

LAYERS = 4
_ENCODER = {"hidden_size": HIDDEN, "num_hidden_layers": LAYERS, "num_attention_heads": 2, "intermediate_size": 64}
_DECODER = {
    **_ENCODER,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "pad_token_id": None,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
_AFTER_PADDING = {"max_position_embeddings": POSITIONS + 2, "pad_token_id": 0, "type_vocab_size": 1}
_CONFIGS: dict[str, tuple[str, dict[str, Any]]] = {
    "BERT": ("BertConfig", _ENCODER),
    "RoBERTa": ("RobertaConfig", {**_ENCODER, **_AFTER_PADDING}),
    "XLM-R": ("XLMRobertaConfig", {**_ENCODER, **_AFTER_PADDING}),
    "DistilBERT": ("DistilBertConfig", {"dim": HIDDEN, "n_layers": LAYERS, "n_heads": 2, "hidden_dim": 64}),
    "ELECTRA": ("ElectraConfig", {**_ENCODER, "embedding_size": 16}),
    "MPNet": ("MPNetConfig", {**_ENCODER, "max_position_embeddings": POSITIONS + 2, "pad_token_id": 0}),
    "DeBERTa-v2": (
        "DebertaV2Config",
        {**_ENCODER, "relative_attention": True, "pos_att_type": ["p2c", "c2p"], "type_vocab_size": 0},
    ),
    "DeBERTa-v3": (
        "DebertaV2Config",
        {
            **_ENCODER,
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "position_buckets": 8,
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "type_vocab_size": 0,
        },
    ),
    "ModernBERT": (
        "ModernBertConfig",
        {
            **_ENCODER,
            "local_attention": 8,
            "pad_token_id": 0,
            "bos_token_id": 2,
            "eos_token_id": 3,
            "cls_token_id": 2,
            "sep_token_id": 3,
        },
    ),
    "ALBERT": ("AlbertConfig", {**_ENCODER, "embedding_size": 16}),
    "GPT-2": (
        "GPT2Config",
        {
            "n_embd": HIDDEN,
            "n_layer": LAYERS,
            "n_head": 2,
            "n_positions": POSITIONS,
            "bos_token_id": 2,
            "eos_token_id": 3,
        },
    ),
    "Llama": ("LlamaConfig", _DECODER),
    "Qwen2": ("Qwen2Config", _DECODER),
    "Qwen3": ("Qwen3Config", _DECODER),
}
FAMILIES = tuple(_CONFIGS)
DECODERS = ("GPT-2", "Llama", "Qwen2", "Qwen3")


def config_of(family: str, **changes: Any) -> Any:
    """Return the configuration of a tiny model of a family."""
    name, settings = _CONFIGS[family]
    common = {"vocab_size": len(VOCABULARY), "max_position_embeddings": POSITIONS, "initializer_range": 0.05}
    if "n_positions" in settings:
        common.pop("max_position_embeddings")
    return getattr(transformers, name)(**{**common, **settings, **changes})


def write_family(folder: Path, family: str, labels: Mapping[int, str] | None = None) -> Path:
    """Write a random model of a family and its tokenizer; with ``labels`` a classifier, else the model alone."""
    torch.manual_seed(0)
    names = {} if labels is None else {"id2label": dict(labels), "label2id": {name: n for n, name in labels.items()}}
    loader = AutoModel if labels is None else AutoModelForSequenceClassification
    loader.from_config(config_of(family, **names)).save_pretrained(folder)
    tokenizer = tiny_tokenizer()
    if family in DECODERS:
        tokenizer.post_processor = processors.TemplateProcessing(single="$A", pair="$A $B:1")
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder
