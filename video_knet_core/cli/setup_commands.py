"""`video-knet doctor` and `video-knet models`: what is installed here, and whether it works."""

from __future__ import annotations

import json
import logging
import shlex
from typing import Annotated, Any

from .options import MODEL, SHIPPED, Json, argument, command, option

CHECKPOINT = "The checkpoint, *.safetensors, in place of the exported model."

_log = logging.getLogger(__name__)


@command()
def doctor(
    model: Annotated[str | None, option(MODEL, "NAME|FILE", show_default=SHIPPED)] = None,
    as_json: Json = False,
) -> int:
    """Check the installation: versions, machine, ROS 2, model, engines, cache.

    Each line is ok, absent (not needed), a warning or a fault, with a remedy. The text can be
    posted: the home folder is shown as ~. The exit code is 1 if there is a fault.
    """
    from ..doctor.examination import doctor as report

    return report(model, as_json)


@command()
def list_models(as_json: Json = False) -> None:
    """List the models of this version: files, terms, and where they are here."""
    from ..engine.model_index import model_index
    from ..model_download import card_link, find_file

    index = model_index()
    rows: list[dict[str, Any]] = []
    for model in index.models:
        files = []
        for file in model.files:
            here = find_file(file, index)
            facts = {"name": file.name, "bytes": file.bytes, "sha256": file.sha256}
            files.append(facts | {"path": None if here is None else str(here)})
        facts = {"name": model.name, "summary": model.summary, "use": model.use}
        rows.append(facts | {"terms": model.terms, "card": card_link(model, index), "files": files})
    if as_json:
        print(json.dumps({"release": index.release, "models": rows}, indent=2))
        return
    for row in rows:
        print(f"{row['name']:<14}{row['use']}")
        for key in ("summary", "terms", "card"):
            print(f"  {key:<12}{row[key]}")
        for file in row["files"]:
            print(
                f"  {file['name']:<24}{file['bytes'] / 1e6:>6.1f} MB  {file['path'] or 'not here'}"
            )
            print(f"  {'':<12}sha256 {file['sha256']}")


@command()
def get(
    name: Annotated[str, argument("Of `video-knet models list`.", "NAME")],
    checkpoint: Annotated[bool, option(CHECKPOINT, None, "--checkpoint")] = False,
) -> None:
    """Print the path of a model, which is downloaded unless it is here.

    It is stored in the cache folder, where `--model NAME` and the parameter `model` of the node
    find it. VIDEO_KNET_MODELS_URL names another place to download from, also file:///PATH.
    """
    from ..model_download import get_model

    path = get_model(name, checkpoint)
    if path.suffix == ".safetensors" and not checkpoint:
        again = shlex.join(["video-knet", "export", str(path), f"{name}.onnx"])
        _log.info(
            "%s has only a checkpoint, for the backend torch; for the others: %s", name, again
        )
    print(path)
