"""The error of one layer's fast kernel, measured with its own weights."""

from __future__ import annotations

import numpy as np

from fastcnn import _native
from fastcnn.engine.plan.candidates import Target
from fastcnn.engine.plan.slots import Candidate, Draft, Slot, Storage

_FILTERS = 32  # enough outputs to see the spread; packing all of VGG's would take seconds
_SIZE = 26  # rows and columns: whole and cut tiles of every form


def layer_error(draft: Draft, candidate: Candidate, target: Target) -> float:
    """Return max|y - y_exact| / max|y_exact| of a convolution on standard normal input.

    Both kernels run natively on the layer's first filters and a small map; the exact one is the layer's own direct
    candidate.
    """
    exact = next(c for c in draft.candidates if c.exact)
    weight = np.ascontiguousarray(draft.weights["weight"][:_FILTERS])
    source = (1, draft.inputs[0].nchw[1], _SIZE, _SIZE)
    reach = weight.shape[2] - 1
    padding = [min(p, reach) for p in draft.attrs["padding"]]  # a kernel that lies further out sees zeros alone
    result = (1, len(weight), _SIZE + padding[0] + padding[2] - reach, _SIZE + padding[1] + padding[3] - reach)
    x = np.random.default_rng(0).standard_normal(source).astype(np.float32)
    attrs = {key: draft.attrs[key] for key in ("stride", "dilation", "groups")} | {"padding": padding}
    outputs = []
    for choice in (exact, candidate):
        net = _native.Net(target.isa, 1)
        blocked_in = Storage(source, True, target.lanes)
        blocked_in.need_border(padding)
        blocked_out = Storage(result, True, target.lanes, offset=-(-blocked_in.floats() // 16) * 16)
        net.set_arena(blocked_out.offset + blocked_out.floats())
        slots = [
            Slot(Storage(source, False, target.lanes, space="input"), source, source),
            Slot(blocked_in, source, source),
            Slot(blocked_out, result, result),
            Slot(Storage(result, False, target.lanes, space="output"), result, result),
        ]
        native = [slot.to_native() for slot in slots]
        net.add_step("relayout", [native[0]], native[1], {}, {})
        net.add_step(choice.op, [native[1]], native[2], {**attrs, **choice.attrs}, {"weight": weight})
        net.add_step("relayout", [native[2]], native[3], {}, {})
        net.finish()
        y = np.empty(result, np.float32)
        net.run([x], [y])
        outputs.append(y.astype(np.float64))
    top = float(np.abs(outputs[0]).max())
    return float(np.abs(outputs[1] - outputs[0]).max()) / top if top > 0 else 0.0
