"""The shape of a network: what follows from it directly, and what is refused."""

from __future__ import annotations

import dataclasses

import pytest

from sim.spec.model import Model, ModelError

DENSE = Model(
    key="toy",
    name="Toy",
    family="toy",
    kind="decoder",
    params_total=1,
    params_kind="derived",
    source="a test",
    layers=12,
    hidden=64,
    heads=8,
    kv_heads=2,
    head_dim=8,
    ffn_hidden=256,
    vocab=1000,
)
MIXTURE = dataclasses.replace(DENSE, kind="moe", experts=8, topk=2, moe_ffn_hidden=32)


def test_moe_layers_follow_the_dense_ones_at_their_step():
    assert (DENSE.moe_layers, DENSE.dense_layers) == (0, 12)
    assert (MIXTURE.moe_layers, MIXTURE.dense_layers) == (12, 0)
    later = dataclasses.replace(MIXTURE, first_dense_layers=3)
    assert (later.moe_layers, later.dense_layers) == (9, 3)
    spread = dataclasses.replace(MIXTURE, moe_layer_step=2)
    assert (spread.moe_layers, spread.dense_layers) == (6, 6)


def test_cache_of_a_token():
    assert DENSE.kv_values_per_token == 12 * 2 * 2 * 8
    compressed = dataclasses.replace(DENSE, kv_lora_rank=32, rope_dim=4)
    assert compressed.kv_values_per_token == 12 * (32 + 4)
    narrow_value = dataclasses.replace(DENSE, v_head_dim=4)
    assert narrow_value.kv_values_per_token == 12 * 2 * (8 + 4)


def test_windows_leave_some_layers_whole():
    assert DENSE.full_attention_layers == 12
    assert dataclasses.replace(DENSE, window=128).full_attention_layers == 0
    assert dataclasses.replace(DENSE, window=128, global_layer_step=6).full_attention_layers == 2


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"kind": "oracle"}, "toy: kind 'oracle' is not one of decoder"),
        ({"bias": "some"}, "toy: bias 'some' is not one of none"),
        ({"norm": "l1"}, "toy: norm 'l1' is not one of rms"),
        ({"position_kind": "here"}, "toy: position_kind 'here' is not one of"),
        ({"layers": -1}, "toy: layers -1 is negative"),
        ({"kv_heads": 3}, "toy: 8 heads do not share 3 kv_heads evenly"),
        ({"experts": 8}, "toy: experts need topk and moe_ffn_hidden"),
        ({"topk": 2}, "toy: topk 2 is more than the 0 experts"),
        ({"moe_layer_step": 0}, "toy: moe_layer_step 0 must be at least 1"),
        ({"source": ""}, "toy: a source is missing"),
    ],
)
def test_a_shape_that_cannot_be_is_refused(changes, says):
    with pytest.raises(ModelError) as caught:
        dataclasses.replace(DENSE, **changes)
    assert says in str(caught.value)
