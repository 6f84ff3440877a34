"""What is sent to Kubernetes, compared with golden files, and what Pod Security's `restricted` asks of it."""

import json
import os
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.alias_generators import to_camel

from adapter_api.document import parse, validate
from adapter_api.job import JobSpec
from adapter_api.launch import epoch
from adapter_api.training import TrainingConfig
from adapter_operator.act.manifests import manifests, service
from adapter_operator.act.pods import pod_template
from adapter_operator.job_defaults import JobDefaults
from adapter_operator.settings import Settings
from adapter_operator.specification import specification
from tests.operator.support.builders import job

GOLDEN = Path(__file__).with_name("golden")
CREATED = datetime(2026, 11, 24, 12, 0, 0, tzinfo=UTC)
SECRET = {"name": "s3-credentials"}
RICH: dict[str, Any] = {
    "image": "registry.example/trainer:1",
    "nodes": 3,
    "procsPerNode": "auto",
    "resources": {"limits": {"nvidia.com/gpu": "2", "memory": "64Gi"}, "requests": {"cpu": "8"}},
    "data": {"s3": {"uri": "s3://datasets/digits", "endpointURL": "http://s3:8333", "secretRef": {"name": "readers"}}},
    "output": {"s3": {"uri": "s3://checkpoints/digits", "endpointURL": "http://s3:8333", "secretRef": SECRET}},
    "resumeFrom": {"uri": "s3://checkpoints/other", "step": 100, "secretRef": SECRET},
    "scheduling": {
        "nodeSelector": {"pool": "gpu"}, "queueName": "team", "topologyKey": "topology.kubernetes.io/zone",
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}], "priorityClassName": "high",
    },
    "pod": {
        "labels": {"team": "vision", "adaptertraining.dev/job": "forged"},
        "annotations": {"sidecar.istio.io/inject": "false"},
        "env": [{"name": "NOTE", "value": "$(HOME)"}, {"name": "WANDB_API_KEY", "secretKeyRef": {"name": "w", "key": "k"}}],
        "serviceAccountName": "trainer", "imagePullSecrets": [{"name": "registry"}],
        "volumes": [
            {"name": "models", "mountPath": "/models", "readOnly": True, "pvc": {"claimName": "models", "path": "sdxl"}},
            {"name": "scratch", "mountPath": "/scratch", "emptyDir": {"sizeLimit": "10Gi"}},
        ],
    },
}  # fmt: skip
STRICT: dict[str, Any] = {
    "nodes": 2,
    "resources": {"limits": {"cpu": "8", "memory": "64Gi", "nvidia.com/gpu": "1"}},
    "agentResources": {"limits": {"cpu": "1", "memory": "2Gi"}},
    "scheduling": {
        "priorityClassName": "high",
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "topology.kubernetes.io/zone", "whenUnsatisfiable": "DoNotSchedule", "minDomains": 2},
            {"maxSkew": 2, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway",
             "labelSelector": {"matchLabels": {"team": "vision"}}, "nodeTaintsPolicy": "Honor"},
        ],
    },
    "pod": {
        "commonEnv": [
            {"name": "HTTPS_PROXY", "secretKeyRef": {"name": "proxy", "key": "url"}},
            {"name": "NO_PROXY", "value": "10.0.0.0/8,.svc"},
        ],
        "env": [{"name": "NCCL_DEBUG", "value": "INFO"}],
        "caBundle": {"configMap": {"name": "authorities", "key": "bundle.pem"}},
        "runtimeClassName": "nvidia",
        "securityContext": {},
    },
}  # fmt: skip
CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "strict": STRICT,
    "rich": RICH,
    "claim": {"nodes": 1, "data": {"pvc": {"claimName": "datasets", "path": "digits"}}},
}


def sent(case: str, attempt: int = 2) -> list[dict[str, Any]]:
    made = job(CASES[case])
    return [service(made), *manifests(made, attempt, CREATED, Settings())]


@pytest.mark.parametrize("case", CASES)
def test_what_is_sent_is_what_was_agreed(case: str, request: pytest.FixtureRequest) -> None:
    text = yaml.safe_dump_all(json.loads(json.dumps(sent(case))), sort_keys=False, width=120)
    file = GOLDEN / f"{case}.yaml"
    if os.environ.get("WRITE_GOLDEN"):
        file.write_text(text, encoding="utf-8")
    assert text == file.read_text(encoding="utf-8"), "if this is meant: make golden"


@pytest.mark.parametrize("case", CASES)
def test_pods_pass_pod_security_restricted(case: str) -> None:
    spec = sent(case)[-1]["spec"]["template"]["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    assert not {"hostNetwork", "hostPID", "hostIPC", "nodeName"} & set(spec)
    assert spec.get("runtimeClassName") == CASES[case].get("pod", {}).get("runtimeClassName")
    for container in [*spec["initContainers"], *spec["containers"]]:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["capabilities"] == {"drop": ["ALL"]}
        assert security["readOnlyRootFilesystem"] is True
    allowed = {"name", "emptyDir", "configMap", "secret", "persistentVolumeClaim"}
    assert all(set(volume) <= allowed for volume in spec["volumes"])


def test_a_users_labels_cannot_pretend_to_be_another_jobs() -> None:
    assert sent("rich")[-1]["spec"]["template"]["metadata"]["labels"]["adaptertraining.dev/job"] == "digits"


def test_a_users_text_is_not_expanded_by_kubernetes() -> None:
    trainer = sent("rich")[-1]["spec"]["template"]["spec"]["containers"][0]
    assert {"name": "NOTE", "value": "$$(HOME)"} in trainer["env"]


def test_the_users_secrets_are_not_given_to_the_trainer_unless_they_ask() -> None:
    spec = sent("rich")[-1]["spec"]["template"]["spec"]
    names = {variable["name"] for variable in spec["containers"][0]["env"]}
    assert not [name for name in names if name.startswith("AWS_")]


def test_data_is_read_with_its_own_credentials() -> None:
    restore = sent("rich")[-1]["spec"]["template"]["spec"]["initContainers"][0]
    secrets = {v["name"]: v["valueFrom"]["secretKeyRef"]["name"] for v in restore["env"] if "secretKeyRef" in v.get("valueFrom", {})}  # fmt: skip
    assert secrets["ADAPTER_TRAINING_DATA_AWS_ACCESS_KEY_ID"] == "readers"
    assert secrets["AWS_ACCESS_KEY_ID"] == "s3-credentials"


def test_models_are_read_with_their_own_credentials_and_reach_the_trainer_as_a_folder() -> None:
    params = {"pretrained_model_name_or_path": "s3://models/sdxl", "token_conditioners": {"label_to_token": {}}}
    spec = {"training": {"model": {"params": params}}, "models": {"secretRef": {"name": "model-readers"}}}
    pod = manifests(job(spec), 1, CREATED, Settings())[-1]["spec"]["template"]["spec"]
    restore, trainer = pod["initContainers"][0], pod["containers"][0]
    keys = {v["name"]: v["valueFrom"]["secretKeyRef"]["name"] for v in restore["env"] if "valueFrom" in v}
    assert keys["ADAPTER_TRAINING_MODELS_AWS_ACCESS_KEY_ID"] == "model-readers"
    assert sum(argument.startswith("--model={") for argument in restore["command"]) == 7
    assert trainer["command"][-2:] == ["--staged_models", "/work/models"]


def test_every_attempt_has_a_rendezvous_of_its_own_and_a_higher_epoch() -> None:
    first, second = (json.dumps(sent("plain", attempt)[-1]) for attempt in (1, 2))
    assert "digits-1-0.digits:29500" in first
    assert "digits-2-0.digits:29500" in second
    assert f"--attempt={epoch(CREATED, 1)}" in first
    assert f"--attempt={epoch(CREATED, 2)}" in second


def test_a_configuration_keeps_its_name_as_long_as_it_is_the_same() -> None:
    assert sent("plain", 1)[1]["metadata"]["name"] == sent("plain", 2)[1]["metadata"]["name"]


def test_a_configuration_arrives_as_it_was_sent() -> None:
    text = sent("plain")[1]["data"]["training.yaml"]
    assert validate(TrainingConfig, parse(text, "training.yaml")) == job(CASES["plain"]).spec.training


def test_rendezvous_of_one_node_is_as_closed_as_that_of_many() -> None:
    kinds = ["Service", "ConfigMap", "NetworkPolicy", "Job"]
    assert [each["kind"] for each in sent("claim")] == [each["kind"] for each in sent("plain")] == kinds


def test_data_on_a_claim_is_read_only() -> None:
    template = pod_template(job(CASES["claim"]), 1, CREATED, "config", Settings())
    mounts = {m["name"]: m for m in template["spec"]["containers"][0]["volumeMounts"]}
    assert mounts["data"]["readOnly"] is True


@pytest.mark.parametrize(
    "name", ["$(HOME)", "$$(HOME)", "--option", "a b", "`id`", "$(rm -rf /)", "a\nb", "x; id", "$"]
)
def test_what_users_name_is_an_argument_and_nothing_else(name: str) -> None:
    path = {"data": {"pvc": {"claimName": "datasets", "path": f"{name}/digits"}}}
    template = manifests(job(path), 1, CREATED, Settings())[-1]["spec"]["template"]["spec"]
    ours = {"JOB_COMPLETION_INDEX": "0", "POD_IP": "10.0.0.1"}
    commands = [
        [expanded(argument, ours) for argument in container["command"]]
        for container in (*template["containers"], *template["initContainers"])
    ]
    assert all(command[:3] == ["python", "-m", "adapter_agent"] for command in commands)
    assert [command for command in commands if f"/data/{name}/digits" in command]


def expanded(argument: str, variables: dict[str, str]) -> str:
    """As a kubelet does it (k8s.io/kubernetes third_party/forked/golang/expansion): any other variable is a secret's."""

    def value(found: re.Match[str]) -> str:
        if found[0] == "$$":
            return "$"
        return variables.get(found[1], f"<secret {found[1]}>")

    return re.sub(r"\$\$|\$\(([^()]*)\)", value, argument)


CHANGES: dict[str, Any] = {
    "image": "registry.example/trainer:2",
    "nodes": 3,
    "procsPerNode": 2,
    "resources": {"limits": {"memory": "64Gi"}},
    "agentResources": {"limits": {"cpu": "1", "memory": "2Gi"}},
    "data": {"s3": {"uri": "s3://datasets/digits", "secretRef": {"name": "readers"}}},
    "models": {"secretRef": {"name": "readers"}},
    "output": {"s3": {"uri": "s3://checkpoints/digits", "secretRef": SECRET}},
    "resumeFrom": {"uri": "s3://checkpoints/other"},
    "restart": {"maxRestarts": 7},
    "suspend": True,
    "activeDeadlineSeconds": 60,
    "ttlSecondsAfterFinished": 60,
    "terminationGracePeriodSeconds": 60,
    "scheduling": {"priorityClassName": "high"},
    "pod": {"serviceAccountName": "trainer"},
}


def test_the_digest_of_a_specification_changes_exactly_when_its_pods_do() -> None:
    def made(**changes: Any) -> tuple[str, str]:
        changed = job({"output": {"s3": {"uri": "s3://checkpoints/digits"}}, **changes})
        batch = manifests(changed, 1, CREATED, Settings())[-1]
        return json.dumps(batch["spec"]), specification(changed)

    assert {to_camel(name) for name in JobSpec.model_fields} - {"training"} == set(CHANGES)
    pods, digest = made()
    for name, value in CHANGES.items():
        other_pods, other_digest = made(**{name: value})
        assert (other_pods != pods) == (other_digest != digest), name


def test_kueue_is_told_queue_and_priority_by_labels_of_the_job_that_it_knows() -> None:
    spec = {
        "output": {"s3": {"uri": "s3://checkpoints/digits"}},
        "scheduling": {"queueName": "team", "queuePriorityClassName": "gold"},
    }
    labels = manifests(job(spec), 1, CREATED, Settings())[-1]["metadata"]["labels"]
    assert (labels["kueue.x-k8s.io/queue-name"], labels["kueue.x-k8s.io/priority-class"]) == ("team", "gold")


def containers_of(spec: dict[str, Any], settings: Settings | None = None) -> list[dict[str, Any]]:
    pod = manifests(job(spec), 1, CREATED, settings or Settings())[-1]["spec"]["template"]["spec"]
    return [*pod["initContainers"], *pod["containers"]]


def variables(container: dict[str, Any]) -> dict[str, Any]:
    found = {each["name"]: each.get("value", each.get("valueFrom")) for each in container["env"]}
    assert len(found) == len(container["env"]), "a variable stands twice"
    return found


def test_proxies_and_trusted_certificates_reach_all_three_containers() -> None:
    for container in containers_of(STRICT):
        given = variables(container)
        assert given["NO_PROXY"] == "10.0.0.0/8,.svc"
        assert given["HTTPS_PROXY"] == {"secretKeyRef": {"name": "proxy", "key": "url"}}
        mounted = next(each for each in container["volumeMounts"] if each["name"] == "ca")
        for name in ("AWS_CA_BUNDLE", "SSL_CERT_FILE", "REQUESTS_CA_BUNDLE"):
            assert given[name] == f"{mounted['mountPath']}/ca.crt"
        assert ("NCCL_DEBUG" in given) == (container["name"] == "trainer")


def test_certificates_come_from_a_secret_as_well() -> None:
    pod = manifests(job({"pod": {"caBundle": {"secret": {"name": "s", "key": "k"}}}}), 1, CREATED, Settings())[-1]
    volume = next(each for each in pod["spec"]["template"]["spec"]["volumes"] if each["name"] == "ca")
    assert volume == {"name": "ca", "secret": {"secretName": "s", "items": [{"key": "k", "path": "ca.crt"}]}}


def test_a_cluster_that_assigns_users_is_given_none() -> None:
    pod = sent("strict")[-1]["spec"]["template"]["spec"]
    assert pod["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}


def test_pods_of_one_attempt_are_counted_where_no_others_are_named() -> None:
    first, second = sent("strict")[-1]["spec"]["template"]["spec"]["topologySpreadConstraints"]
    assert (
        first["labelSelector"]["matchLabels"].items()
        <= sent("strict")[-1]["spec"]["template"]["metadata"]["labels"].items()
    )
    assert second["labelSelector"] == {"matchLabels": {"team": "vision"}}


DEFAULTS = JobDefaults.model_validate(
    {
        "resources": {"limits": {"cpu": "4", "memory": "16Gi"}, "requests": {"cpu": "2"}},
        "env": [{"name": "HTTPS_PROXY", "value": "http://proxy:3128"}, {"name": "NO_PROXY", "value": ".svc"}],
        "caBundle": {"configMap": {"name": "authorities", "key": "ca.crt"}},
        "runtimeClassName": "nvidia", "priorityClassName": "low", "securityContext": {},
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    }
)  # fmt: skip


def test_what_a_job_leaves_open_the_operator_fills_in() -> None:
    pod = manifests(job({}), 1, CREATED, Settings(job_defaults=DEFAULTS))[-1]["spec"]["template"]["spec"]
    assert (pod["runtimeClassName"], pod["priorityClassName"]) == ("nvidia", "low")
    assert pod["topologySpreadConstraints"][0]["topologyKey"] == "zone"
    assert "runAsUser" not in pod["securityContext"]
    assert pod["containers"][0]["resources"] == {
        "limits": {"cpu": "4", "memory": "16Gi"}, "requests": {"cpu": "2"},
    }  # fmt: skip
    assert variables(pod["containers"][0])["OMP_NUM_THREADS"] == "4"
    for container in [*pod["initContainers"], *pod["containers"]]:
        assert variables(container)["HTTPS_PROXY"] == "http://proxy:3128"
        assert variables(container)["AWS_CA_BUNDLE"] == "/work/ca/ca.crt"


def test_what_a_job_says_wins_over_what_the_operator_fills_in() -> None:
    spec = {
        "resources": {"requests": {"cpu": "8"}},
        "scheduling": {"priorityClassName": "high"},
        "pod": {
            "commonEnv": [{"name": "HTTPS_PROXY", "value": "http://mine:3128"}],
            "env": [{"name": "NO_PROXY", "value": "*"}, {"name": "SSL_CERT_FILE", "value": "/mine.pem"}],
            "runtimeClassName": "gvisor", "securityContext": {"runAsUser": 1000},
        },
    }  # fmt: skip
    pod = manifests(job(spec), 1, CREATED, Settings(job_defaults=DEFAULTS))[-1]["spec"]["template"]["spec"]
    trainer = variables(pod["containers"][0])
    assert (pod["runtimeClassName"], pod["priorityClassName"]) == ("gvisor", "high")
    assert pod["securityContext"]["runAsUser"] == 1000
    assert pod["containers"][0]["resources"] == {"limits": {"memory": "16Gi"}, "requests": {"cpu": "8"}}
    assert (trainer["HTTPS_PROXY"], trainer["NO_PROXY"], trainer["SSL_CERT_FILE"]) == (
        "http://mine:3128",
        "*",
        "/mine.pem",
    )
