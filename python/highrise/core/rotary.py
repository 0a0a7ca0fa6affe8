"""Floor 0, rotary: the scaled forms of rotary embeddings, as the frequencies and the magnitude they come down to.

Linear (positions divided), dynamic NTK (nothing within the trained context, which is all that is run), YaRN (Peng et
al. 2023), Llama 3 (by wavelength), and plain. Knows nothing of files.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from highrise.core.errors import InputError
from highrise.core.shape import Rotary

__all__ = ["rotary"]

KINDS = ("default", "linear", "dynamic", "yarn", "llama3")


def rotary(scaling: Mapping[str, object], *, theta: float, head_dim: int, where: str) -> Rotary:
    """The table that `scaling` describes, under the names of Hugging Face's `rope_parameters`.

    `partial_rotary_factor` turns only that share of a head. `InputError` names a kind that is not run or a number that
    is missing, with `where`.
    """
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind not in KINDS:
        raise InputError(f"{where} scales its rotary embeddings by {kind!r}; {', '.join(KINDS)} are run")
    share = _number(scaling, "partial_rotary_factor", where, 1.0)
    turned = int(head_dim * share)
    if turned < 2 or turned > head_dim or turned % 2:
        raise InputError(f"{where} turns {turned} of {head_dim} dimensions of a head (partial_rotary_factor {share})")
    plain = [theta ** (-2.0 * i / turned) for i in range(turned // 2)]
    if kind in ("default", "dynamic"):
        return Rotary(tuple(plain))
    factor = _number(scaling, "factor", where)
    if factor <= 0:
        raise InputError(f"{where} scales its rotary embeddings by the factor {factor}; it must be above 0")
    if kind == "linear":
        return Rotary(tuple(frequency / factor for frequency in plain))
    context = _number(scaling, "original_max_position_embeddings", where)
    if kind == "llama3":
        return Rotary(tuple(_by_wavelength(frequency, scaling, factor, context, where) for frequency in plain))
    return _yarn(plain, scaling, theta=theta, factor=factor, context=context, where=where)


def _by_wavelength(frequency: float, scaling: Mapping[str, object], factor: float, context: float, where: str) -> float:
    low = _number(scaling, "low_freq_factor", where)
    high = _number(scaling, "high_freq_factor", where)
    turns = context * frequency / (2 * math.pi)
    if turns < low:
        return frequency / factor
    if turns > high:
        return frequency
    smooth = (turns - low) / (high - low)
    return (1 - smooth) * frequency / factor + smooth * frequency


def _yarn(
    plain: list[float], scaling: Mapping[str, object], *, theta: float, factor: float, context: float, where: str
) -> Rotary:
    turned = 2 * len(plain)

    def place(turns: float) -> float:
        return turned * math.log(context / (turns * 2 * math.pi)) / (2 * math.log(theta))

    first = place(_number(scaling, "beta_fast", where, 32.0))
    last = place(_number(scaling, "beta_slow", where, 1.0))
    if scaling.get("truncate", True):
        first, last = math.floor(first), math.ceil(last)
    first, last = max(first, 0), min(last, turned - 1)
    width = last - first if last != first else 0.001
    frequencies = []
    for i, frequency in enumerate(plain):
        ramp = min(max((i - first) / width, 0.0), 1.0)
        frequencies.append(frequency / factor * ramp + frequency * (1 - ramp))

    def growth(weight: float) -> float:
        return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0

    magnitude = scaling.get("attention_factor")
    if magnitude is None:
        scale, scale_all = scaling.get("mscale"), scaling.get("mscale_all_dim")
        if scale and scale_all:
            magnitude = growth(_number(scaling, "mscale", where)) / growth(_number(scaling, "mscale_all_dim", where))
        else:
            magnitude = growth(1.0)
    if not isinstance(magnitude, int | float):
        raise InputError(f"{where} has the attention_factor {magnitude!r}; a number is needed")
    return Rotary(tuple(frequencies), float(magnitude))


def _number(scaling: Mapping[str, object], key: str, where: str, default: float | None = None) -> float:
    value = scaling.get(key)
    if value is None:
        value = default
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise InputError(f"{where} scales its rotary embeddings without the number {key}: {dict(scaling)}")
    return float(value)
