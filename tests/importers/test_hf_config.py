"""Configs as people have them: what loads agrees with the catalogue, what cannot be expressed says why."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.importers.hf_config import ConfigError, load_hf_config, model_from_config
from sim.spec.catalog import load_catalog
from sim.spec.parameter_count import weights

FIXTURES = Path(__file__).parent / "fixtures"
SAMPLES = Path(__file__).resolve().parents[3] / "shared" / "data" / "samples" / "hf_configs"
MODELS = load_catalog().models
OF_THE_SHAPE = [
    f.name
    for f in dataclasses.fields(MODELS["gpt2"])
    if f.name
    not in ("key", "name", "family", "source", "note", "params_total", "params_kind", "params_active")
    and f.name != "tolerance_frac"
]

GPT = {"vocab_size": 50257, "n_layer": 12, "n_head": 12, "n_embd": 768, "n_positions": 1024}
ENCODER = {"num_hidden_layers": 12, "hidden_size": 768, "num_attention_heads": 12, "intermediate_size": 3072}
SMALL_CONFIGS = {
    "gpt2": {"model_type": "gpt2", **GPT},
    "gpt-j-6b": {
        "model_type": "gptj",
        "n_layer": 28,
        "n_head": 16,
        "n_embd": 4096,
        "n_positions": 2048,
        "rotary_dim": 64,
        "vocab_size": 50400,
    },
    "gpt-neox-20b": {
        "model_type": "gpt_neox",
        "num_hidden_layers": 44,
        "num_attention_heads": 64,
        "hidden_size": 6144,
        "intermediate_size": 24576,
        "vocab_size": 50432,
        "max_position_embeddings": 2048,
        "rotary_pct": 0.25,
    },
    "opt-350m": {
        "model_type": "opt",
        "num_hidden_layers": 24,
        "num_attention_heads": 16,
        "hidden_size": 1024,
        "ffn_dim": 4096,
        "word_embed_proj_dim": 512,
        "do_layer_norm_before": False,
        "vocab_size": 50272,
        "max_position_embeddings": 2048,
    },
    "bloom-560m": {
        "model_type": "bloom",
        "n_layer": 24,
        "num_attention_heads": 16,
        "n_embed": 1024,
        "vocab_size": 250880,
        "seq_length": 2048,
    },
    "falcon-7b": {
        "model_type": "falcon",
        "n_layer": 32,
        "n_head": 71,
        "hidden_size": 4544,
        "multi_query": True,
        "parallel_attn": True,
        "new_decoder_architecture": False,
        "bias": False,
        "alibi": False,
        "vocab_size": 65024,
        "max_position_embeddings": 2048,
    },
    "mpt-7b": {
        "model_type": "mpt",
        "n_layers": 32,
        "n_heads": 32,
        "d_model": 4096,
        "expansion_ratio": 4,
        "vocab_size": 50432,
        "attn_config": {"alibi": True},
        "no_bias": True,
        "max_seq_len": 2048,
    },
    "phi-4": {
        "model_type": "phi3",
        "num_hidden_layers": 40,
        "num_attention_heads": 40,
        "num_key_value_heads": 10,
        "hidden_size": 5120,
        "intermediate_size": 17920,
        "vocab_size": 100352,
        "max_position_embeddings": 16384,
    },
    "gemma-2-9b": {
        "model_type": "gemma2",
        "num_hidden_layers": 42,
        "num_attention_heads": 16,
        "num_key_value_heads": 8,
        "head_dim": 256,
        "hidden_size": 3584,
        "intermediate_size": 14336,
        "vocab_size": 256000,
        "sliding_window": 4096,
        "max_position_embeddings": 8192,
    },
    "mistral-7b": {
        "model_type": "mistral",
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "hidden_size": 4096,
        "intermediate_size": 14336,
        "vocab_size": 32000,
        "sliding_window": 4096,
        "max_position_embeddings": 32768,
    },
    "gpt-oss-20b": {
        "model_type": "gpt_oss",
        "num_hidden_layers": 24,
        "num_attention_heads": 64,
        "num_key_value_heads": 8,
        "head_dim": 64,
        "hidden_size": 2880,
        "intermediate_size": 2880,
        "vocab_size": 201088,
        "attention_bias": True,
        "num_local_experts": 32,
        "num_experts_per_tok": 4,
        "sliding_window": 128,
        "layer_types": ["sliding_attention", "full_attention"] * 12,
        "max_position_embeddings": 131072,
    },
    "dbrx": {
        "model_type": "dbrx",
        "n_layers": 40,
        "n_heads": 48,
        "d_model": 6144,
        "vocab_size": 100352,
        "max_seq_len": 32768,
        "attn_config": {"kv_n_heads": 8},
        "ffn_config": {"ffn_hidden_size": 10752, "moe_num_experts": 16, "moe_top_k": 4},
    },
    "olmoe-1b-7b": {
        "model_type": "olmoe",
        "num_hidden_layers": 16,
        "num_attention_heads": 16,
        "hidden_size": 2048,
        "intermediate_size": 1024,
        "num_experts": 64,
        "num_experts_per_tok": 8,
        "vocab_size": 50304,
        "max_position_embeddings": 4096,
    },
    "bert-base": {
        "model_type": "bert",
        **ENCODER,
        "vocab_size": 30522,
        "max_position_embeddings": 512,
        "type_vocab_size": 2,
    },
    "roberta-base": {
        "model_type": "roberta",
        **ENCODER,
        "vocab_size": 50265,
        "max_position_embeddings": 514,
        "type_vocab_size": 1,
    },
    "flan-t5-base": {
        "model_type": "t5",
        "num_layers": 12,
        "num_decoder_layers": 12,
        "num_heads": 12,
        "d_model": 768,
        "d_kv": 64,
        "d_ff": 2048,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
        "vocab_size": 32128,
        "n_positions": 512,
    },
    "whisper-large-v3-turbo": {
        "model_type": "whisper",
        "encoder_layers": 32,
        "decoder_layers": 4,
        "d_model": 1280,
        "encoder_attention_heads": 20,
        "encoder_ffn_dim": 5120,
        "num_mel_bins": 128,
        "vocab_size": 51866,
        "max_target_positions": 448,
    },
    "vit-b-16": {
        "model_type": "vit",
        **ENCODER,
        "image_size": 224,
        "patch_size": 16,
        "id2label": {str(n): "" for n in range(1000)},
    },
}


def differences(model, known):
    return {
        n: (getattr(model, n), getattr(known, n))
        for n in OF_THE_SHAPE
        if getattr(model, n) != getattr(known, n)
    }


@pytest.mark.parametrize("key", sorted(SMALL_CONFIGS))
def test_each_dialect_gives_the_shape_of_the_catalogue(key):
    model, known = model_from_config(SMALL_CONFIGS[key], key), MODELS[key]
    found = differences(model, known)
    if key == "dbrx":  # its LayerNorm has no shift, which the catalogue's entry counts
        assert found.pop("norm") == ("rms", "ln")
    assert found == {}
    assert model.params_total == pytest.approx(known.params_total, rel=known.tolerance_frac)
    assert (model.params_kind, model.family) == ("derived", SMALL_CONFIGS[key]["model_type"])


@pytest.mark.parametrize("key", ["llama-3.1-8b", "deepseek-v3"])
def test_a_file_loads(key):
    model = load_hf_config(FIXTURES / f"{key}.json")
    assert model.key == key
    assert differences(model, MODELS[key]) == {}
    assert model.params_total == MODELS[key].params_total


def test_quantised_weights_are_noted():
    assert load_hf_config(FIXTURES / "deepseek-v3.json").note == "weights quantised: fp8"


def test_of_a_multimodal_model_the_language_part_is_taken_and_said_so():
    model = load_hf_config(FIXTURES / "qwen3-vl-8b.json")
    assert model.params_total == MODELS["qwen3-8b"].params_total
    assert model.note == "language part alone, without vision or audio towers"


def test_the_folder_names_a_plain_config(tmp_path):
    folder = tmp_path / "my-model"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(SMALL_CONFIGS["gpt2"]), "utf-8")
    assert load_hf_config(folder / "config.json").key == "my-model"
    assert load_hf_config(folder / "config.json", key="mine").key == "mine"


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({}, "model_type is missing"),
        ({"quantization": {"quant_algo": "FP8"}}, "quantisation side file; load the config.json beside it"),
        ({"model_type": "oracle"}, "architecture 'oracle' is not known; known are baichuan, bert"),
        ({"model_type": "llama"}, "missing: num_hidden_layers or n_layer"),
        ({"model_type": "gpt2", **GPT, "n_head": "12"}, "gpt2 has a value of the wrong kind"),
        ({"model_type": "gpt2", **GPT, "n_inner": 3072.5}, "not a whole number: ffn_hidden 3072.5"),
        ({"model_type": "gpt2", **GPT, "n_layer": -1}, "layers -1 is negative"),
        ({"model_type": "gpt2", **GPT, "n_layer": 0}, "layers, hidden or heads are missing"),
        ({"model_type": "mixtral", **GPT}, "missing: number of experts or experts per token"),
        (
            {"model_type": "deepseek_v3", **GPT, "n_routed_experts": 8, "num_experts_per_tok": 2},
            "qk_nope_head_dim is missing",
        ),
        ({"model_type": "jamba", "mamba_d_state": 16}, "mamba_d_state: state-space blocks"),
        ({"model_type": "albert", "num_hidden_groups": 1}, "num_hidden_groups: blocks share their weights"),
        (
            {"_class_name": "UNet2DConditionModel"},
            "UNet2DConditionModel is a diffusers network of convolutions",
        ),
        (
            {
                "model_type": "mistral",
                **GPT,
                "sliding_window": 8,
                "layer_types": ["full_attention", "sliding_attention", "x"],
            },
            "full attention does not come at a fixed period",
        ),
        ([], "expected an object of settings, found list"),
    ],
)
def test_what_cannot_be_a_model_is_refused_with_the_reason(config, says):
    with pytest.raises(ConfigError) as caught:
        model_from_config(config, "toy")
    assert says in str(caught.value)


def test_a_file_that_is_not_json_is_named(tmp_path):
    path = tmp_path / "config.json"
    path.write_text("{", "utf-8")
    with pytest.raises(ConfigError, match=r"config\.json: not JSON"):
        load_hf_config(path)


VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 64), st.floats(), st.text(max_size=3), st.just([]), st.just({})
)


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(sorted(SMALL_CONFIGS)), st.data())
def test_damaged_configs_load_or_are_refused(key, data):
    config = dict(SMALL_CONFIGS[key])
    for name in data.draw(st.lists(st.sampled_from(sorted(config)), min_size=1, max_size=3, unique=True)):
        config[name] = data.draw(VALUES, label=name)
    told = counted = None
    try:
        model = model_from_config(config, "toy")
        counted = weights(model).total == model.params_total
    except ConfigError as refusal:
        told = str(refusal)
    assert told or counted


def samples():
    return sorted(SAMPLES.glob("*.json")) or [None]


@pytest.mark.parametrize("path", samples(), ids=lambda path: path.stem if path else "absent")
def test_real_configs_load_or_are_refused_with_a_reason(path):
    if path is None:
        pytest.skip("the sample configs are not here")
    told, parameters = "", 0
    try:
        parameters = load_hf_config(path).params_total
    except ConfigError as refusal:
        told = str(refusal)
    reasons = (
        "cannot be expressed as a shape",
        "not known; known are",
        "diffusers",
        "quantisation side file",
    )
    assert parameters > 0 or any(reason in told for reason in reasons)
    assert parameters > 0 or "reduced" not in path.stem or "jamba" in path.stem
