"""Loads of several bytes at once, and fetching what is needed next."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from tinydata.core.kernels import inlined

HIGH_BITS = np.uint64(0x8080808080808080)
LOW_BITS = np.uint64(0x0101010101010101)
# masks of the first n bytes of 16, as two words
_LOW = np.array([(1 << 8 * min(n, 8)) - 1 for n in range(17)], np.uint64)
_HIGH = np.array([(1 << 8 * max(n - 8, 0)) - 1 for n in range(17)], np.uint64)


@intrinsic
def _load_word(typingctx, data, i):
    """data uint8[n], i -> the 8 bytes at i as one little-endian uint64; unaligned, unchecked."""

    def codegen(context, builder, signature, args):
        array = context.make_array(signature.args[0])(context, builder, args[0])
        at = builder.gep(array.data, [args[1]])
        wide = builder.bitcast(at, ir.IntType(64).as_pointer())
        load = builder.load(wide)
        load.align = 1
        return load

    return types.uint64(data, types.intp), codegen


load8: Any = _load_word


@intrinsic
def _fetch(typingctx, array, i):
    """Fetches array[i], which will be written, into the processor's cache."""

    def codegen(context, builder, signature, args):
        at = builder.gep(context.make_array(signature.args[0])(context, builder, args[0]).data, [args[1]])
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag])
        fetch = builder.module.declare_intrinsic("llvm.prefetch", [byte], kind)
        builder.call(fetch, [builder.bitcast(at, byte), flag(1), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(array, types.intp), codegen


prefetch: Any = _fetch


@inlined()
def has_byte(eight, repeated):
    """Whether eight bytes contain a byte, which is given eight times."""
    x = eight ^ repeated
    return (x - LOW_BITS) & ~x & HIGH_BITS != np.uint64(0)


@inlined()
def load16(data, start, n):
    """Bytes [start, start + n), n <= 16 -> (first eight, next eight), zero padded."""
    if start + 16 <= len(data):
        return load8(data, start) & _LOW[n], load8(data, start + 8) & _HIGH[n]
    low, high = np.uint64(0), np.uint64(0)
    for k in range(n):
        if k < 8:
            low |= np.uint64(data[start + k]) << np.uint64(8 * k)
        else:
            high |= np.uint64(data[start + k]) << np.uint64(8 * (k - 8))
    return low, high


@intrinsic
def _lowest(typingctx, bits):
    """uint64 other than 0 -> position of its lowest set bit."""

    def codegen(context, builder, signature, args):
        return builder.cttz(args[0], ir.IntType(1)(1))

    return types.int64(types.uint64), codegen


@intrinsic
def _highest(typingctx, bits):
    """uint64 other than 0 -> position of its highest set bit."""

    def codegen(context, builder, signature, args):
        return builder.sub(ir.IntType(64)(63), builder.ctlz(args[0], ir.IntType(1)(1)))

    return types.int64(types.uint64), codegen


lowest_bit: Any = _lowest
highest_bit: Any = _highest
