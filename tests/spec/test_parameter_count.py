"""Counts from the shape against published counts, and against counts done by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.spec.catalog import load_catalog
from sim.spec.model import Model
from sim.spec.parameter_count import (
    NotCountable,
    active_weights,
    layer_weights,
    mtp_parameters,
    total_parameters,
    weights,
)

MODELS = load_catalog().models
NOT_COUNTABLE = {
    *("resnet-50", "resnet-152", "vgg-16", "efficientnet-b0", "efficientnet-b7", "inception-v3"),
    *("retinanet-r50-fpn", "ssd300-vgg16", "mask-rcnn-r50-fpn", "unet3d-mlperf", "dlrm-dcnv2"),
    *("conformer-s", "conformer-m", "conformer-l", "sd-1.5-unet", "sd-2.1-unet", "sdxl-unet"),
}
"""Convolutions, a recommender, an LSTM decoder: their layers are not part of a shape."""
NOT_TO_THE_PARAMETER = {
    "gpt-j-6b": "the card counts mask buffers too",
    "dbrx": "LayerNorm without a shift, counted with one",
}

SHAPES = st.builds(
    dict,
    layers=st.integers(1, 12),
    hidden=st.integers(1, 64).map(lambda n: 8 * n),
    kv_heads=st.integers(1, 8),
    head_dim=st.integers(1, 64),
    ffn_hidden=st.integers(1, 512),
    vocab=st.integers(1, 5000),
    gated_ffn=st.booleans(),
    tied_embeddings=st.booleans(),
    bias=st.sampled_from(("none", "qkv", "qvo", "qkvo", "ffn", "all")),
    norm=st.sampled_from(("rms", "ln")),
)


def decoder(**shape: object) -> Model:
    fixed = {"key": "toy", "name": "Toy", "family": "toy", "kind": "decoder", "params_total": 1}
    return Model(
        **{**fixed, "params_kind": "derived", "source": "a test", "heads": 8, "kv_heads": 8, **shape}
    )


TABLES = {
    *("resnet-50", "resnet-152", "vgg-16", "unet3d-mlperf", "retinanet-r50-fpn", "dlrm-dcnv2"),
    *("conformer-s", "conformer-m", "conformer-l"),
}
"""Counted from a table of their stages instead."""


@pytest.mark.parametrize("key", sorted(set(MODELS) - NOT_COUNTABLE | TABLES))
def test_totals_agree_with_the_published_ones(key):
    model = MODELS[key]
    assert total_parameters(model) == pytest.approx(model.params_total, rel=model.tolerance_frac)


@pytest.mark.parametrize("key", sorted(set(MODELS) - NOT_COUNTABLE))
def test_counts_agree_with_the_published_ones(key):
    model = MODELS[key]
    assert weights(model).total == pytest.approx(model.params_total, rel=model.tolerance_frac)


def test_exact_counts_agree_to_the_parameter():
    exact = [
        model for key, model in MODELS.items() if model.params_kind == "exact" and key not in NOT_COUNTABLE
    ]
    differing = {model.key for model in exact if weights(model).total != model.params_total}
    assert len(exact) == 94
    assert differing == set(NOT_TO_THE_PARAMETER)


@pytest.mark.parametrize("key", sorted(NOT_COUNTABLE))
def test_what_cannot_be_counted_is_refused_with_the_reason(key):
    with pytest.raises(
        NotCountable, match=f"{key}: parameters do not follow from the shape: .*not part of the shape"
    ):
        weights(MODELS[key])


@pytest.mark.parametrize(
    ("key", "published_billions"),
    [("mixtral-8x7b", 12.9), ("deepseek-v2", 21), ("deepseek-v3", 37), ("qwen3-235b-a22b", 22), ("dbrx", 36)],
)
def test_active_parameters_agree_with_the_published_ones(key, published_billions):
    assert active_weights(MODELS[key]).total / 1e9 == pytest.approx(published_billions, rel=0.02)


def test_the_prediction_module_of_deepseek_v3():
    """The release speaks of 14 B with its own copies of embedding and head: 11.6 B without them."""
    model = MODELS["deepseek-v3"]
    copies = 2 * model.vocab * model.hidden
    assert (mtp_parameters(model) + copies) / 1e9 == pytest.approx(13.5, abs=0.1)


def test_a_block_of_llama_by_hand():
    layer = layer_weights(MODELS["llama-3-8b"], mixture=False)
    assert layer.attention == 4096 * (4096 + 2 * 1024) + 4096 * 4096
    assert layer.mlp == 3 * 4096 * 14336
    assert layer.norms == 2 * 4096
    assert (layer.router, layer.experts, layer.shared_experts) == (0, 0, 0)


def test_a_block_of_deepseek_v3_by_hand():
    layer = layer_weights(MODELS["deepseek-v3"], mixture=True)
    query = 7168 * 1536 + 1536 + 1536 * 128 * 192
    key_value = 7168 * (512 + 64) + 512 + 512 * 128 * 256
    assert layer.attention == query + key_value + 128 * 128 * 7168
    assert layer.experts == 256 * 3 * 7168 * 2048
    assert layer.shared_experts == 3 * 7168 * 2048
    assert layer.router == 256 * 7168 + 256


@given(SHAPES)
def test_parts_sum_and_layers_scale(shape):
    shape["kv_heads"] = {1: 1, 2: 2, 4: 4, 8: 8}.get(shape["kv_heads"], 8)
    model = decoder(**shape)
    counted = weights(model)
    single = weights(dataclasses.replace(model, layers=1))
    assert counted.layers == model.layers * single.layers
    assert counted.total - counted.layers == single.total - single.layers
    assert active_weights(model) == counted


@given(SHAPES, st.integers(1, 16), st.integers(1, 16))
def test_active_never_exceeds_total_and_meets_it_at_all_experts(shape, experts, topk):
    shape["kv_heads"] = 8
    model = decoder(**shape, experts=experts, topk=min(topk, experts), moe_ffn_hidden=32, shared_experts=1)
    assert active_weights(model).total <= weights(model).total
    everyone = dataclasses.replace(model, topk=experts)
    assert active_weights(everyone) == weights(everyone)


def test_a_single_expert_is_a_dense_mlp_with_a_router():
    model = decoder(layers=3, hidden=64, head_dim=8, ffn_hidden=128, vocab=10, gated_ffn=True)
    mixture = dataclasses.replace(model, experts=1, topk=1, moe_ffn_hidden=128)
    assert weights(mixture).total == weights(model).total + 3 * 64


def test_biases_add_up():
    sizes = {
        bias: weights(decoder(layers=1, hidden=64, head_dim=8, ffn_hidden=128, vocab=10, bias=bias)).total
        for bias in ("none", "qkv", "qkvo", "ffn", "all")
    }
    assert sizes["qkv"] - sizes["none"] == 3 * 64
    assert sizes["qkvo"] - sizes["none"] == 4 * 64
    assert sizes["ffn"] - sizes["none"] == 128 + 64
    assert sizes["all"] - sizes["none"] == 4 * 64 + 128 + 64
