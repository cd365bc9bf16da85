"""A model file of the engine as a C header: the model lies in flash, and `kouling_model_open` uses it in place."""

from __future__ import annotations

import re

ALIGNMENT = 64  # what the engine's widest kernels load at once
PER_LINE = 24


def header(packed: bytes, name: str) -> str:
    """The header's text. name: of the model; its symbol is `kouling_` and the name, in C's letters."""
    symbol = "kouling_" + re.sub(r"\W", "_", name, flags=re.ASCII)
    rows = [",".join(map(str, packed[at : at + PER_LINE])) for at in range(0, len(packed), PER_LINE)]
    body = ",\n".join(rows)
    return f"""/* {name}, {len(packed)} bytes: kouling_model_open(&model, {symbol}, sizeof {symbol}).
 * Include it in one source file. */
#include <stdint.h>
#if defined(__cplusplus)
alignas({ALIGNMENT}) static const uint8_t {symbol}[] = {{
#elif defined(__STDC_VERSION__) && __STDC_VERSION__ >= 201112L
_Alignas({ALIGNMENT}) static const uint8_t {symbol}[] = {{
#else
static const uint8_t {symbol}[] __attribute__((aligned({ALIGNMENT}))) = {{
#endif
{body}}};
"""
