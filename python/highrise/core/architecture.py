"""Floor 0, architecture: which blocks each architecture of Hugging Face is made of, from its `config.json`.

One function an architecture says how it differs from Llama; what comes out is a `DecoderShape`. Knows nothing of
tensors or of GGUF. Defaults where a file is silent are those of transformers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from highrise.core.errors import InputError
from highrise.core.rotary import rotary
from highrise.core.shape import DIMENSIONS, DecoderShape, LayerKind, Rotary

__all__ = ["ARCHITECTURES", "shape_of_config", "windows_of"]

Config = Mapping[str, object]
Fields = dict[str, object]
_ACTIVATIONS = {"silu": "silu", "swish": "silu", "gelu_pytorch_tanh": "gelu"}
ARCHITECTURES = {
    "LlamaForCausalLM": "llama",
    "MistralForCausalLM": "mistral",
    "Qwen2ForCausalLM": "qwen2",
    "Qwen3ForCausalLM": "qwen3",
    "GemmaForCausalLM": "gemma",
    "Gemma2ForCausalLM": "gemma2",
    "Gemma3ForCausalLM": "gemma3",
    "Phi3ForCausalLM": "phi3",
    "Starcoder2ForCausalLM": "starcoder2",
}


def shape_of_config(config: Config, *, where: str) -> tuple[str, DecoderShape]:
    """The architecture (a value of `ARCHITECTURES`) and the shape that a `config.json` describes.

    `InputError`, with `where`, for an architecture or a field that is not run, by name.
    """
    names = config.get("architectures")
    name = names[0] if isinstance(names, list) and names else "nothing"
    if name not in ARCHITECTURES:
        raise InputError(f"{where} names the architecture {name}; {', '.join(ARCHITECTURES)} are run")
    architecture = ARCHITECTURES[name]
    fields: Fields = {key: config[key] for key in _DIMENSIONS if config.get(key) is not None}
    fields.setdefault("num_key_value_heads", fields.get("num_attention_heads"))
    hidden, heads = fields.get("hidden_size"), fields.get("num_attention_heads")
    if "head_dim" not in fields and architecture.startswith("gemma"):
        fields["head_dim"] = 256
    if "head_dim" not in fields and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        fields["head_dim"] = hidden // heads
    fields |= _BLOCKS[architecture](config, where)
    try:
        shape = msgspec.convert(fields, DecoderShape)
    except msgspec.ValidationError as error:
        raise InputError(f"{where} does not describe a decoder: {error}") from error
    return architecture, _with_layers(shape, architecture, config, where)


# The base of rotary embeddings and biases are read by what knows the architecture.
_DIMENSIONS = tuple(name for name in DIMENSIONS if name not in ("rope_theta", "attention_bias"))


def _activation(config: Config, where: str, default: str = "silu", key: str = "hidden_act") -> str:
    name = config.get(key) or default
    if name not in _ACTIVATIONS:
        raise InputError(f"{where} has the activation {name}; {', '.join(_ACTIVATIONS)} are run")
    return _ACTIVATIONS[str(name)]


def _llama(config: Config, where: str) -> Fields:
    bias = bool(config.get("attention_bias", False))
    return {
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": bool(config.get("mlp_bias", False)),
        "activation": _activation(config, where),
    }


def _mistral(config: Config, where: str) -> Fields:
    return {"activation": _activation(config, where)}


def _qwen2(config: Config, where: str) -> Fields:
    return {"attention_bias": config.get("attention_bias", True), "activation": _activation(config, where)}


def _qwen3(config: Config, where: str) -> Fields:
    return {**_llama(config, where), "mlp_bias": False, "query_key_norm": True}


def _gemma(config: Config, where: str) -> Fields:
    # "gelu" in the first Gemma's files always meant the tanh form.
    name = config.get("hidden_activation") or config.get("hidden_act") or "gelu_pytorch_tanh"
    activation = _activation({"hidden_act": "gelu_pytorch_tanh" if name == "gelu" else name}, where)
    bias = bool(config.get("attention_bias", False))
    hidden = config.get("hidden_size")
    return {
        "activation": activation,
        "attention_bias": bias,
        "output_bias": bias,
        "embedding_scale": float(hidden) ** 0.5 if isinstance(hidden, int) and hidden > 0 else 1.0,
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
    }


def _gemma2(config: Config, where: str, *, caps: tuple[float, float] = (50.0, 30.0)) -> Fields:
    scalar = config.get("query_pre_attn_scalar", 256)
    if not isinstance(scalar, int | float) or scalar <= 0:
        raise InputError(f"{where} has the query_pre_attn_scalar {scalar!r}; a positive number is needed")
    return {
        **_gemma(config, where),
        "sandwich_norms": True,
        "attention_scale": float(scalar) ** -0.5,
        "attention_softcap": config.get("attn_logit_softcapping", caps[0]) or 0.0,
        "logit_softcap": config.get("final_logit_softcapping", caps[1]) or 0.0,
    }


def _gemma3(config: Config, where: str) -> Fields:
    return {**_gemma2(config, where, caps=(0.0, 0.0)), "query_key_norm": True}


def _phi3(config: Config, where: str) -> Fields:
    return {"activation": _activation(config, where), "rms_norm_eps": config.get("rms_norm_eps", 1e-5)}


def _starcoder2(config: Config, where: str) -> Fields:
    bias = bool(config.get("use_bias", True))
    activation = _activation(config, where, "gelu_pytorch_tanh")
    if activation != "gelu":
        raise InputError(f"{where} has the activation {config['hidden_act']}; StarCoder2 runs with gelu_pytorch_tanh")
    return {
        "layer_norm": True,
        "rms_norm_eps": config.get("norm_epsilon", 1e-5),
        "attention_bias": bias,
        "output_bias": bias,
        "mlp_bias": bias,
        "gated": False,
        "activation": activation,
        "tie_word_embeddings": config.get("tie_word_embeddings", True),
    }


_BLOCKS: dict[str, Callable[[Config, str], Fields]] = {
    "llama": _llama,
    "mistral": _mistral,
    "qwen2": _qwen2,
    "qwen3": _qwen3,
    "gemma": _gemma,
    "gemma2": _gemma2,
    "gemma3": _gemma3,
    "phi3": _phi3,
    "starcoder2": _starcoder2,
}


def windows_of(shape: DecoderShape, window: int, slides: Callable[[int], bool]) -> tuple[int, ...]:
    """The window of each layer, of those for which `slides`; one as wide as the context is none."""
    wide = not 0 < window < shape.max_position_embeddings
    return tuple(0 if wide or not slides(layer) else window for layer in range(shape.num_hidden_layers))


def _sliding(shape: DecoderShape, architecture: str, config: Config, where: str) -> tuple[int, Callable[[int], bool]]:
    """The window that a file names (0 for none), and which layers have it."""
    window = config.get("sliding_window", 4096 if architecture in ("mistral", "gemma2", "gemma3") else None)
    if architecture in ("qwen2", "qwen3") and not config.get("use_sliding_window", False):
        window = None
    if architecture in ("llama", "gemma"):
        window = None
    types = config.get("layer_types")
    pattern = config.get("sliding_window_pattern", 6)
    full_below = config.get("max_window_layers", 28)
    if window is not None and not (isinstance(window, int) and window > 0):
        raise InputError(f"{where} has the sliding_window {window!r}; a positive number is needed")
    if not isinstance(pattern, int) or pattern < 1 or not isinstance(full_below, int):
        raise InputError(f"{where} has sliding_window_pattern {pattern!r} and max_window_layers {full_below!r}")
    if isinstance(types, list):
        if len(types) != shape.num_hidden_layers or not set(types) <= {"full_attention", "sliding_attention"}:
            raise InputError(
                f"{where} has the layer_types {types}; full_attention and sliding_attention are run, one for each of "
                f"{shape.num_hidden_layers} layers"
            )
        return window or 0, lambda layer: types[layer] == "sliding_attention"
    slides: dict[str, Callable[[int], bool]] = {
        "qwen2": lambda layer: layer >= full_below,
        "qwen3": lambda layer: layer >= full_below,
        "gemma2": lambda layer: layer % 2 == 0,
        "gemma3": lambda layer: (layer + 1) % pattern != 0,
    }
    return window or 0, slides.get(architecture, lambda layer: True)


def _with_layers(shape: DecoderShape, architecture: str, config: Config, where: str) -> DecoderShape:
    """`shape` with its rotary tables and windows; left out where they are plain."""
    window, slides = _sliding(shape, architecture, config, where)
    windows = windows_of(shape, window, slides)
    scaling = config.get("rope_parameters") or config.get("rope_scaling") or {}
    if not isinstance(scaling, Mapping):
        raise InputError(f"{where} has the rope_parameters {scaling!r}; a table is needed")
    tables: list[Mapping[str, object]] = [scaling]
    thetas = [config.get("rope_theta") or 10_000.0]
    if architecture == "gemma3":
        full = scaling.get("full_attention", {} if "sliding_attention" in scaling else scaling)
        tables = [full or {}, scaling.get("sliding_attention") or {}]
        thetas = [config.get("rope_theta") or 1e6, config.get("rope_local_base_freq") or 1e4]
    resolved: list[Rotary] = []
    bases: list[float] = []
    for table, default in zip(tables, thetas, strict=True):
        partial = {"partial_rotary_factor": config.get("partial_rotary_factor"), **table}
        base = table.get("rope_theta") or default
        if not isinstance(base, int | float) or base <= 0:
            raise InputError(f"{where} has the rope_theta {base!r}; a positive number is needed")
        bases.append(float(base))
        resolved.append(rotary(partial, theta=bases[-1], head_dim=shape.head_dim, where=where))
    shape = msgspec.structs.replace(shape, rope_theta=bases[0])
    original, factor = scaling.get("original_max_position_embeddings"), scaling.get("factor")
    if scaling.get("rope_type", scaling.get("type")) == "yarn" and isinstance(original, int):
        # Files for YaRN often still give the context before it.
        stretched = int(original * factor) if isinstance(factor, int | float) else 0
        context = max(shape.max_position_embeddings, stretched)
        shape = msgspec.structs.replace(shape, max_position_embeddings=context)
    if len(resolved) == 1 and resolved[0] == rotary({}, theta=bases[0], head_dim=shape.head_dim, where=where):
        resolved = []
    # Gemma 3 turns these with its second table, whether or not their window is narrower than the context.
    has_local = len(resolved) > 1
    kinds = tuple(LayerKind(width, int(has_local and slides(layer))) for layer, width in enumerate(windows))
    if all(kind == LayerKind() for kind in kinds):
        kinds = ()
    return msgspec.structs.replace(shape, rotary=tuple(resolved), layer_kinds=kinds)
