"""`scripts/test_docs.py`: which blocks of a page it runs, and what it reports of them."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
SPEC = importlib.util.spec_from_file_location("docs_script", REPO / "scripts" / "test_docs.py")
assert SPEC is not None and SPEC.loader is not None
docs = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(docs)

PAGE = """
```bash
first
```

1. In a list:

    ```bash title="Needs ROS 2 and a camera"
    second \\
      --option
    ```

```bash title="In the first terminal"
third
```

```console
$ make test
```

````markdown
```bash
quoted
```
````
"""


def test_the_bash_blocks_of_a_page_are_found_in_order() -> None:
    blocks = docs.bash_blocks(PAGE)
    assert [block.code for block in blocks] == ["first\n", "second \\\n  --option\n", "third\n"]
    lines = PAGE.splitlines()
    assert [lines[block.line - 1].strip() for block in blocks] == ["first", "second \\", "third"]


def test_the_title_of_a_block_names_what_it_needs() -> None:
    assert [block.needs for block in docs.bash_blocks(PAGE)] == [(), ("ROS 2", "a camera"), ()]


def test_an_unknown_need_is_an_error() -> None:
    with pytest.raises(docs.PageError, match="line 2: .*'a robot'"):
        docs.bash_blocks('\n```bash title="Needs a robot"\ntrue\n```\n')


@pytest.mark.parametrize("page", docs.default_pages(), ids=lambda page: page.name)
def test_the_needs_of_every_page_are_known(page: Path) -> None:
    docs.bash_blocks(page.read_text())


def run(folder: Path, *codes: str, limit: float = 60) -> object:
    """What ended these blocks early, in a shell that is in `folder`/page."""
    (folder / "page").mkdir()
    blocks = [docs.Block(line, code) for line, code in enumerate(codes)]
    return docs.run_blocks(blocks, folder / "page", dict(os.environ), limit)


def test_blocks_share_one_shell_and_one_folder(tmp_path: Path) -> None:
    assert (
        run(tmp_path, "mkdir a; cd a; name=b", 'echo "$unset" > $name; false | cat || true') is None
    )
    assert (tmp_path / "page/a/b").is_file()


@pytest.mark.parametrize(
    "code",
    ["echo seen; false; echo not", "echo seen; false | cat", "echo seen; exit 0", "echo seen; ("],
)
def test_a_block_that_fails_ends_the_page_and_is_named(tmp_path: Path, code: str) -> None:
    failure = run(tmp_path, "echo before", code, "touch after")
    assert isinstance(failure, docs.Failure)
    assert failure.block.code == code
    assert not (tmp_path / "page/after").exists()


def test_the_output_of_a_failed_block_is_reported(tmp_path: Path) -> None:
    failure = run(tmp_path, "echo before", "echo one; echo two >&2; false")
    assert isinstance(failure, docs.Failure)
    assert failure.output == "one\ntwo\n"


def test_a_block_without_an_end_is_stopped(tmp_path: Path) -> None:
    failure = run(tmp_path, "sleep 100", limit=0.2)
    assert isinstance(failure, docs.Failure)
    assert "0.2" in failure.reason


@pytest.mark.parametrize("code", ["sleep 100 & echo $! > pid", "sleep 100 & echo $! > pid; false"])
def test_processes_in_the_background_end_with_the_page(tmp_path: Path, code: str) -> None:
    run(tmp_path, code)
    pid = int((tmp_path / "page/pid").read_text())
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_comments_are_no_part_of_the_commands_that_are_not_run_again():
    block = docs.Block(1, "cd sources  # of the package\nmake demo#1   # minutes\n")
    assert docs.commands_of(block) == "cd sources\nmake demo#1"
