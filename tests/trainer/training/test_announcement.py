"""What a run says of itself: at its start what it trains on what, at its end where results are."""

from pathlib import Path

import pytest

from adapter_trainer.training.announcement import count_text
from tests.trainer.support import runs, tiny


@pytest.mark.process
def test_a_run_says_what_it_trains_and_how_to_draw_from_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "output"
    given = {"sampling": {"rows": [{"digit": 0}], "steps": 1}, "model": {"params": {"unet_config": {"train": False}}},
             "logging": {"html_report": True}}  # fmt: skip
    assert runs.train_here(tiny.settings(data, given), output) == 0
    lines = capsys.readouterr().out.splitlines()
    started = {
        name: rest for name, _, rest in (line.partition(": ") for line in lines[: lines.index(f"output: {output}") + 1])
    }
    assert started["device"].startswith("cpu, ")
    assert started["device"].endswith("mixed_precision no")
    assert started["data"] == f"{tiny.SAMPLES} samples, 3 steps of 4"
    assert started["trained"] == "744 of 68.2 k parameters (label_to_token 744)"
    ended = lines[-4:]
    assert ended[0] == f"complete: {output / 'checkpoint-3'}"
    assert [line.partition(": ")[0] for line in ended] == ["complete", "pictures", "report", "to draw"]
    assert all(Path(line.partition(": ")[2]).exists() for line in ended[:3])
    assert ended[3] == f"to draw: atj sample {output}"


@pytest.mark.parametrize(
    ("count", "text"), [(17, "17"), (4_321, "4.32 k"), (4_400_000, "4.4 M"), (2_567_463_684, "2.57 B")]
)
def test_counts_are_written_as_papers_do(count: int, text: str) -> None:
    assert count_text(count) == text
