"""`video-knet eval dataset` on predictions on disk: the numbers of the benchmarks' own programs."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from dataset_fixtures import FIXTURES, opened, put
from golden_datasets import (
    write_cityscapes_vps_case,
    write_step_case,
    write_vspw_case,
    write_youtube_vis_case,
)

from video_knet_core.cli import main
from video_knet_core.data.datasets import DATASETS
from video_knet_core.data.predictions import Instance
from video_knet_core.evaluate.dataset_evaluation import (
    EVALUATORS,
    evaluate_predictions,
    predict_dataset,
)
from video_knet_core.evaluate.semantic import SemanticEvaluator
from video_knet_core.metrics.box_tracking import TrackedBoxes
from video_knet_core.output_files import OutputError
from video_knet_core.run_lengths import RunLengths
from video_knet_core.types import NO_CLASS

PANOPTIC = ("kitti_step", "kitti_step_flat", "cityscapes_vps", "vipseg", "custom")


def truth(frame):
    """The labels of a frame as a prediction."""
    if frame.masks is not None:
        masks = map(RunLengths.from_mask, frame.masks.masks)
        columns = frame.masks.ids.tolist(), frame.masks.class_ids.tolist(), masks
        return [Instance(i, c, 0.9, mask) for i, c, mask in zip(*columns, strict=True)]
    if frame.raw is not None:
        return np.where(frame.semantic == 255, 0, frame.semantic)  # every pixel has a class
    return frame.semantic, frame.instance


def mistaken(frame):
    """A prediction with faults of every kind: all is moved, and ids, scores or classes change."""
    late = int(frame.name[-8:].split("_")[-1]) > 0
    if frame.masks is not None:
        moved = np.roll(frame.masks.masks, 1, axis=2)
        columns = frame.masks.ids.tolist(), frame.masks.class_ids.tolist(), moved
        return [
            Instance(
                i, (c + (not late)) % 40, 0.3 + i / 7 % 0.5 + late / 9, RunLengths.from_mask(mask)
            )
            for n, (i, c, mask) in enumerate(zip(*columns, strict=True))
            if n or not late
        ]
    prediction = truth(frame)
    if isinstance(prediction, np.ndarray):
        return np.roll(prediction, 5, axis=1)
    semantic, instance = (np.roll(part, 5, axis=1) for part in prediction)
    return semantic, np.where(instance > 0, instance + late, 0)


def saved(layout: str, root: Path, out: Path, predict):
    """Scores of `predict(frame)`, which is also saved in OUT."""
    dataset = opened(layout, root)
    form = DATASETS[dataset.name]
    evaluator = EVALUATORS[form.task][1](dataset)
    writer = form.predictions.writer(out)
    predict_dataset(dataset, lambda _: predict, [evaluator, writer])
    writer.close()
    return evaluator.compute()


def evaluated(name: str, root: Path, out: Path, folder: Path, split: str = "val") -> dict:
    """Figures that the command writes for predictions in OUT."""
    file = folder / "scores.json"
    command = ["eval", "dataset", name, str(root), "--split", split, "--predictions", str(out)]
    assert main([*command, "--json", str(file)]) == 0
    return json.loads(file.read_text())


# --- golden cases --------------------------------------------------------------------------------


def values(figures: dict, *names: str) -> list[float]:
    return [figures["total"][name] for name in names]


@pytest.mark.parametrize("name", ["kitti_void_crowd", "kitti_confusion"])
def test_kitti_step_by_deeplab2_and_by_the_authors_scripts(name, tmp_path):
    case = write_step_case(name, tmp_path / "data", tmp_path / "maps")
    figures = evaluated("kitti_step", tmp_path / "data", tmp_path / "maps", tmp_path)
    for found, prefix in ((figures, "stq_dl2"), (figures["authors"], "stq_vkn")):
        expected = [case[f"{prefix}__{part}"] for part in ("STQ", "AQ", "SQ")]
        np.testing.assert_allclose(values(found, "stq", "aq", "sq"), expected, rtol=0, atol=1e-6)
    theirs = figures["authors"]["vpq_of_windows"]
    for window in "1234":
        expected = case[f"vpq_k{window}__vkn_all_thing_stuff"]
        found = [theirs[window][part] for part in ("all", "things", "stuff")]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    mean = np.mean([theirs[window]["all"] for window in "1234"])
    assert figures["authors"]["total"]["vpq"] == pytest.approx(mean)
    official = [figures["vpq"][part] for part in ("all", "things", "stuff")]
    expected = [case[f"vps_crowd_n{window}__all_thing_stuff"] for window in "1234"]
    np.testing.assert_allclose(official, np.mean(expected, axis=0), rtol=0, atol=1e-9)


def test_cityscapes_vps_by_its_own_program(tmp_path):
    case = write_cityscapes_vps_case("cityvps_crowd", tmp_path / "data", tmp_path / "out")
    figures = evaluated("cityscapes_vps", tmp_path / "data", tmp_path / "out", tmp_path)
    found = [figures["vpq"][part] for part in ("all", "things", "stuff")]
    expected = case["vps_crowd_mean__all_thing_stuff"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)
    assert figures["total"]["vpq"] == figures["vpq"]["all"]


def test_vspw_by_its_own_programs_from_the_masks_as_stored(tmp_path):
    case = write_vspw_case("vspw_void", tmp_path / "data", tmp_path / "out")
    assert case["mvc8"] != case["mvc8_gtconverted"]  # else the case could not show it
    figures = evaluated("vspw", tmp_path / "data", tmp_path / "out", tmp_path)
    expected = [case["miou"], case["mvc8"], case["mvc16"]]
    np.testing.assert_allclose(values(figures, "miou", "mvc8", "mvc16"), expected, atol=1e-9)
    rows = figures["per_sequence"]
    found = [rows[f"video_{number}"]["mvc8"] for number in range(2)]
    np.testing.assert_allclose(found, case["mvc8_per_video"], atol=1e-9)


def test_a_constant_wrong_class_is_consistent_but_not_right(tmp_path):
    case = write_vspw_case("vspw_constantwrong", tmp_path / "data", tmp_path / "out")
    figures = evaluated("vspw", tmp_path / "data", tmp_path / "out", tmp_path)
    assert figures["total"]["mvc8"] == pytest.approx(float(case["mvc8"])) == 1
    assert figures["total"]["correct_mvc8"] < 0.1


def test_a_semantic_data_set_needs_no_values_as_stored(written):
    """A pixel without a class is void then."""
    data = opened("vspw", written["vspw"])
    scores, void = [], 0
    for keep in (True, False):
        evaluator = SemanticEvaluator(data)
        for video in data:
            for frame in video:
                classes = frame.semantic
                known = np.where(classes == NO_CLASS, 0, classes).astype(np.uint8)
                raw = np.where(classes == NO_CLASS, 255, known + 1).astype(np.uint8)
                evaluator.update(video, replace(frame, raw=raw if keep else None), known)
                void += (classes == NO_CLASS).sum()
            evaluator.end_video(video)
        scores.append(evaluator.compute().to_json())
    assert scores[0] == scores[1] and void


@pytest.mark.parametrize("name", ["vis_basic", "vis_crowd", "vis_ties_dups"])
def test_youtube_vis_by_its_own_program(name, tmp_path):
    case = write_youtube_vis_case(name, tmp_path / "data", tmp_path / "out")
    arguments = "youtube_vis_2019", tmp_path / "data", tmp_path / "out", tmp_path, "valid"
    found = np.array(list(evaluated(*arguments)["total"].values()), float)
    np.testing.assert_allclose(np.nan_to_num(found, nan=-1), case["stats"], rtol=0, atol=1e-9)


# --- what is saved is what is read ---------------------------------------------------------------


HEADLINES = {"semantic": ["miou"], "instance": ["ap", "ar10"], "panoptic": ["stq", "aq", "sq"]}


@pytest.mark.parametrize("layout", FIXTURES)
def test_the_labels_themselves_score_one(layout, written, tmp_path, capsys):
    fixture, root = FIXTURES[layout], written[layout]
    saved(layout, root, tmp_path / "out", truth)
    figures = evaluated(fixture.dataset, root, tmp_path / "out", tmp_path, fixture.split)
    expected = HEADLINES[DATASETS[fixture.dataset].task]
    for row in (figures["total"], *figures["per_sequence"].values()):
        assert [row[name] for name in expected] == pytest.approx([1] * len(expected))
    assert set(figures["per_sequence"]) == {video.name for video in opened(layout, root)}
    report = capsys.readouterr().out
    assert f"all ({figures['frames']} frames)" in report
    if layout in PANOPTIC:
        assert values(figures["authors"], "stq", "aq", "sq") == pytest.approx([1, 1, 1])
        for window in ("1", "2"):
            assert figures["vpq_of_windows"][window]["all"] == 1
            classes = figures["authors"]["vpq_of_windows"][window]["classes"]
            present = sum(iou is not None for iou in figures["class_iou"])
            assert sum(classes) == present <= len(classes)  # absent ones count 0


@pytest.mark.parametrize("layout", FIXTURES)
def test_saved_predictions_have_the_scores_they_had(layout, written, tmp_path):
    scores = saved(layout, written[layout], tmp_path, mistaken)
    again = evaluate_predictions(opened(layout, written[layout]), tmp_path)
    assert again.to_json() == scores.to_json()
    headline = next(value for value in scores.figures["total"].values())
    assert 0 < headline < 1


@pytest.mark.parametrize("layout", ["vspw", "vipseg", "kitti_step"])
def test_a_name_that_leads_elsewhere_is_not_written_to(layout, written, tmp_path):
    video = next(iter(opened(layout, written[layout])))
    writer = DATASETS[layout].predictions.writer(tmp_path / "out")
    frame = next(iter(video))
    for name in (str(tmp_path / "victim"), "../victim"):
        elsewhere = replace(video, name=name)
        with pytest.raises(OutputError, match="expected a name of a result below"):
            writer.update(elsewhere, frame, truth(frame))
    assert not (tmp_path / "victim").exists()


def test_the_table_has_both_conventions_and_boxes_side_by_side(written, tmp_path):
    scores = saved("kitti_step", written["kitti_step"], tmp_path, mistaken)
    titles, names, first, *_ = scores.table()
    assert titles.split() == ["benchmark", "authors'", "scripts", "boxes"]
    boxes = ["found", "missed", "false", "IDSW", "MOTA", "IDF1", "HOTA", "ids"]
    assert names.split() == [*["STQ", "AQ", "SQ", "VPQ"] * 2, *boxes]
    assert first.startswith("0000") and len(first) == len(names)


def test_each_data_set_has_its_conventions(written, tmp_path):
    rules = {}
    for layout in PANOPTIC:
        figures = saved(layout, written[layout], tmp_path / layout, truth).figures
        rules[layout] = [figures["convention"], figures["authors"]["convention"]]
    things = {layout: [rule["stq_things"] for rule in pair] for layout, pair in rules.items()}
    assert things["kitti_step"] == [(11, 13), tuple(range(11, 19))]
    assert things["cityscapes_vps"] == [tuple(range(11, 19))] * 2
    assert things["custom"] == [(8, 9, 10)] * 2
    windows = {layout: [rule["windows"] for rule in pair] for layout, pair in rules.items()}
    assert windows.pop("vipseg") == [(1, 2, 4, 6, 8), (1, 2, 4, 6)]
    assert all(pair == [(1, 2, 3, 4)] * 2 for pair in windows.values())
    for _, rule in rules.values():
        assert [rule[name] for name in ("void", "absent", "crowd")] == ["drop", "zero", "segment"]


def test_vipseg_is_saved_in_the_categories_of_the_data_set(written, tmp_path):
    """As panoVIPSeg_categories.json counts them: 60 is person, 18 road."""
    saved("vipseg", written["vipseg"], tmp_path, truth)
    videos = json.loads((tmp_path / "pred.json").read_text())["annotations"]
    assert [video["video_id"] for video in videos] == ["street_5", "street_6"]
    segments = [s for f in videos[0]["annotations"] for s in f["segments_info"]]
    assert {60, 18} <= {segment["category_id"] for segment in segments}
    assert (tmp_path / "pan_pred/street_5/00000000.png").is_file()


def test_vspw_is_saved_as_class_ids_without_void(written, tmp_path):
    with pytest.raises(ValueError, match=r"street_5/0+: .* 0\.\.123 .*, got 7\.\.255"):
        saved("vspw", written["vspw"], tmp_path, lambda frame: frame.semantic)


def test_results_may_be_named_by_their_file_and_may_be_none(written, tmp_path):
    results = tmp_path / "mine.json"
    results.write_text("[]")
    root = written["youtube_vis_2019"]
    figures = evaluated("youtube_vis_2019", root, results, tmp_path, "valid")
    assert figures["total"]["ap"] == 0 and figures["total"]["ap_large"] is None


# --- what is wrong is named ----------------------------------------------------------------------


def error_of(layout: str, root: Path, out: Path, capsys) -> str:
    """The one line of the command."""
    fixture = FIXTURES[layout]
    command = ["eval", "dataset", fixture.dataset, str(root), "--split", fixture.split]
    assert main([*command, "--predictions", str(out)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    return line.removeprefix("video-knet eval dataset: ")


@pytest.mark.parametrize(
    ("layout", "file"),
    [
        ("kitti_step", "there is no label image {}/0000/000000.png"),
        ("custom", "there is no label image {}/drive_5/0.png"),
        ("cityscapes_vps", "there are no predictions {}/pred.json"),
        ("vipseg", "there are no predictions {}/pred.json"),
        ("vspw", "there is no label image {}/street_5/00000000.png"),
        ("youtube_vis_2019", "there are no predictions {}/results.json"),
    ],
)
def test_predictions_that_are_not_there(layout, file, written, tmp_path, capsys):
    assert error_of(layout, written[layout], tmp_path, capsys) == file.format(tmp_path)


def change(path: Path, edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


FAULTY_JSON = [
    ("cityscapes_vps", lambda c: c.pop("annotations"), "expected the key 'annotations'"),
    ("cityscapes_vps", lambda c: c["annotations"].pop(2), "has no annotation of '0001_0003_"),
    (
        "cityscapes_vps",
        lambda c: c["annotations"][1]["segments_info"][0].pop("id"),
        "annotations.1.segments_info.0: expected the key 'id'",
    ),
    (
        "cityscapes_vps",
        lambda c: c["annotations"][0]["segments_info"].append({"id": 999, "category_id": 1}),
        "lists the segment 999, which",
    ),
    ("vipseg", lambda c: c["annotations"].pop(1), "no annotations of the video 'street_6'"),
    (
        "vipseg",
        lambda c: c["annotations"][0]["annotations"][2]["segments_info"][0].update(category_id=124),
        "annotations.0.annotations.2.segments_info.0.category_id: expected 0..123, got 124",
    ),
    ("youtube_vis_2019", lambda c: c[1].pop("score"), "1: expected the key 'score'"),
    (
        "youtube_vis_2019",
        lambda c: c[0].update(video_id=7),
        "0.video_id: expected one of `videos`, got 7",
    ),
    ("youtube_vis_2019", lambda c: c[0].update(category_id=0), "1..40, got 0"),
    ("youtube_vis_2019", lambda c: c[0]["segmentations"].pop(), "3 frames, got 2"),
    (
        "youtube_vis_2019",
        lambda c: c[0]["segmentations"].__setitem__(0, {"size": [9, 9], "counts": [81]}),
        "0.segmentations.0: expected a mask of (48, 64) as its frame, got (9, 9)",
    ),
    (
        "youtube_vis_2019",
        lambda c: c[0].update(score=float("nan")),
        "0.score: expected a finite number, got nan",
    ),
]


@pytest.mark.parametrize(("layout", "edit", "message"), FAULTY_JSON)
def test_faulty_json_of_predictions(layout, edit, message, written, tmp_path, capsys):
    saved(layout, written[layout], tmp_path, truth)
    change(tmp_path / ("results.json" if "vis" in layout else "pred.json"), edit)
    assert message in error_of(layout, written[layout], tmp_path, capsys)


@pytest.mark.parametrize(
    ("layout", "path", "labels", "message"),
    [
        (
            "kitti_step",
            "0000/000001.png",
            (42, 0, 0),
            "0000/000001.png: expected one of 0..18, 255, got 42",
        ),
        ("vspw", "street_5/00000001.png", 142, "0..123, got 142"),
        ("vipseg", "pan_pred/street_5/00000001.png", (9, 9, 9), "segment ids of its index"),
    ],
)
def test_a_prediction_of_a_class_beyond_the_table(
    layout, path, labels, message, written, tmp_path, capsys
):
    saved(layout, written[layout], tmp_path, truth)
    shape = (48, 64, 3) if isinstance(labels, tuple) else (48, 64)
    put(tmp_path / path, np.full(shape, labels, np.uint8))
    assert message in error_of(layout, written[layout], tmp_path, capsys)


def test_maps_of_another_size(written, tmp_path, capsys):
    saved("custom", written["custom"], tmp_path, truth)
    put(tmp_path / "drive_6/1.png", np.zeros((24, 64, 3), np.uint8))
    line = error_of("custom", written["custom"], tmp_path, capsys)
    assert line.startswith("drive_6/1: pred_semantic")
    assert "(48, 64)" in line and "(24, 64)" in line


def test_a_split_without_published_labels_cannot_be_scored(written, tmp_path, capsys):
    root = tmp_path / "data"
    shutil.copytree(written["youtube_vis_2019"], root)
    change(root / "annotations/valid.json", lambda index: index.pop("annotations"))
    (tmp_path / "results.json").write_text("[]")
    line = error_of("youtube_vis_2019", root, tmp_path / "results.json", capsys)
    assert "youtube_vis_2019: this split is published without labels" in line


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["coco", "."], "got 'coco'"),
        (["vspw", "no/such"], "'val' (val.txt) in no/such, got no such folder"),
        (["youtube_vis_2019", "no/such"], "'valid' (annotations/valid.json)"),
        (
            ["custom", ".", "--save", "a", "--predictions", "b"],
            "--save writes what a model predicts",
        ),
    ],
)
def test_bad_usage(arguments, message, capsys):
    assert main(["eval", "dataset", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_boxes_are_compared_with_those_of_the_masks_or_else_as_labelled(written, tmp_path):
    root = tmp_path / "custom"
    shutil.copytree(written["custom"], root)
    dataset = opened("custom", root)
    masks = saved("custom", root, tmp_path / "a", truth).figures["boxes"]
    assert masks["total"]["boxes"] > 0 and masks["total"]["mota"] == masks["total"]["hota"] == 1
    frames = {}
    for video in dataset:
        for frame in video:
            true = TrackedBoxes.of_maps(frame.semantic, frame.instance, (8, 9, 10))
            frames[f"{video.name}/{frame.name}"] = [
                {"id": i, "class": dataset.kinds[c][0], "box": [x, y, x + width, y + height]}
                for i, c, x, y, width, height in np.column_stack(true).tolist()
            ]
    boxes = sum(map(len, frames.values()))
    first = frames["drive_5/0"][0]
    first["box"] = [x + 1000 for x in first["box"]]  # nowhere in the image
    (root / "tracks.json").write_text(json.dumps({"frames": frames}))
    figures = saved("custom", root, tmp_path / "b", truth).figures["boxes"]["total"]
    assert (figures["boxes"], figures["missed"], figures["false"]) == (boxes, 1, 1)
    first["class"] = "DontCare"
    first["box"] = [0, 0, 64, 48]
    (root / "tracks.json").write_text(json.dumps({"frames": frames}))
    figures = saved("custom", root, tmp_path / "c", truth).figures["boxes"]["total"]
    assert (figures["boxes"], figures["missed"], figures["false"]) == (boxes - 1, 0, 0)
