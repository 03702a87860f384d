"""FLOP against the closed forms of the papers that defined them."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.spec.catalog import load_catalog
from sim.spec.flop_count import (
    forward_flop_per_sample,
    forward_flop_per_token,
    matmul_weights_per_token,
    published_flop_per_token,
    training_flop_per_token,
)
from sim.spec.parameter_count import NotCountable

MODELS = load_catalog().models
SEQUENCES = st.integers(1, 10**6)
SINGLE_STACK = st.sampled_from(
    [m for m in MODELS.values() if m.kind in ("decoder", "moe", "mla-moe", "encoder") and m.layers]
)


@pytest.mark.parametrize("key", ["gpt3-175b", "megatron-1t", "gpt3-2.7b"])
@pytest.mark.parametrize("s", [512, 2048, 32768])
def test_the_closed_forms_of_sc21_and_korthikanti(key, s):
    m = MODELS[key]
    L, h, V = m.layers, m.hidden, m.vocab
    sc21 = 96 * L * h**2 * (1 + s / (6 * h) + V / (16 * L * h))
    korthikanti = 72 * L * h**2 * (1 + s / (6 * h) + V / (12 * L * h))
    assert published_flop_per_token(m, s, "sc21") == pytest.approx(sc21, rel=1e-12)
    assert published_flop_per_token(m, s, "korthikanti") == pytest.approx(korthikanti, rel=1e-12)


def test_palm_and_llm_foundry_differ_where_heads_are_not_the_width():
    llama, qwen = MODELS["llama-3-8b"], MODELS["qwen3-32b"]
    by_hand = 6 * llama.params_total + 12 * 32 * 4096 * 8192
    assert published_flop_per_token(llama, 8192, "palm") == by_hand
    assert published_flop_per_token(llama, 8192, "llm-foundry") == by_hand
    assert published_flop_per_token(qwen, 8192, "palm") > published_flop_per_token(qwen, 8192, "llm-foundry")


def test_the_attention_share_of_llama_3_70b():
    """13 and 7 % of the work at 8K, 71 and 55 % at 128K: the convention alone moves MFU by 1.55."""
    m = MODELS["llama-3-70b"]
    without = 6.0 * (matmul_weights_per_token(m) + m.hidden * m.vocab)
    full = training_flop_per_token(m, np.array([8192, 131072]), "full")
    half = training_flop_per_token(m, np.array([8192, 131072]), "causal")
    assert 1 - without / full == pytest.approx([0.134, 0.712], abs=0.001)
    assert 1 - without / half == pytest.approx([0.072, 0.553], abs=0.001)
    assert (full / half)[1] == pytest.approx(1.553, abs=0.001)


def test_a_diffusion_transformer_as_its_paper_counts_it():
    """DiT-XL/2 at 256 px: 118.6 G multiply-adds (arXiv 2212.09748, Table 4)."""
    assert forward_flop_per_sample(MODELS["dit-xl-2"], 256) / 2e9 == pytest.approx(118.6, abs=0.05)


def test_two_stacks_need_two_lengths():
    t5 = MODELS["t5-base"]
    with pytest.raises(NotCountable, match="t5-base: two stacks"):
        forward_flop_per_token(t5, 512)
    with pytest.raises(NotCountable, match="t5-base: two stacks"):
        training_flop_per_token(t5, 512)
    encoder_alone = forward_flop_per_sample(dataclasses.replace(t5, decoder_layers=0, vocab=0), 512)
    cross_key_value = 2.0 * 12 * 2 * 768 * 768 * 512
    assert forward_flop_per_sample(t5, 512, 0) == pytest.approx(encoder_alone + cross_key_value)
    assert forward_flop_per_sample(t5, 512, 128) > forward_flop_per_sample(t5, 512, 64)


def test_what_has_no_layers_is_refused():
    with pytest.raises(NotCountable, match="resnet-50"):
        forward_flop_per_token(MODELS["resnet-50"], 1)


def test_full_recompute_adds_a_forward_of_the_layers_but_not_of_the_logits():
    m = MODELS["llama-3-8b"]
    logits = 2.0 * m.hidden * m.vocab
    again = training_flop_per_token(m, 4096, recompute="full") - training_flop_per_token(m, 4096)
    assert again == pytest.approx(forward_flop_per_token(m, 4096) - logits)


def test_a_window_saves_only_beyond_its_width():
    whole = MODELS["llama-2-7b"]
    banded = dataclasses.replace(whole, window=4096)
    mixed = dataclasses.replace(whole, window=4096, global_layer_step=2)
    assert forward_flop_per_token(banded, 4096) == forward_flop_per_token(whole, 4096)
    a, b, c = (forward_flop_per_token(m, 32768) for m in (banded, mixed, whole))
    assert a < b < c
    assert b - a == pytest.approx(c - b)
    far = 10.0**9
    band = 2.0 * 32 * 256 * 4096 * 32
    assert forward_flop_per_token(banded, far) == pytest.approx(
        band + 2 * matmul_weights_per_token(whole) + 2 * 4096 * 32000
    )


def test_a_prediction_module_is_paid_in_training_alone():
    m = MODELS["deepseek-v3"]
    without = dataclasses.replace(m, mtp_layers=0)
    assert forward_flop_per_token(m, 4096) == forward_flop_per_token(without, 4096)
    assert training_flop_per_token(without, 4096) == pytest.approx(3 * forward_flop_per_token(m, 4096))
    assert 1.02 < training_flop_per_token(m, 4096) / training_flop_per_token(without, 4096) < 1.08


@given(SINGLE_STACK, st.lists(SEQUENCES, min_size=1, max_size=5))
def test_arrays_equal_scalars(model, sequences):
    at_once = training_flop_per_token(model, np.array(sequences))
    assert at_once.tolist() == [float(training_flop_per_token(model, s)) for s in sequences]


@given(SINGLE_STACK, SEQUENCES, SEQUENCES)
def test_longer_sequences_never_cost_a_token_less(model, a, b):
    short, long = sorted((a, b))
    assert forward_flop_per_token(model, short) <= forward_flop_per_token(model, long) * (1 + 1e-12)


@given(SINGLE_STACK, SEQUENCES)
def test_causal_saves_at_most_half(model, s):
    causal, full = forward_flop_per_token(model, s, "causal"), forward_flop_per_token(model, s, "full")
    assert full / 2 <= causal <= full
