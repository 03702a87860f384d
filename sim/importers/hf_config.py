"""Hugging Face ``config.json`` -> ``Model``: an interpreter between many dialects and one set of field names.

Families name the same thing differently and leave out what their code takes for granted; ``hf_layouts`` is
the phrase book. A shape that ``Model`` cannot hold (state-space layers, uneven blocks, convolutional U-Nets)
is refused with the reason, never approximated.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from sim.importers.hf_layouts import LAYOUTS, NOT_EXPRESSIBLE, Config, ConfigError, Fields, Layout, first
from sim.spec.model import Model, ModelError
from sim.spec.parameter_count import NotCountable, weights

_WORDS = ("kind", "bias", "norm", "position_kind")


def load_hf_config(path: Path, key: str | None = None) -> Model:
    """The model that a ``config.json`` describes; ``key`` is the file's or its folder's name unless given.

    Raises:
        ConfigError: not JSON, unknown architecture, missing fields, or a shape that cannot be expressed.
        OSError: the file cannot be read.
    """
    try:
        config = json.loads(path.read_text("utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as fault:
        raise ConfigError(f"{path}: not JSON ({fault})") from None
    name = key or (path.parent.name if path.name == "config.json" else path.stem)
    try:
        return model_from_config(config, name or "model")
    except ConfigError as fault:
        raise ConfigError(f"{path}: {fault}") from None


def model_from_config(config: Config, key: str) -> Model:
    """The model that a parsed config describes; ``params_total`` is counted from the shape (``derived``).

    Of a multimodal model the language part alone is taken; the note says so.
    """
    if not isinstance(config, Mapping):
        raise ConfigError(f"expected an object of settings, found {type(config).__name__}")
    text, left_out = _language_part(config)
    model_type = str(text.get("model_type", ""))
    layout = _layout(config, text, model_type)
    try:
        fields = _common(text, layout)
        if layout.add:
            layout.add(text, fields)
        notes = [left_out, _quantised(config), fields.pop("note", "")]
    except ConfigError:
        raise
    except KeyError as fault:
        raise ConfigError(f"{fault.args[0]} is missing") from None
    except (TypeError, AttributeError, ArithmeticError, ValueError) as fault:
        raise ConfigError(f"a setting of {model_type} has a value of the wrong kind ({fault})") from None
    wrong = [f"{n} {v!r}" for n, v in fields.items() if n not in _WORDS and not isinstance(v, int)]
    if wrong:
        raise ConfigError(f"not a whole number: {', '.join(wrong)}")
    try:
        model = Model(
            key=key,
            name=key,
            family=model_type,
            params_total=0,
            params_kind="derived",
            source=f"Hugging Face config.json, model_type {model_type}",
            note="; ".join(note for note in notes if note),
            **fields,
        )
        return replace(model, params_total=weights(model).total)
    except (ModelError, NotCountable) as fault:
        raise ConfigError(str(fault)) from None


def _language_part(config: Config) -> tuple[Config, str]:
    for part in ("text_config", "llm_config", "language_config"):
        if isinstance(config.get(part), Mapping):
            shared = {k: config[k] for k in ("tie_word_embeddings",) if k in config}
            return {**shared, **config[part]}, "language part alone, without vision or audio towers"
    return config, ""


def _layout(config: Config, text: Config, model_type: str) -> Layout:
    for name, reason in NOT_EXPRESSIBLE.items():
        if text.get(name) not in (None, False, [], 0):
            raise ConfigError(f"{model_type or 'model'} cannot be expressed as a shape: {name}: {reason}")
    if "_class_name" in config:
        raise ConfigError(
            f"{config['_class_name']} is a diffusers network of convolutions: its blocks are no shape"
        )
    if not model_type:
        side = (
            " (this is a quantisation side file; load the config.json beside it)"
            if "quantization" in config
            else ""
        )
        raise ConfigError(f"model_type is missing{side}")
    base = model_type.removesuffix("_text")
    if base not in LAYOUTS:
        raise ConfigError(f"architecture {model_type!r} is not known; known are {', '.join(sorted(LAYOUTS))}")
    return LAYOUTS[base]


def _common(config: Config, layout: Layout) -> Fields:
    """The fields that every transformer has, whatever the family calls them."""
    names = {
        "layers": ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers"),
        "hidden": ("hidden_size", "n_embd", "n_embed", "d_model"),
        "heads": ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads"),
        "vocab": ("vocab_size",),
    }
    fields: Fields = {name: first(config, *known) for name, known in names.items()}
    if layout.kind == "vit":
        fields["vocab"] = 0
    missing = [" or ".join(names[name]) for name, value in fields.items() if value is None]
    if missing:
        raise ConfigError(f"missing: {', '.join(missing)}")
    heads, hidden = fields["heads"], fields["hidden"]
    head_dim = first(config, "head_dim", "d_kv") or hidden // max(heads, 1)
    rotated = first(config, "partial_rotary_factor", "rotary_pct")
    positions = ("max_position_embeddings", "n_positions", "max_seq_len", "model_max_length", "seq_length")
    bias = layout.bias
    if bias == "none" and config.get("attention_bias"):
        bias = "all" if config.get("mlp_bias") else "qkvo"
    return fields | {
        "kind": layout.kind,
        "kv_heads": first(config, "num_key_value_heads", "num_kv_heads", "n_head_kv") or heads,
        "head_dim": head_dim,
        "ffn_hidden": first(config, "intermediate_size", "ffn_dim", "n_inner", "d_ff", "encoder_ffn_dim")
        or 4 * hidden,
        "gated_ffn": layout.gated,
        "rope_dim": first(config, "rotary_dim")
        or (int(rotated * head_dim) if rotated not in (None, 1, 1.0) else 0),
        "max_positions": first(config, *positions) or 0,
        "position_kind": layout.position,
        "tied_embeddings": bool(config.get("tie_word_embeddings", layout.tied)),
        "bias": bias,
        "norm": layout.norm,
        "norms_per_layer": layout.norms,
        "qk_norm": layout.qk_norm,
        **_window(config),
    }


def _window(config: Config) -> Fields:
    """Sliding window and the period of layers without it."""
    window = config.get("sliding_window")
    limit = first(config, "max_position_embeddings", "model_max_length") or 0
    if not isinstance(window, int) or config.get("use_sliding_window") is False or window >= limit > 0:
        return {}
    if kinds := config.get("layer_types"):
        full = [kind == "full_attention" for kind in kinds]
        step = full.index(True) + 1 if any(full) else 0
        if full != [bool(step) and (layer + 1) % step == 0 for layer in range(len(full))]:
            raise ConfigError("layer_types: full attention does not come at a fixed period of layers")
        return {"window": window, "global_layer_step": step}
    period = config.get("sliding_window_pattern") or {"gemma2": 2, "gemma3_text": 6}.get(
        str(config.get("model_type")), 0
    )
    return {"window": window, "global_layer_step": period}


def _quantised(config: Config) -> str:
    method = (config.get("quantization_config") or {}).get("quant_method")
    return f"weights quantised: {method}" if method else ""
