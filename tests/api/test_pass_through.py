"""What a job passes through to Kubernetes is refused here if the API server would refuse it in the child Job, with its place."""

from decimal import Decimal
from typing import Any

import pytest
import yaml

from adapter_api.document import InvalidDocument, dump, parse, validate
from adapter_api.job import AdapterTrainingJob
from adapter_api.quantities import amount
from tests.operator.support.builders import job

SPREAD = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}
REFUSED: dict[str, tuple[dict[str, Any], str]] = {
    "gpu-in-requests-alone": ({"resources": {"requests": {"nvidia.com/gpu": 1}}}, "resources.requests['nvidia.com/gpu']: needs the same in limits"),
    "request-over-limit": ({"resources": {"limits": {"cpu": 1}, "requests": {"cpu": "1100m"}}}, "resources.requests.cpu: 1100m is more than its limit 1"),
    "memory-request-over-limit": ({"resources": {"limits": {"memory": "1G"}, "requests": {"memory": "1Gi"}}}, "resources.requests.memory: 1Gi is more"),
    "fewer-gpus-than-the-limit": ({"resources": {"limits": {"nvidia.com/gpu": 2}, "requests": {"nvidia.com/gpu": 1}}}, "must be the same as its limit"),
    "fraction-of-a-device": ({"resources": {"limits": {"rdma/hca": "500m"}}}, "resources.limits['rdma/hca']: 500m: give a whole number"),
    "hugepages-alone": ({"resources": {"limits": {"hugepages-2Mi": "1Gi"}}}, "resources.limits.hugepages-2Mi: needs cpu or memory"),
    "unqualified-resource": ({"resources": {"limits": {"gpu": 1}}}, "resources.limits.gpu: is not a resource that Kubernetes knows"),
    "resource-of-two-domains": ({"resources": {"limits": {"a/b/c": 1}}}, "is not a qualified name"),
    "label-with-a-blank": ({"pod": {"labels": {"team": "a b"}}}, "pod.labels.team: give text of the form"),
    "label-key-that-is-none": ({"pod": {"labels": {"-team": "a"}}}, "is not a qualified name"),
    "annotation-key-that-is-none": ({"pod": {"annotations": {"a/b/c": "x"}}}, "is not a qualified name"),
    "node-label-with-a-slash": ({"scheduling": {"nodeSelector": {"a": "b/c"}}}, "scheduling.nodeSelector.a: give text of the form"),
    "topology-key-that-is-none": ({"scheduling": {"topologyKey": "kubernetes.io/"}}, "scheduling.topologyKey: "),
    "volume-name-with-a-dot": ({"pod": {"volumes": [{"name": "a.b", "mountPath": "/x", "emptyDir": {}}]}}, "pod.volumes[0].name: "),
    "volume-name-too-long-behind-our-prefix": ({"pod": {"volumes": [{"name": "a" * 59, "mountPath": "/x", "emptyDir": {}}]}}, "at most 58 characters"),
    "mount-over-work": ({"pod": {"volumes": [{"name": "a", "mountPath": "/work", "emptyDir": {}}]}}, "would hide /work"),
    "mount-inside-data": ({"pod": {"volumes": [{"name": "a", "mountPath": "/data/more", "emptyDir": {}}]}}, "would hide /data"),
    "mount-over-tmp": ({"pod": {"volumes": [{"name": "a", "mountPath": "/tmp/", "emptyDir": {}}]}}, "would hide /tmp"),
    "mount-above-shm": ({"pod": {"volumes": [{"name": "a", "mountPath": "/dev", "emptyDir": {}}]}}, "would hide /dev/shm"),
    "mounts-that-are-the-same": ({"pod": {"volumes": [{"name": "a", "mountPath": "/x", "emptyDir": {}}, {"name": "b", "mountPath": "/x/./", "emptyDir": {}}]}}, "twice"),
    "expression-without-values": ({"scheduling": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "preference": {"matchExpressions": [{"key": "a", "operator": "In"}]}}]}}}}, "needs values"),
    "weight-of-zero": ({"scheduling": {"affinity": {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 0, "preference": {}}]}}}}, "weight"),
    "toleration-of-everything-by-accident": ({"scheduling": {"tolerations": [{"effect": "NoSchedule"}]}}, "scheduling.tolerations[0]: a toleration without a key matches every taint"),
    "toleration-that-exists-with-a-value": ({"scheduling": {"tolerations": [{"key": "a", "operator": "Exists", "value": "b"}]}}, "compares no value"),
    "toleration-seconds-of-another-effect": ({"scheduling": {"tolerations": [{"key": "a", "operator": "Exists", "tolerationSeconds": 5}]}}, "NoExecute"),
    "queue-name-too-long": ({"scheduling": {"queueName": "q" * 64}}, "scheduling.queueName: "),
    "secret-key-of-dots": ({"pod": {"env": [{"name": "A", "secretKeyRef": {"name": "s", "key": ".."}}]}}, "secretKeyRef.key: "),
    "credentials-for-all-containers": ({"pod": {"commonEnv": [{"name": "AWS_ACCESS_KEY_ID", "value": "x"}]}}, "pod.commonEnv[0]: AWS_ACCESS_KEY_ID is read from the Secret that spec.output.s3.secretRef names"),
    "variable-of-ours-for-all-containers": ({"pod": {"commonEnv": [{"name": "POD_IP", "value": "x"}]}}, "pod.commonEnv[0]: POD_IP is set by the launch"),
    "value-from-for-all-containers": ({"pod": {"commonEnv": [{"name": "A", "valueFrom": {}}]}}, "valueFrom is written as secretKeyRef"),
    "the-same-variable-in-both-lists": ({"pod": {"commonEnv": [{"name": "A", "value": "x"}], "env": [{"name": "A", "value": "x"}]}}, "env and commonEnv hold A twice"),
    "bundle-and-its-variable": ({"pod": {"caBundle": {"secret": {"name": "s", "key": "k"}}, "commonEnv": [{"name": "SSL_CERT_FILE", "value": "/x"}]}}, "pod.commonEnv[0]: SSL_CERT_FILE is set by caBundle"),
    "bundle-of-nothing": ({"pod": {"caBundle": {}}}, "pod.caBundle: give exactly one of configMap and secret"),
    "root": ({"pod": {"securityContext": {"runAsUser": 0}}}, "pod.securityContext.runAsUser: give a number of at least 1"),
    "privileges": ({"pod": {"securityContext": {"privileged": True}}}, "pod.securityContext.privileged: is not a field here"),
    "runtime-class-that-is-none": ({"pod": {"runtimeClassName": "A b"}}, "pod.runtimeClassName: "),
    "spread-of-no-skew": ({"scheduling": {"topologySpreadConstraints": [{**SPREAD, "maxSkew": 0}]}}, "topologySpreadConstraints[0].maxSkew: "),
    "spread-with-domains-that-do-not-count": ({"scheduling": {"topologySpreadConstraints": [{**SPREAD, "minDomains": 2}]}}, "topologySpreadConstraints[0]: minDomains counts with"),
    "spread-by-keys-of-nothing": ({"scheduling": {"topologySpreadConstraints": [{**SPREAD, "matchLabelKeys": ["a"]}]}}, "matchLabelKeys needs labelSelector"),
    "spread-by-a-key-twice": ({"scheduling": {"topologySpreadConstraints": [{**SPREAD, "matchLabelKeys": ["a"], "labelSelector": {"matchLabels": {"a": "b"}}}]}}, "a is in both matchLabelKeys and labelSelector"),
    "spread-over-the-same-twice": ({"scheduling": {"topologySpreadConstraints": [SPREAD, SPREAD]}}, "hold zone twice"),
    "deadline-beyond-time": ({"activeDeadlineSeconds": 2**40}, "activeDeadlineSeconds: give a number of at most"),
}  # fmt: skip


def refusal(text: str) -> str:
    with pytest.raises(InvalidDocument) as refused:
        validate(AdapterTrainingJob, parse(text, "job.yaml"))
    return str(refused.value)


@pytest.mark.parametrize(("spec", "told"), REFUSED.values(), ids=REFUSED)
def test_what_the_api_server_would_refuse_is_refused_with_its_path_and_line(spec: dict[str, Any], told: str) -> None:
    plain = yaml.safe_load(dump(job()))
    plain.pop("status")
    plain["spec"] |= spec
    said = refusal(yaml.safe_dump(plain, sort_keys=False))
    assert told in said
    assert said.startswith("job.yaml:")
    assert said.split(": ", 2)[1].startswith("spec.")


@pytest.mark.parametrize("namespace", ["a.b", "A", "x" * 64])
def test_a_namespace_is_one_name(namespace: str) -> None:
    plain = job().model_dump(mode="json", by_alias=True, exclude_none=True)
    plain["metadata"]["namespace"] = namespace
    with pytest.raises(ValueError, match="namespace"):
        AdapterTrainingJob.model_validate(plain)


@pytest.mark.parametrize(
    ("quantity", "value"),
    [("500m", "0.5"), ("2", "2"), ("1Ki", "1024"), ("1.5Gi", "1610612736"), ("1e3", "1000"), (".5", "0.5"), ("5.", "5"), ("1E", "1E18"), ("2E2", "200"), ("3n", "3E-9")],
)  # fmt: skip
def test_a_quantity_is_the_number_that_kubernetes_reads(quantity: str, value: str) -> None:
    assert amount(quantity) == Decimal(value)


@pytest.mark.parametrize(
    "resources",
    [
        {"limits": {"nvidia.com/gpu": 1}}, {"limits": {"cpu": "2"}, "requests": {"cpu": "1999m", "memory": "1Gi"}},
        {"limits": {"memory": "1Gi", "hugepages-2Mi": "4Mi"}}, {"limits": {"rdma/hca": "1e0"}}, {"requests": {"ephemeral-storage": "1e9"}},
        {"limits": {"cpu": "1e99999999"}},
    ],
)  # fmt: skip
def test_what_it_takes_is_taken(resources: dict[str, Any]) -> None:
    assert job({"resources": resources}).spec.resources.limits.keys() == resources.get("limits", {}).keys()


@pytest.mark.parametrize(
    ("label", "field"), [("queue-name", "queueName"), ("priority-class", "queuePriorityClassName")]
)
def test_a_label_of_kueues_on_the_job_itself_is_answered_with_the_field_that_does_it(label: str, field: str) -> None:
    plain = yaml.safe_load(dump(job()))
    plain.pop("status")
    plain["metadata"]["labels"] = {f"kueue.x-k8s.io/{label}": "gold"}
    told = refusal(yaml.safe_dump(plain))
    assert f"metadata.labels['kueue.x-k8s.io/{label}']: holds no job here: write spec.scheduling.{field}: gold" in told


@pytest.mark.parametrize(
    ("pod", "told"),
    [
        ({"env": [{"name": "A", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]}, "spec.pod.env[0]: valueFrom is written as secretKeyRef"),
        ({"envFrom": [{"secretRef": {"name": "s"}}]}, "spec.pod: envFrom is not taken: name each variable in env"),
    ],
    ids=["valueFrom", "envFrom"],
)  # fmt: skip
def test_what_pods_write_otherwise_is_answered_with_what_to_write_here(pod: dict[str, Any], told: str) -> None:
    plain = yaml.safe_load(dump(job({"pod": {}})))
    plain.pop("status")
    plain["spec"]["pod"] = pod
    assert told in refusal(yaml.safe_dump(plain))
