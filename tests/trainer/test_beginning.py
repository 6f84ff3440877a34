"""A trainer that is started beside `restore` imports its libraries, and touches nothing before it is told to begin."""

import gc
import os
import subprocess
import sys
import time
from pathlib import Path

import psutil
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


SEEN_ORPHANED = """
import subprocess, sys
child = "import sys, time; from adapter_trainer import beginning; beginning.end_with_torchrun(); print('up', flush=True); time.sleep(600)"
process = subprocess.Popen([sys.executable, "-c", child], stdout=subprocess.PIPE)
process.stdout.readline()
print(process.pid, flush=True)
process.wait()
"""


@pytest.mark.process
@pytest.mark.parametrize("with_torchrun", [True, False])
def test_a_trainer_ends_with_its_torchrun_and_without_one_outlives_its_shell(*, with_torchrun: bool) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TORCHELASTIC_RUN_ID"}
    environment |= {"PYTHONPATH": os.pathsep.join(sys.path)} | ({"TORCHELASTIC_RUN_ID": "r"} if with_torchrun else {})
    command = [sys.executable, "-c", SEEN_ORPHANED]
    with subprocess.Popen(command, stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout is not None
        child = psutil.Process(int(parent.stdout.readline()))
        parent.kill()
    try:
        if with_torchrun:
            child.wait(timeout=10)
        else:
            with pytest.raises(psutil.TimeoutExpired):
                child.wait(timeout=0.5)
    finally:
        if child.is_running():
            child.kill()
