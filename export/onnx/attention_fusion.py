"""One node for a layer's self-attention, so that nothing but its weights is quantized and nothing is transposed for it.

Node by node, attention is two products of activations a head, four transpositions and six reshapings a layer; quantized
one by one, each costs more than it saves at the lengths of a sentence. ONNX Runtime has a kernel for the whole
(``Attention``, quantized ``QAttention``): a 3-layer student of 384 components ran 16 % faster at 14 tokens.

Its other fusions are left out: EmbedLayerNormalization and BiasGelu gained nothing, and SkipLayerNormalization is
slower than an addition and a LayerNormalization (see ``runtime.student``).
"""

from __future__ import annotations

from pathlib import Path

from transformers import PretrainedConfig

from ...runtime.inference.onnxruntime_setup import import_onnxruntime


def fuse_attention(model: Path, config: PretrainedConfig, out: Path) -> bool:
    """Write ``model`` with fused attention to ``out``.

    Args:
        model: a float32 model.onnx.
        config: of its encoder.
        out: the file to write.

    Returns:
        Whether every layer's attention was found. If not, nothing is written: not every encoder's attention is BERT's.
    """
    import_onnxruntime()
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.fusion_options import FusionOptions

    heads, hidden = getattr(config, "num_attention_heads", 0), getattr(config, "hidden_size", 0)
    options = FusionOptions("bert")
    options.enable_gelu = options.enable_bias_gelu = False
    options.enable_layer_norm = False
    options.enable_embed_layer_norm = False
    options.enable_skip_layer_norm = options.enable_bias_skip_layer_norm = False
    fused = optimizer.optimize_model(
        str(model),
        model_type="bert",
        num_heads=heads,
        hidden_size=hidden,
        optimization_options=options,
        opt_level=0,
        use_gpu=False,
    )
    if fused.get_fused_operator_statistics()["Attention"] != config.num_hidden_layers:
        return False
    fused.save_model_to_file(str(out))
    return True
