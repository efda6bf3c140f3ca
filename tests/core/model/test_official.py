"""Weights of the authors and of torchvision: every key has one place, and nothing else gets in."""

from __future__ import annotations

import pickle

import pytest
import torch
from golden import official_config, official_shapes, small_config, small_weights

from video_knet_core.model.checkpoint import CheckpointError, load_model, save_model
from video_knet_core.model.official import (
    import_official,
    official_difference,
    read_official,
    translate,
)
from video_knet_core.model.video_knet import VideoKNet
from video_knet_core.training.initial_weights import start_from


def test_all_549_official_keys_are_used_or_known_as_never_used():
    shapes = official_shapes()
    tensors = {key: torch.zeros(shape) for key, shape in shapes.items()}
    ours, unused = translate(tensors)
    fused = sum("in_proj" in key for key in shapes if key not in unused)
    assert len(shapes) == 549
    assert len(unused) == 24  # the link modules of stages 0 and 1
    assert len(ours) == 549 - 24 + 2 * fused  # a fused projection becomes query, key and value
    with torch.device("meta"):
        own = VideoKNet(official_config()).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: v.shape for k, v in own.items()}


def test_an_imported_model_is_saved_and_loaded_as_any_other(tmp_path):
    model = import_official(small_weights(), small_config())
    save_model(model, tmp_path / "small.safetensors")
    loaded = load_model(tmp_path / "small.safetensors")
    assert loaded.config == model.config
    assert all(torch.equal(v, loaded.state_dict()[k]) for k, v in model.state_dict().items())


def test_missing_unexpected_and_misshapen_weights_are_all_named():
    weights = small_weights()
    del weights["fc_embed.bias"]
    weights["rpn_head.conv_seg.bias"] = torch.zeros(7)
    with pytest.raises(CheckpointError) as error:
        import_official(weights, small_config(fusion="link_atten"))
    message = str(error.value)
    assert "missing embedding.layers.3.bias" in message
    assert "missing stages.2.fusion.interaction.attention.query.weight" in message
    assert "head.classifier.bias: expected (19,), got (7,)" in message
    with pytest.raises(CheckpointError, match=r"no place for 1 keys: rpn_head\.novelty"):
        translate(small_weights() | {"rpn_head.novelty": torch.zeros(1)})


def test_a_checkpoint_of_mmcv_is_read_without_running_what_is_in_it(tmp_path):
    weights = {f"module.{k}": v for k, v in small_weights().items()}
    torch.save({"meta": {"epoch": 12}, "state_dict": weights}, tmp_path / "official.pth")
    read = read_official(tmp_path / "official.pth")
    assert set(read) == set(small_weights())


def pth_of_classes(path, names):
    torch.save({"meta": {"CLASSES": names}, "state_dict": small_weights()}, path)
    return path


def test_class_names_in_a_checkpoint_are_those_of_the_configuration(tmp_path):
    classes = small_config().classes
    by_id = [info.name for info in classes]
    for names in (by_id, [by_id[i] for i in classes.logit_class_ids], by_id[:3]):
        path = pth_of_classes(tmp_path / "official.pth", tuple(names))
        assert official_difference(path, classes) == ""


def test_a_checkpoint_of_other_classes_is_named(tmp_path):
    classes = small_config().classes
    names = [info.name for info in classes]
    names[2], names[3] = names[3], names[2]
    path = pth_of_classes(tmp_path / "official.pth", tuple(names))
    message = official_difference(path, classes)
    assert message.startswith(f"class 2: expected {names[3]!r}") and repr(names[2]) in message


class Payload:
    def __reduce__(self):
        return (print, ("this must never run",))


def test_a_pickle_payload_is_rejected_by_name(tmp_path, capsys):
    torch.save({"state_dict": {"fc_embed.bias": Payload()}}, tmp_path / "evil.pth")
    with pytest.raises(CheckpointError, match=r"evil\.pth cannot be read as plain weights"):
        read_official(tmp_path / "evil.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Payload()))
    with pytest.raises(CheckpointError, match=r"raw\.pth"):
        read_official(tmp_path / "raw.pth")
    assert "never" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("key", "shape"),
    [
        ("rpn_head.init_kernels.weight", (20, 16, 2, 2)),
        ("rpn_head.init_kernels.weight", (20,)),
        ("roi_head.mask_head.0.attention.attn.in_proj_weight", (2, 64)),
        ("roi_head.mask_head.0.attention.attn.in_proj_bias", ()),
        ("roi_head.mask_head.0.feat_transform.conv.weight", ()),
    ],
)
def test_a_weight_that_cannot_be_converted_is_named(key, shape):
    with pytest.raises(CheckpointError, match=key.replace(".", r"\.")):
        translate({key: torch.zeros(shape)})


def test_two_weights_for_one_place_are_an_error():
    link = "roi_head.mask_head.2.attention_previous"
    both = {f"{link}{kind}.attn.out_proj.bias": torch.zeros(64) for kind in ("", "_track")}
    with pytest.raises(CheckpointError, match="one of two weights for stages.2.linking"):
        translate(both)


@pytest.mark.parametrize("content", [b"", b"not a checkpoint", b"PK\x03\x04 cut off"])
def test_a_file_that_is_no_checkpoint_is_named(tmp_path, content):
    (tmp_path / "broken.pth").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"broken\.pth"):
        read_official(tmp_path / "broken.pth")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        read_official(tmp_path / "absent.pth")


def test_a_resnet_of_torchvision_starts_the_backbone():
    backbone = {
        k.removeprefix("backbone."): v
        for k, v in small_weights().items()
        if k.startswith("backbone.")
    }
    state, unused = translate(
        backbone | {"fc.weight": torch.zeros(3, 3), "fc.bias": torch.zeros(3)}
    )
    assert unused == ["fc.weight", "fc.bias"]
    model = VideoKNet(small_config())
    start_from(model, state)
    assert torch.equal(model.backbone.conv1.weight, small_weights()["backbone.conv1.weight"])


def test_an_image_k_net_of_other_classes_starts_all_but_video_parts_and_classifiers():
    video = ("track_head", "embed_fcs", "fc_embed", "attention_previous", "link_ffn")
    image = {k: v for k, v in small_weights().items() if not any(part in k for part in video)}
    image["rpn_head.conv_seg.bias"] = torch.zeros(133)
    model = VideoKNet(small_config())
    first = model.head.classifier.bias.clone()
    start_from(model, translate(image)[0])
    theirs = image["roi_head.mask_head.2.fc_mask.weight"]
    assert torch.equal(model.stages[2].mask_head[3].weight, theirs)
    assert torch.equal(model.head.classifier.bias, first)
