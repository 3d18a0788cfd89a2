"""Layouts of model folders: sentence-transformers, LoRA adapters, and what is missing."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from support import tiny_models as tinymodels
from support.model_families import DECODERS, FAMILIES, write_family
from support.tiny_models import LABELS
from transformers import AutoModelForSequenceClassification, BartConfig, BartForSequenceClassification

from reaugkd.errors import ModelError
from reaugkd.export.modeling import checkpoint
from reaugkd.export.modeling.checkpoint import file_of, load_encoder, sentence_pooling, transformer_of
from reaugkd.export.modeling.encoder import choose_pooling, is_causal
from reaugkd.export.modeling.teacher import load_fine_tuned
from reaugkd.export.recipe import TeacherRecipe

OLD, NEW = "sentence_transformers.models", "sentence_transformers.base.modules"


def sentence_model(folder: Path, pooling: dict[str, Any], inside: str = "", package: str = OLD) -> Path:
    """Write a BERT as sentence-transformers does, in the folder or in a subfolder."""
    folder.mkdir()
    tinymodels.write_bert(folder / inside)
    paths = {"Transformer": inside, "Pooling": "1_Pooling", "Normalize": "2_Normalize"}
    modules = [
        {"idx": number, "name": str(number), "path": path, "type": f"{package}.{kind}"}
        for number, (kind, path) in enumerate(paths.items())
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    return folder


def mode(name: str) -> dict[str, Any]:
    modes = ("cls_token", "mean_tokens", "max_tokens", "lasttoken")
    return {"word_embedding_dimension": 32, **{f"pooling_mode_{one}": one == name for one in modes}}


@pytest.mark.parametrize(
    ("pooling", "inside", "package", "expected"),
    [
        (mode("cls_token"), "", OLD, "cls"),
        (mode("mean_tokens"), "0_Transformer", OLD, "mean"),
        (mode("lasttoken"), "0_Transformer", OLD, "last"),
        ({"embedding_dimension": 32, "pooling_mode": "cls", "include_prompt": True}, "", NEW, "cls"),
    ],
)
def test_sentence_transformers_pool_as_they_say(
    tmp_path: Path, pooling: dict[str, Any], inside: str, package: str, expected: str
) -> None:
    model = str(sentence_model(tmp_path / "model", pooling, inside, package))
    encoder = load_encoder(model)
    assert tinymodels.same_states(encoder.state_dict(), load_encoder(transformer_of(model)).state_dict())
    assert choose_pooling("auto", model, encoder) == expected
    assert choose_pooling("mean", model, encoder) == "mean"


@pytest.mark.parametrize("pooling", [mode("max_tokens"), {"pooling_mode": "weightedmean"}, {}])
def test_a_pooling_that_the_student_cannot_have_is_refused(tmp_path: Path, pooling: dict[str, Any]) -> None:
    model = sentence_model(tmp_path / "model", pooling)
    with pytest.raises(ModelError, match="pooling that is not supported"):
        sentence_pooling(str(model))


@pytest.mark.parametrize("family", FAMILIES)
def test_decoders_are_told_by_their_states(tmp_path: Path, family: str) -> None:
    model = str(write_family(tmp_path / "model", family))
    encoder = load_encoder(model)
    assert is_causal(encoder) == (family in DECODERS)
    assert choose_pooling("auto", model, encoder) == ("last" if family in DECODERS else "mean")


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of peft with transformers 5
def test_the_command_in_the_error_merges_a_lora_adapter(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tinymodels.write_classifier(tmp_path / "base", dict(enumerate(LABELS)))
    settings = peft.LoraConfig(task_type="SEQ_CLS", target_modules=["query"], init_lora_weights=False)
    model = AutoModelForSequenceClassification.from_pretrained(base)
    adapted = peft.get_peft_model(model, settings)
    adapted.save_pretrained(tmp_path / "adapter")
    with pytest.raises(ModelError, match="LoRA adapter") as caught:
        load_fine_tuned(str(tmp_path / "adapter"), TeacherRecipe(), LABELS)
    command = str(caught.value.remedy).split("\n")[1].replace("NUMBER_OF_LABELS", "3")
    python, option, code = shlex.split(command)
    assert (python, option) == ("python", "-c")
    monkeypatch.chdir(tmp_path)
    exec(code, {})  # a process of its own would take ten times as long
    merged = AutoModelForSequenceClassification.from_pretrained(tmp_path / "adapter-merged").eval()
    inputs = {"input_ids": torch.tensor([[2, 8, 9, 3]]), "attention_mask": torch.ones(1, 4, dtype=torch.int64)}
    with torch.inference_mode():
        torch.testing.assert_close(merged(**inputs).logits, adapted.eval()(**inputs).logits, atol=1e-5, rtol=0)
    assert (tmp_path / "adapter-merged" / "tokenizer.json").is_file()


def test_an_encoder_without_its_weights_is_refused(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(ModelError, match="lacks weights") as caught:
        load_encoder(str(folder))
    assert "16 missing: encoder.layer.4.attention" in str(caught.value.found)


def test_code_in_a_models_folder_is_never_run(tiny_bert: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_bert, tmp_path / "copy"))
    config = json.loads((folder / "config.json").read_text())
    code = {"model_type": "new", "auto_map": {"AutoConfig": "own.NewConfig", "AutoModel": "own.NewModel"}}
    (folder / "config.json").write_text(json.dumps({**config, **code}))
    (folder / "own.py").write_text("raise SystemExit")
    with pytest.raises(ModelError, match="needs Python code"):
        load_encoder(str(folder))


def test_an_encoder_decoder_that_classifies_is_refused(tmp_path: Path) -> None:
    sizes = {"vocab_size": 20, "d_model": 16, "encoder_layers": 2, "decoder_layers": 2}
    model = BartForSequenceClassification(BartConfig(**sizes, id2label=dict(enumerate(LABELS)), eos_token_id=2))
    model.save_pretrained(tmp_path)
    with pytest.raises(ModelError, match="not an encoder"):
        load_fine_tuned(str(tmp_path), TeacherRecipe(), LABELS)


def test_a_file_of_the_hub_is_looked_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a network, each look-up takes half a minute."""
    asked: list[str] = []

    def no_network(_model: str, name: str, **_: Any) -> None:
        asked.append(name)
        raise OSError

    monkeypatch.setattr(checkpoint, "cached_file", no_network)
    assert [file_of("somebody/a-model", "modules.json") for _ in range(2)] == [None, None]
    assert asked == ["modules.json"]
