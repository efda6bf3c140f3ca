"""The shipped model configurations: class tables of the data sets, settings of the authors."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
from networks import CONFIGS

from video_knet_core.config import ModelConfig
from video_knet_core.config_io import ConfigError, from_dict, load_yaml, to_dict

FILES = sorted((CONFIGS / "models").glob("*.yaml"))
CLASSES = {
    "kitti_step": (2, 17),
    "cityscapes_vps": (8, 11),
    "vipseg": (58, 66),
    "vspw": (0, 124),
    "youtube_vis": (40, 0),
    "coco_panoptic": (80, 53),
    "coco_instances": (80, 0),
    "street": (3, 8),
    "street_instances": (3, 0),
    "street_pspnet": (0, 11),
    "street_deeplabv3plus": (0, 11),
}
"""Things and stuff of each data set; the names of configurations start with that of theirs, the
longest that fits."""
FPN = {"name": "semantic_fpn", "channels": 64}
SIZES = {"kitti_step": (375, 1242), "cityscapes_vps": (1024, 2048), "vipseg": (720, 1280)}


def model(name: str) -> ModelConfig:
    return load_yaml(ModelConfig, CONFIGS / "models" / f"{name}.yaml")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_configuration_has_the_classes_and_images_of_its_data_set(path):
    config = load_yaml(ModelConfig, path)
    counts = CLASSES[max((name for name in CLASSES if path.stem.startswith(name)), key=len)]
    assert (len(config.classes.things), len(config.classes.stuff)) == counts
    assert from_dict(ModelConfig, to_dict(config)) == config  # as in a checkpoint
    for name, size in SIZES.items():
        if path.stem.startswith(name):  # the authors'
            assert (config.height, config.width) == size
            assert config.panoptic.merge == "reference" and config.kernels.pooling == "sum"


def test_cityscapes_classes_are_the_train_ids_whichever_are_things():
    step, vps = model("kitti_step_r50").classes, model("cityscapes_vps_r50").classes
    assert [(c.name, c.color) for c in step] == [(c.name, c.color) for c in vps]
    assert [step[i].name for i in step.things] == ["person", "car"]
    assert vps.things == tuple(range(11, 19)) and vps.logit_class_ids[8:] == tuple(range(11))


def test_vipseg_has_stuff_before_things_and_logits_the_other_way_round():
    classes = model("vipseg_r50").classes
    assert classes.stuff == tuple(range(66)) and classes.things == tuple(range(66, 124))
    assert classes.logit_class_ids[0] == 66 and classes.logit_class_ids[58] == 0
    ends = [classes[i].name for i in (0, 65, 66, 123)]
    assert ends == ["wall", "food", "door", "train"]


def test_vspw_has_the_classes_of_vipseg_in_the_order_of_its_own_values():
    """VIPSeg labels the videos of VSPW; its ids in the files are mixed, ours are stuff first."""
    vspw, vipseg = model("vspw_pspnet_r101").classes, model("vipseg_r50").classes
    assert {c.name: c.color for c in vspw} == {c.name: c.color for c in vipseg}
    for kind in (vipseg.things, vipseg.stuff):
        places = [vspw.id_of(vipseg[i].name) for i in kind]
        assert places == sorted(places)
    values = {"wall": 1, "door": 3, "car": 49, "person": 61, "tree": 67, "food": 122, "train": 124}
    assert {name: vspw.id_of(name) + 1 for name in values} == values
    assert model("vspw_deeplabv3plus_r101").classes == vspw


def test_youtube_vis_classes_are_the_ids_of_the_data_set():
    classes = model("youtube_vis_r50").classes
    ids = {"person": 1, "giant_panda": 2, "sedan": 6, "airplane": 28, "tennis_racket": 40}
    assert {name: classes.id_of(name) + 1 for name in ids} == ids
    assert len({c.color for c in classes}) == 40


def test_the_street_models_have_the_classes_of_the_street():
    street, instances = model("street_lite0"), model("street_instances_lite0")
    rows = [(c.name, c.color) for c in street.classes]
    for name in ("street_pspnet_lite0", "street_deeplabv3plus_lite0"):
        assert [(c.name, c.color) for c in model(name).classes] == rows
    things = [(c.name, c.color) for c in instances.classes]
    assert things == [rows[i] for i in street.classes.things]
    assert instances.kernels == street.kernels


def test_one_resnet_50_has_all_three_additions_and_differs_from_the_published_one_in_fusion_alone():
    """The paper's row of all three (KAE + KL + KF) is of a ResNet-50; its configuration is ours."""
    whole, published = model("kitti_step_fusion_r50"), model("kitti_step_r50")
    assert (whole.kernels.embedding, whole.kernels.linking) == (True, "ffn")
    assert whole.kernels.fusion == "update_dynamic_cov" and published.kernels.fusion == "none"
    assert replace(whole, kernels=replace(whole.kernels, fusion="none")) == published


def test_figures_stand_beside_the_configuration_that_they_belong_to():
    """docs/reference/models.md: STQ / AQ / SQ of the paper's ablation on KITTI-STEP."""
    text = (CONFIGS.parent / "docs" / "reference" / "models.md").read_text()
    figures = text.split("## Published figures")[1].split("\n## ")[0]
    lines = {line.split("`")[1]: line for line in figures.splitlines() if line.startswith("| `")}
    assert "STQ 70.9, AQ 70.8, SQ 71.2" in lines["kitti_step_fusion_r50"]
    assert "STQ 70.2, AQ 71.2, SQ 69.7" in lines["kitti_step_r50"]
    assert set(lines) <= {path.stem for path in FILES}


def test_of_the_published_networks_only_the_swin_model_has_kernel_fusion():
    """Section 7e of the specification: none of the published ResNet-50 configurations has it."""
    settings = {
        path.stem: (config.backbone.name, config.kernels.fusion, config.kernels.linking)
        for path in FILES
        if path.stem.startswith(tuple(SIZES))
        for config in [load_yaml(ModelConfig, path)]
    }
    del settings["kitti_step_fusion_r50"]  # the paper's, which was not published
    swin = settings.pop("kitti_step_swin_b")
    assert swin == ("swin_b", "update_dynamic_cov", "update")
    assert set(settings.values()) == {("resnet50", "none", "ffn")}


@pytest.mark.parametrize(
    ("change", "key", "got"),
    [
        ({"neck": {"name": "semantic_fpn", "channels": 48}}, "neck.channels", 48),
        ({"neck": {"channels": 132}, "kernels": {"attention_heads": 8}}, "neck.channels", 132),
        ({"backbone": {"name": "resnet50", "width": 0}}, "backbone.width", 0),
        ({"backbone": {"name": "vgg"}}, "backbone.name", "vgg"),
        ({"backbone": {"name": "swin_b", "output_stride": 8}}, "backbone.output_stride", 8),
        ({"backbone": {"deep_stem": True}}, "backbone.name", "efficientnet_lite0"),
        ({"kernels": {"fusion": "yes"}}, "kernels.fusion", "yes"),
        ({"kernels": {"things": 254}}, "kernels.things", 262),
        ({"panoptic": {"overlap_threshold": 7.0}}, "panoptic.overlap_threshold", 7.0),
        ({"panoptic": {"score_threshold": math.nan}}, "panoptic.score_threshold", math.nan),
        ({"height": 31}, "height", 31),
        ({"more_sizes": [[192, 640], [144, 240]]}, "more_sizes", ((192, 640), (144, 240))),
        ({"backbone": {"output_stride": 8}, "neck": FPN}, "backbone.output_stride", 8),
        ({"neck": {"name": "pyramid_pooling"}}, "backbone.output_stride", 32),
    ],
)
def test_a_configuration_that_cannot_be_built_is_named(change, key, got):
    rows = load_yaml(ModelConfig, CONFIGS / "models" / "street_lite0.yaml").classes.to_rows()
    with pytest.raises(ConfigError) as error:
        from_dict(ModelConfig, {"classes": rows} | change)
    assert str(error.value).startswith(f"{key}: expected ")
    assert str(error.value).endswith(f", got {got!r}")


def test_seeds_must_fit_into_every_native_size():
    config = model("street")
    config = replace(config, kernels=replace(config.kernels, things=50, sticky=False))
    with pytest.raises(ConfigError, match=r"kernels.things: expected at most the 4 x 12 cells"):
        replace(config, more_sizes=((192, 640), (32, 80)))


@pytest.mark.parametrize(("task", "is_thing"), [("semantic", False), ("instance", True)])
def test_the_reference_merge_is_of_task_panoptic_alone(task, is_thing):
    rows = [{"name": "a", "is_thing": is_thing, "color": [1, 2, 3]}]
    kernels = {"things": 0, "embedding": False} if task == "semantic" else {}
    config = {"classes": rows, "task": task, "kernels": kernels}
    assert from_dict(ModelConfig, config).task == task
    with pytest.raises(ConfigError, match="panoptic.merge: .*, got 'reference'"):
        from_dict(ModelConfig, config | {"panoptic": {"merge": "reference"}})
