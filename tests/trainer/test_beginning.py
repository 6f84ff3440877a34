"""A trainer that is started beside `restore` imports its libraries, and touches nothing before it is told to begin."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from adapter_api.launch import BEGIN_VARIABLE
from adapter_api.layout import OUTCOME_FILE
from adapter_api.progress import ExitCode
from adapter_trainer import beginning

SEEN_WAITING = f"""
import sys
from pathlib import Path
from adapter_trainer import beginning, train

def look_away(seconds):
    word, output = Path(sys.argv[1]), Path(sys.argv[2])
    print("torch" in sys.modules, "matplotlib" in sys.modules, sorted(path.name for path in output.iterdir()), flush=True)
    (output / "{OUTCOME_FILE}").write_text("an outcome that `restore` has left")
    word.touch()

beginning.time.sleep = look_away
sys.exit(train.main(["--config", "absent.yaml", "--output_dir", sys.argv[2]]))
"""


@pytest.mark.process
def test_a_trainer_imports_while_it_waits_and_reads_nothing(tmp_path: Path) -> None:
    word, output = tmp_path / "restored", tmp_path / "output"
    output.mkdir()
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), BEGIN_VARIABLE: str(word)}
    command = [sys.executable, "-c", SEEN_WAITING, str(word), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert done.stdout == "True False []\n", done.stderr  # curves are drawn by a process of their own
    assert done.returncode == ExitCode.INVALID
    assert "absent.yaml" in (output / OUTCOME_FILE).read_text()


@pytest.mark.parametrize("named", [False, True], ids=["not told to wait", "begun already"])
def test_a_trainer_that_need_not_wait_does_not(*, named: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginning, "import_libraries", lambda: pytest.fail("it has not to wait"))
    monkeypatch.setattr(time, "sleep", lambda _: pytest.fail("it has not to wait"))
    beginning.await_word({BEGIN_VARIABLE: str(tmp_path)} if named else {})


def test_garbage_is_collected_again_after_imports() -> None:
    before = gc.get_freeze_count()
    try:
        with beginning.uncollected():
            assert not gc.isenabled()
        assert gc.isenabled()
        assert gc.get_freeze_count() > before
    finally:
        gc.unfreeze()


@pytest.mark.process
def test_the_trainer_s_command_line_is_read_before_torch_is_imported() -> None:
    program = (
        "import sys, adapter_trainer.train; print({'torch', 'diffusers', 'numpy', 'adapter_api.job'} & {*sys.modules})"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "set()\n"
