"""The webhook: refuses what no model accepts, lets through what changes nothing, follows its certificate's rotation."""

import asyncio
import datetime as dt
import json
import ssl
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from adapter_operator.admission import review
from adapter_operator.webhook import Certificate, serve
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


@pytest.mark.parametrize("body", [{}, [], {"request": None}, {"request": {}}])
def test_what_is_no_review_is_refused(body: Any) -> None:
    with pytest.raises(ValueError, match="not an AdmissionReview"):
        review(body)


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
