"""The webhook: refuses what no model accepts, lets through what changes nothing, follows its certificate's rotation."""

import asyncio
import datetime as dt
import json
import ssl
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st

from adapter_api.job import MAX_NODES
from adapter_operator.admission import parsed, review
from adapter_operator.webhook import MAX_WAITING, Certificate, application, serve
from tests.cluster.certificates import Authority
from tests.operator.support.builders import job
from tests.support.ports import free_port


def plain(**spec: Any) -> dict[str, Any]:
    dumped = job().model_dump(mode="json", by_alias=True, exclude_none=True)
    dumped.pop("status")
    dumped["spec"].update(spec)
    return dumped


def asked(operation: str, new: dict[str, Any], old: dict[str, Any] | None = None) -> dict[str, Any]:
    request = {"uid": "u", "operation": operation, "object": new, "oldObject": old}
    response: dict[str, Any] = review({"request": request})["response"]
    assert response["uid"] == "u"
    return response


def test_a_valid_job_is_allowed() -> None:
    assert asked("CREATE", plain())["allowed"] is True


def test_every_fault_of_a_bad_job_is_named() -> None:
    response = asked("CREATE", plain(nodes=0, colour="red"))
    assert response["allowed"] is False
    assert "spec.nodes" in response["status"]["message"]
    assert "spec.colour" in response["status"]["message"]


def test_a_rule_across_fields_is_checked() -> None:
    training = plain()["spec"]["training"]
    training["model"]["params"]["token_conditioners"]["label_to_token"]["column"] = "absent"
    assert "absent" in asked("CREATE", plain(training=training))["status"]["message"]


def test_data_that_only_the_users_machine_has_are_refused() -> None:
    response = asked("CREATE", plain(data={"folder": "data/digits"}))
    assert response["allowed"] is False
    assert response["status"]["message"].startswith("spec.data: folder is on the machine of `atj run`")


def test_what_is_invalid_by_now_can_still_be_deleted_but_not_changed() -> None:
    invalid = plain(nodes=0)
    labelled = {**invalid, "metadata": {**invalid["metadata"], "finalizers": []}}
    assert asked("UPDATE", labelled, invalid)["allowed"] is True
    assert asked("UPDATE", plain(nodes=-1), invalid)["allowed"] is False


def test_a_generated_name_is_not_missed() -> None:
    generated = plain()
    generated["metadata"] = {"generateName": "digits-"}
    assert asked("CREATE", generated)["allowed"] is True


def test_what_a_job_does_not_use_is_a_warning_that_kubectl_shows() -> None:
    response = asked("CREATE", plain(resources={"limits": {"nvidia.com/mig-1g.10gb": 2}}))
    assert response["allowed"] is True
    assert any("1 of 2 stays idle" in each for each in response["warnings"])
    assert "warnings" not in asked("CREATE", plain())


def test_kubectl_scale_is_held_to_the_same_numbers() -> None:
    def scaled(replicas: object) -> dict[str, Any]:
        scale = {
            "kind": "Scale",
            "apiVersion": "autoscaling/v1",
            "metadata": {"name": "digits"},
            "spec": {"replicas": replicas},
        }
        request = {
            "uid": "u",
            "operation": "UPDATE",
            "subResource": "scale",
            "object": scale,
            "oldObject": {"spec": {"replicas": 2}},
        }
        response: dict[str, Any] = review({"request": request})["response"]
        return response

    assert scaled(4)["allowed"] is True
    for replicas in (0, -1, MAX_NODES + 1, "many", None):
        assert "spec.nodes: give an integer from 1" in scaled(replicas)["status"]["message"]


@pytest.mark.parametrize("body", [
    {}, [], {"request": None}, {"request": {}}, {"request": []}, {"request": {"uid": 7}}, {"request": {"uid": "u", "object": []}},
    {"request": {"uid": "u", "operation": "EAT"}}, {"request": {"uid": "u" * 200}}, {"request": {"uid": "u", "oldObject": "x"}},
])  # fmt: skip
def test_what_is_no_review_is_refused(body: Any) -> None:
    with pytest.raises(ValueError, match="not an AdmissionReview"):
        review(body)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["request", "uid", "object", "spec", "metadata", "name", "a"]), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


@given(st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode()))
def test_every_body_is_answered_or_refused_as_no_review(body: bytes) -> None:
    try:
        answer = review(parsed(body))
    except ValueError:
        return
    assert answer["response"]["allowed"] in {True, False}


@given(job_parts=st.fixed_dictionaries({}, optional=dict.fromkeys(("apiVersion", "kind", "metadata", "spec"), JSON)))
def test_every_object_of_a_review_is_answered(job_parts: dict[str, Any]) -> None:
    assert asked("CREATE", job_parts)["allowed"] is False


def test_very_many_large_reviews_leave_the_webhook_to_answer_how_it_is() -> None:
    whole = plain()
    whole["spec"] |= {f"f{number}": 1 for number in range(15_000)}
    body = json.dumps({"request": {"uid": "u", "operation": "CREATE", "object": whole}}).encode()

    async def ask() -> tuple[list[int], float]:
        async with TestClient(TestServer(application())) as client:
            posts = [asyncio.create_task(client.post("/validate", data=body)) for _ in range(50)]
            longest = 0.0
            while not all(post.done() for post in posts):
                asked_at = time.monotonic()
                assert (await client.get("/healthz")).status == 200
                longest = max(longest, time.monotonic() - asked_at)
                await asyncio.sleep(0.01)
            return [post.result().status for post in posts], longest

    codes, longest = asyncio.run(ask())
    assert set(codes) <= {200, 503}
    assert codes.count(200) >= MAX_WAITING
    assert longest < 5  # a second where nothing else runs


DEEP = b'{"request": {"uid": "u", "object": {"spec": ' + b'{"a":' * 900 + b"1" + b"}" * 903


@pytest.mark.parametrize(
    ("body", "code", "told"),
    [
        (b"", 400, "not JSON"), (b"{", 400, "not JSON"), (b"\xff", 400, "not JSON"), (b"[" * 100_000, 400, "not JSON"),
        (b'{"request":' * 50_000, 400, "not JSON"), (b"{}", 400, "not an AdmissionReview"), (DEEP, 200, "nested deeper"),
    ],
    ids=["empty", "unfinished", "no-text", "deep-lists", "deep-objects", "no-review", "deep-job"],
)  # fmt: skip
def test_a_malformed_review_is_answered_with_400_and_never_with_a_traceback(body: bytes, code: int, told: str) -> None:
    async def post() -> tuple[int, str]:
        async with TestClient(TestServer(application())) as client:
            answer = await client.post("/validate", data=body)
            return answer.status, await answer.text()

    status, text = asyncio.run(post())
    assert (status, told in text, "Traceback" in text) == (code, True, False)


def test_it_serves_over_tls_and_takes_up_a_new_certificate(tmp_path: Path) -> None:
    port, folder = free_port(), tmp_path / "certificates"
    folder.mkdir()
    authority = Authority(tmp_path / "authority", dt.datetime.now(dt.UTC))
    trusting = ssl.create_default_context(cafile=str(authority.file))

    def install(name: str) -> None:
        issued = authority.issue(name, names=["localhost"])
        (folder / "tls.crt").write_bytes(issued.certificate.read_bytes())
        (folder / "tls.key").write_bytes(issued.key.read_bytes())

    def ask() -> dict[str, Any]:
        body = json.dumps({"request": {"uid": "u", "operation": "CREATE", "object": plain(nodes=0)}}).encode()
        with urllib.request.urlopen(
            f"https://localhost:{port}/validate", data=body, context=trusting, timeout=60
        ) as answer:
            answered: dict[str, Any] = json.loads(answer.read())
        return answered

    async def run() -> None:
        stop = asyncio.Event()
        serving = asyncio.create_task(serve(port, folder, stop))
        await asyncio.sleep(0.2)
        assert (await asyncio.to_thread(ask))["response"]["allowed"] is False
        stop.set()
        await serving

    install("first")
    asyncio.run(run())
    certificate = Certificate(folder)
    assert not certificate.refresh()
    install("second")
    assert certificate.refresh()
