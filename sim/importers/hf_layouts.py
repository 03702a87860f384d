"""The phrase book of Hugging Face configs: what each architecture takes for granted, and counts besides.

A config leaves out what its modelling code fixes: biases, norms, tied embeddings. ``LAYOUTS`` states it per
``model_type``, as written in huggingface/transformers (src/transformers/models); small functions add the
fields and parameters that are particular to a family.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

Config = Mapping[str, Any]
Fields = dict[str, Any]


class ConfigError(ValueError):
    """A config that cannot become a model; the message names what is missing or cannot be expressed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """What an architecture takes for granted."""

    kind: str = "decoder"
    gated: bool = True
    bias: str = "none"
    norm: str = "rms"
    norms: int = 2
    qk_norm: bool = False
    position: str = "rope"
    tied: bool = False
    """Where the config does not say."""
    add: Callable[[Config, Fields], None] | None = None
    """Sets the fields that are particular to the family."""


def first(config: Config, *names: str) -> Any:
    return next((config[name] for name in names if config.get(name) is not None), None)


def _moe(config: Config, fields: Fields) -> None:
    """Routed and shared experts, whatever their names."""
    experts = first(config, "num_experts", "num_local_experts", "n_routed_experts")
    width = first(config, "moe_intermediate_size") or fields["ffn_hidden"]
    shared_width = config.get("shared_expert_intermediate_size") or 0
    shared = config.get("n_shared_experts") or shared_width / width
    if shared != int(shared):
        raise ConfigError(f"a shared expert of width {shared_width} is no multiple of an expert's ({width})")
    fields.update(
        kind="moe",
        experts=experts,
        topk=first(config, "num_experts_per_tok", "top_k_experts", "moe_top_k"),
        shared_experts=int(shared),
        moe_ffn_hidden=width,
        first_dense_layers=config.get("first_k_dense_replace") or 0,
        moe_layer_step=first(config, "decoder_sparse_step", "moe_layer_freq") or 1,
        router_bias=config.get("topk_method") == "noaux_tc" or bool(config.get("use_routing_bias")),
        mtp_layers=first(config, "num_nextn_predict_layers", "num_mtp_modules") or 0,
    )
    if not experts or not fields["topk"]:
        raise ConfigError("missing: number of experts or experts per token")
    if shared_width:
        fields["extra_params"] = fields["layers"] * fields["hidden"]
        fields["note"] = "extra_params: gate of the shared expert"


def _mla(config: Config, fields: Fields) -> None:
    """DeepSeek-V2 and later: compressed keys, values and queries; V3.2 adds an index of keys."""
    _moe(config, fields)
    fields.update(
        kind="mla-moe",
        head_dim=config["qk_nope_head_dim"],
        v_head_dim=config["v_head_dim"] if config["v_head_dim"] != config["qk_nope_head_dim"] else 0,
        rope_dim=config["qk_rope_head_dim"],
        kv_lora_rank=config["kv_lora_rank"],
        q_lora_rank=config.get("q_lora_rank") or 0,
    )
    if config.get("index_topk"):
        heads, d, h = config["index_n_heads"], config["index_head_dim"], fields["hidden"]
        fields["extra_params"] = fields["layers"] * (
            fields["q_lora_rank"] * heads * d + h * d + 2 * d + h * heads
        )
        fields["note"] = (
            f"extra_params: index of keys; attention to its {config['index_topk']} best is counted as full"
        )


def _qk_norm_whole(config: Config, fields: Fields) -> None:
    """Query and key are normalised over the whole projection, not per head."""
    _moe(config, fields)
    widths = (fields["heads"] + fields["kv_heads"]) * fields["head_dim"]
    fields.update(
        qk_norm=False, extra_params=fields["layers"] * widths, note="extra_params: query and key norms"
    )


def _gpt_oss(config: Config, fields: Fields) -> None:
    _moe(config, fields)
    fields.update(
        bias="all",
        router_bias=True,
        extra_params=fields["layers"] * fields["heads"],
        note="extra_params: attention sinks",
    )


def _llama4(config: Config, fields: Fields) -> None:
    _moe(config, fields)
    fields.update(
        ffn_hidden=config["intermediate_size_mlp"],
        moe_ffn_hidden=config["intermediate_size"],
        shared_experts=1,
        moe_layer_step=config.get("interleave_moe_layer_step") or 1,
        note=f"attention in chunks of {config.get('attention_chunk_size')} tokens is counted as full",
    )


def _glm_moe(config: Config, fields: Fields) -> None:
    _moe(config, fields)
    fields.update(router_bias=True, qk_norm=bool(config.get("use_qk_norm")))
    if config.get("attention_bias"):
        fields["bias"] = "qkv"


def _head_bias(_config: Config, fields: Fields) -> None:
    fields.update(extra_params=fields["vocab"], note="extra_params: bias of the output head")


def _bigcode(config: Config, fields: Fields) -> None:
    if config.get("multi_query", True):
        fields["kv_heads"] = 1


def _bloom(_config: Config, fields: Fields) -> None:
    fields.update(extra_params=2 * fields["hidden"], note="extra_params: LayerNorm after the embedding")


def _opt(config: Config, fields: Fields) -> None:
    h, e, vocab = fields["hidden"], config.get("word_embed_proj_dim") or fields["hidden"], fields["vocab"]
    fields["max_positions"] += 2  # the position table has two spare rows
    extra = 0 if e == h else vocab * (e - h) + 2 * e * h
    extra -= 0 if config.get("do_layer_norm_before", True) else 2 * h
    if extra:
        fields.update(
            extra_params=extra, note="extra_params: narrow embedding with projections, no final norm"
        )


def _falcon(config: Config, fields: Fields) -> None:
    new = bool(config.get("new_decoder_architecture"))
    if not new:
        fields["kv_heads"] = 1 if config.get("multi_query", True) else fields["heads"]
    fields.update(
        bias="all" if config.get("bias") else "none",
        norms_per_layer=2 if new or not config.get("parallel_attn", True) else 1,
        position_kind="alibi" if config.get("alibi") else "rope",
    )


def _mpt(config: Config, fields: Fields) -> None:
    attention = config.get("attn_config") or {}
    fields.update(
        kv_heads=attention.get("kv_n_heads") or fields["heads"],
        ffn_hidden=int(config.get("expansion_ratio", 4) * fields["hidden"]),
        position_kind="alibi" if attention.get("alibi") else "learned",
    )
    if config.get("no_bias") is False:
        fields.update(bias="all", norm="ln")


def _dbrx(config: Config, fields: Fields) -> None:
    attention, ffn = config.get("attn_config") or {}, config.get("ffn_config") or {}
    names = {
        "moe_num_experts": "num_experts",
        "moe_top_k": "num_experts_per_tok",
        "ffn_hidden_size": "moe_intermediate_size",
    }
    fields["kv_heads"] = attention.get("kv_n_heads") or fields["heads"]
    fields["ffn_hidden"] = ffn.get("ffn_hidden_size") or fields["ffn_hidden"]
    _moe({names[name]: value for name, value in ffn.items() if name in names}, fields)


def _stablelm(config: Config, fields: Fields) -> None:
    fields["bias"] = "qkv" if config.get("use_qkv_bias") else "none"
    if config.get("use_parallel_residual"):
        fields["norms_per_layer"] = 1


def _bert(config: Config, fields: Fields) -> None:
    h = fields["hidden"]
    extra = (config.get("type_vocab_size") or 0) * h + h * h + h
    fields.update(extra_params=extra, note="extra_params: token types and the pooler; no language-model head")


def _t5(config: Config, fields: Fields) -> None:
    activation = str(config.get("feed_forward_proj", "relu"))
    fields.update(
        decoder_layers=config.get("num_decoder_layers") or fields["layers"],
        gated_ffn=activation.startswith("gated"),
        extra_params=2 * config.get("relative_attention_num_buckets", 32) * fields["heads"],
        note="extra_params: relative position tables",
    )


def _whisper(config: Config, fields: Fields) -> None:
    h, mel = fields["hidden"], config.get("num_mel_bins", 80)
    positions = config.get("max_source_positions", 1500) + config.get("max_target_positions", 448)
    fields.update(
        decoder_layers=config.get("decoder_layers") or fields["layers"],
        max_positions=config.get("max_target_positions", 448),
        extra_params=3 * mel * h + h + 3 * h * h + h + positions * h,
        note="extra_params: 2 convolutions and both position tables",
    )


def _vit(config: Config, fields: Fields) -> None:
    h, patch = fields["hidden"], config.get("patch_size", 16)
    labels = len(config.get("id2label") or {}) or config.get("num_labels") or 2
    fields.update(
        max_positions=(config.get("image_size", 224) // patch) ** 2 + 1,
        extra_params=patch * patch * config.get("num_channels", 3) * h + 2 * h + labels * (h + 1),
        note="extra_params: patch projection, class token, head",
    )


def _text_only(_config: Config, fields: Fields) -> None:
    fields["note"] = "language part alone, without vision or audio towers"


LAYOUTS: Mapping[str, Layout] = {
    # decoders with gated MLP, RMSNorm and rotary positions
    "llama": Layout(),
    "mistral": Layout(),
    "baichuan": Layout(),
    "phi3": Layout(),
    "phi4mm": Layout(tied=True, add=_text_only),
    "llava": Layout(add=_text_only),
    "mimo": Layout(bias="qkv"),
    "qwen2": Layout(bias="qkv"),
    "qwen3": Layout(qk_norm=True),
    "qwen3_vl": Layout(qk_norm=True),
    "gemma": Layout(tied=True),
    "gemma2": Layout(tied=True, norms=4),
    "gemma3": Layout(tied=True, norms=4, qk_norm=True),
    "glm": Layout(bias="qkv"),
    "glm4": Layout(bias="qkv", norms=4),
    # decoders before Llama
    "gpt2": Layout(gated=False, bias="all", norm="ln", position="learned", tied=True),
    "gpt_bigcode": Layout(gated=False, bias="all", norm="ln", position="learned", tied=True, add=_bigcode),
    "gpt_neox": Layout(gated=False, bias="all", norm="ln"),
    "gptj": Layout(gated=False, bias="ffn", norm="ln", norms=1, add=_head_bias),
    "codegen": Layout(gated=False, bias="ffn", norm="ln", norms=1, add=_head_bias),
    "phi": Layout(gated=False, bias="all", norm="ln", norms=1, add=_head_bias),
    "opt": Layout(gated=False, bias="all", norm="ln", position="learned", tied=True, add=_opt),
    "bloom": Layout(gated=False, bias="all", norm="ln", position="alibi", tied=True, add=_bloom),
    "falcon": Layout(gated=False, norm="ln", tied=True, add=_falcon),
    "mpt": Layout(gated=False, position="alibi", tied=True, add=_mpt),
    "nemotron": Layout(gated=False, norm="ln"),
    "stablelm": Layout(norm="ln", add=_stablelm),
    # mixtures of experts
    "mixtral": Layout(kind="moe", add=_moe),
    "qwen2_moe": Layout(kind="moe", bias="qkv", add=_moe),
    "qwen3_moe": Layout(kind="moe", qk_norm=True, add=_moe),
    "qwen3_vl_moe": Layout(kind="moe", qk_norm=True, add=_moe),
    "olmoe": Layout(kind="moe", add=_qk_norm_whole),
    "minimax_m2": Layout(kind="moe", add=_qk_norm_whole),
    "dbrx": Layout(kind="moe", add=_dbrx),
    "llama4": Layout(kind="moe", add=_llama4),
    "gpt_oss": Layout(kind="moe", add=_gpt_oss),
    "glm4_moe": Layout(kind="moe", add=_glm_moe),
    "deepseek_v2": Layout(kind="mla-moe", add=_mla),
    "deepseek_v3": Layout(kind="mla-moe", add=_mla),
    "deepseek_v32": Layout(kind="mla-moe", add=_mla),
    "glm_moe_dsa": Layout(kind="mla-moe", add=_mla),
    "kimi_k2": Layout(kind="mla-moe", add=_mla),
    # encoders, two stacks, images
    "bert": Layout(
        kind="encoder", gated=False, bias="all", norm="ln", position="learned", tied=True, add=_bert
    ),
    "roberta": Layout(
        kind="encoder", gated=False, bias="all", norm="ln", position="learned", tied=True, add=_bert
    ),
    "t5": Layout(kind="encoder-decoder", gated=False, position="relative", tied=True, add=_t5),
    "whisper": Layout(
        kind="speech", gated=False, bias="qvo", norm="ln", position="learned", tied=True, add=_whisper
    ),
    "vit": Layout(kind="vit", gated=False, bias="all", norm="ln", position="learned", add=_vit),
}

NOT_EXPRESSIBLE: Mapping[str, str] = {
    "block_configs": "every block has its own shape",
    "hybrid_override_pattern": "state-space blocks stand between attention and MLP blocks",
    "mamba_d_state": "state-space blocks stand between attention blocks",
    "linear_num_value_heads": "linear-attention blocks stand between attention blocks",
    "cross_attention_layers": "some blocks attend to an image instead of the text",
    "global_head_dim": "global and local attention have different heads",
    "num_hidden_groups": "blocks share their weights",
    "mlp_only_layers": "dense blocks stand at irregular places",
}
"""Settings that say a model is no regular stack, with the reason."""
