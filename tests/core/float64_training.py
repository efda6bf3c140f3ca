"""The command `train` in float64, where rounding opens no gate and breaks no tie.

In float32 a value next to 0 may pass a ReLU or not, by the size of a batch alone, and a tie between
two kernels may have another winner. The gradients of two runs that should be equal then differ by
much more than rounding (by 5e-3 for `reference_network` with the seed 0).
"""

from __future__ import annotations

import torch

from video_knet_core.cli import main
from video_knet_core.training import batches
from video_knet_core.training.targets import FrameTargets, stack_targets


def _wide_targets(frames: list[FrameTargets]) -> FrameTargets:
    parts = stack_targets(frames)
    return FrameTargets(*(t.double() if t.is_floating_point() else t for t in parts))


if __name__ == "__main__":
    torch.set_default_dtype(torch.float64)
    torch.Tensor.float = torch.Tensor.double  # type: ignore[method-assign]
    batches.stack_targets = _wide_targets  # type: ignore[assignment]
    raise SystemExit(main())
