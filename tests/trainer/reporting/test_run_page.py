"""report.html: everything of a run on one page that needs no other file, whatever of it is there."""

import json
import re
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from adapter_api.layout import HISTORY_FILE
from adapter_trainer.reporting import run_page
from adapter_trainer.reporting.charts import running_mean
from adapter_trainer.reporting.history import Line
from adapter_trainer.reporting.page_writer import LEAST_SECONDS, PageWriter
from tests.trainer.support import runs, tiny

HISTORY: list[Line] = [
    {"step": 0, "start": {"at": "2026-01-01T00:00:00", "processes": 2, "device": "<GPU>", "precision": "bf16",
                          "versions": {"torch": "2.15.0"}}},
    {"step": 10, "loss": 1.0, "learning_rate": 1e-3, "images_per_second": 5.0, "seconds": {"data": 0.1, "forward": 0.3}},
    {"step": 10, "pauses": {"saving": 2.0}},
    {"step": 40, "loss": 0.5, "learning_rate": 1e-3, "images_per_second": 7.0, "mfu": 0.4,
     "seconds": {"data": 0.3, "forward": 0.3}},
    {"step": 40, "evaluation": {"validation_loss": 0.7}},
    {"step": 40, "pauses": {"saving": 3.0, "sampling": 1.0}},
]  # fmt: skip


class Links(HTMLParser):
    """Whatever a page would fetch."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        wanted = {name: value or "" for name, value in attrs}
        if tag in {"script", "link", "iframe"}:
            self.found.append(tag)
        self.found += [wanted[name] for name in ("src", "href", "xlink:href") if name in wanted]


@pytest.fixture
def output(tmp_path: Path) -> Path:
    (tmp_path / HISTORY_FILE).write_text("".join(json.dumps(line) + "\n" for line in HISTORY), encoding="utf-8")
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "training.yaml").write_text("seed: 3  # <b>\n", encoding="utf-8")
    (tmp_path / "samples").mkdir()
    for step in (10, 40):
        Image.new("RGB", (8, 8), (step, 0, 0)).save(tmp_path / "samples" / f"step-{step}.png")
    return tmp_path


def test_a_page_holds_curves_pictures_figures_and_configuration_and_fetches_nothing(output: Path) -> None:
    page = run_page.write(output).read_text(encoding="utf-8")
    for text in ("Loss", "Speed", "Utilization", "Evaluation: validation_loss", "Step 40", "&lt;GPU&gt;", "2.15.0",
                 "seed: 3  # &lt;b&gt;", "40.0%"):  # fmt: skip
        assert text in page
    assert page.count("<svg") == 6
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in Links(page).found)
    assert not re.search(r"https?://(?!(www\.w3\.org|matplotlib\.org|purl\.org|creativecommons\.org))", page)


def test_a_page_is_called_by_its_job_and_says_how_long_it_took_on_what(output: Path) -> None:
    again: list[Line] = [
        {"step": 40, "start": {**HISTORY[0]["start"], "processes": 4, "device": "<GPU>", "job": "emoji"}},
        {"step": 50, "loss": 0.4, "learning_rate": 1e-3, "images_per_second": 7.0, "seconds": {"forward": 360.0}},
    ]
    lines = [*HISTORY, *again]
    (output / HISTORY_FILE).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    for step in (40, 100, 50):
        (output / f"checkpoint-{step}").mkdir()
    (output / "checkpoint-50" / "README.md").touch()
    page = run_page.render(output)
    assert "<title>emoji: training report</title>" in page
    assert "<h1>emoji</h1>" in page
    figures = run_page.figures(lines)
    assert figures["time in steps and pauses"] == "1 h 0 min"  # 28 s of the first part, 3600 s of the second
    assert figures["computed on"] == "4 x <GPU>"
    assert figures["cost"] == "4.02 GPU-hours"  # 2 x 28 s + 4 x 3600 s
    links = [link for link in Links(page).found if link.startswith("..")]
    assert links == ["../checkpoint-100/", "../checkpoint-50/README.md", "../checkpoint-40/"]


def test_what_processors_did_is_no_cost_of_gpus() -> None:
    start = {"at": "", "processes": 2, "device": "cpu, 1 of 8 cores", "precision": "no", "versions": {}}
    assert run_page.cost([{"step": 0, "start": start}, {"step": 2, "loss": 1.0, "seconds": {"forward": 900.0}}]) == (
        "1 process-hours"
    )


def test_times_are_means_over_steps_and_pauses_are_summed() -> None:
    assert run_page.mean_parts(HISTORY) == pytest.approx({"data": 0.25, "forward": 0.3})
    assert run_page.total_pauses(HISTORY) == {"saving": (2, 5.0), "sampling": (1, 1.0)}


def test_a_folder_with_nothing_in_it_has_a_page_that_says_so(tmp_path: Path) -> None:
    assert "No step has been reported yet" in run_page.render(tmp_path)


def test_large_grids_are_shown_smaller_and_many_are_chosen_from(tmp_path: Path) -> None:
    noise = Image.effect_noise((2400, 300), 90).convert("RGB")
    for step in range(1, 31):
        (noise if step == 30 else Image.new("RGB", (4, 4))).save(tmp_path / f"step-{step}.png")
    found = run_page.pictures(tmp_path)
    assert [picture.step for picture in found] == list(range(30, 0, -3))
    assert found[0].data.startswith("data:image/webp")


def test_long_curves_are_thinned_and_keep_their_end() -> None:
    found = run_page.thinned([{"step": step} for step in range(1, 10_001)])
    assert len(found) == 2000
    assert found[-1]["step"] == 10_000


def test_a_running_mean_is_of_each_value_and_those_before_it() -> None:
    assert running_mean([4.0, 0.0, 2.0], 1) == [4.0, 2.0, 1.0]


@pytest.mark.process
def test_pages_follow_each_other_at_a_distance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now, begun = [0.0], []
    ended = subprocess.Popen(["true"])

    def begin(*_: object, **__: object) -> subprocess.Popen[bytes]:
        begun.append(now[0])
        return ended

    writer = PageWriter(tmp_path, print, clock=lambda: now[0])
    ended.wait()
    monkeypatch.setattr(subprocess, "Popen", begin)
    for at in (1.0, LEAST_SECONDS, LEAST_SECONDS + 1, 2 * LEAST_SECONDS):
        now[0] = at
        writer.renew()
    assert begun == [LEAST_SECONDS, 2 * LEAST_SECONDS]


@pytest.mark.process
def test_a_page_that_cannot_be_written_is_said_and_nothing_else(tmp_path: Path) -> None:
    said: list[str] = []
    (tmp_path / "logs").write_text("in the way", encoding="utf-8")
    PageWriter(tmp_path, said.append).finish()
    assert said == ["report.html could not be written (exit code 1); training is not affected"]


@pytest.mark.process
def test_a_run_leaves_its_page_and_gives_its_pictures_to_the_tracker(tmp_path: Path) -> None:
    data, output = tiny.write_data(tmp_path / "data"), tmp_path / "output"
    logging = {"html_report": True, "report_to": ["tensorboard"]}
    given = tiny.settings(data, {"logging": logging, "sampling": {"rows": [{"digit": 0}], "steps": 2}})
    assert runs.train_here(given, output) == 0
    page = (output / "logs" / "report.html").read_text(encoding="utf-8")
    assert "ended, step 3 of 3" in page
    assert "label_to_token" in page
    assert "data:image/png;base64," in page
    events = b"".join(path.read_bytes() for path in (output / "logs").rglob("events.out.tfevents.*"))
    assert b"\x89PNG" in events
    assert b"step_seconds/backward" in events
