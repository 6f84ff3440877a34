"""A job says only what can be granted, in the words that Kubernetes uses."""

import json
from typing import Any

import pytest
import yaml

from adapter_api.cluster_rules import validate_for_cluster
from adapter_api.document import InvalidDocument, dump, parse, validate
from adapter_api.job import AdapterTrainingJob

MINIMAL: dict[str, Any] = {
    "training": {"model": {"params": {"token_conditioners": {"label_to_token": {}}}}},
    "output": {"s3": {"uri": "s3://checkpoints/digits"}},
}


def job(name: object = "digits", **spec: object) -> AdapterTrainingJob:
    data = {
        "apiVersion": "adaptertraining.dev/v1alpha1",
        "kind": "AdapterTrainingJob",
        "metadata": {"name": name},
        "spec": {**MINIMAL, **spec},
    }
    return validate(AdapterTrainingJob, parse(json.dumps(data), "job.json"))


def refusal(name: object = "digits", **spec: object) -> str:
    with pytest.raises(InvalidDocument) as refused:
        job(name, **spec)
    return str(refused.value)


def s3(**fields: object) -> dict[str, object]:
    return {"s3": {"uri": "s3://checkpoints/digits", **fields}}


def test_a_job_needs_only_a_name_a_training_and_an_output() -> None:
    spec = job().spec
    assert (spec.nodes, spec.processes, spec.world_size) == (1, 1, 1)


@pytest.mark.parametrize("name", ["a", "a-1", "a" * 52])
def test_names_that_fit_every_object_made_from_them(name: str) -> None:
    assert job(name).metadata.name == name


@pytest.mark.parametrize("name", ["", "A", "a_b", "a.b", "-a", "a-", "1a", "a" * 53, "ä", "a\n", "../a", "a" * 10_000])
def test_names_that_no_service_could_have_are_refused(name: str) -> None:
    message = refusal(name)
    assert "metadata.name: " in message
    assert "is not a job name: at most 52 lower-case letters, digits and dashes" in message
    assert len(message) < 300


def test_another_kind_or_version_is_refused() -> None:
    with pytest.raises(InvalidDocument, match="give 'AdapterTrainingJob', not 'PyTorchJob'"):
        validate(AdapterTrainingJob, parse("kind: PyTorchJob", "job.yaml"))


def test_fields_have_only_the_names_that_the_api_server_knows() -> None:
    assert "spec.procs_per_node: is not a field here" in refusal(procs_per_node=2)


@pytest.mark.parametrize("field", ["hostNetwork", "hostPID", "containers", "initContainers", "hostPath"])
def test_pods_cannot_ask_for_the_node(field: str) -> None:
    assert f"spec.pod.{field}: is not a field here" in refusal(pod={field: True})


@pytest.mark.parametrize(
    "field", ["privileged", "capabilities", "allowPrivilegeEscalation", "seLinuxOptions", "sysctls"]
)
def test_pods_cannot_ask_for_more_than_user_and_groups(field: str) -> None:
    assert f"spec.pod.securityContext.{field}: is not a field here" in refusal(pod={"securityContext": {field: True}})


def test_a_host_path_volume_cannot_be_asked_for() -> None:
    volume = {"name": "v", "mountPath": "/v", "hostPath": {"path": "/"}}
    assert "spec.pod.volumes[0].hostPath: is not a field here" in refusal(pod={"volumes": [volume]})


@pytest.mark.parametrize(
    ("given", "text"),
    [("500m", "500m"), (2, "2"), (1.5, "1.5"), (2.0, "2"), ("4Gi", "4Gi"), ("1e3", "1e3"), (".5", ".5"), ("0", "0")],
)
def test_quantities_are_kept_as_text(given: object, text: str) -> None:
    assert job(resources={"limits": {"cpu": given}}).spec.resources.limits == {"cpu": text}


@pytest.mark.parametrize("given", ["", "-1", "4GiB", "1 Gi", "４Gi", True, None, [], "1" * 33, "1\n", "abc", 1e300])
def test_what_is_no_quantity_is_refused(given: object) -> None:
    message = refusal(resources={"requests": {"memory": given}})
    assert "spec.resources.requests.memory: " in message
    assert "is not a quantity; write for example 500m, 2 or 4Gi" in message
    assert "spec.pod.sharedMemory: " in refusal(pod={"sharedMemory": given})


def test_processes_follow_the_gpus_of_any_vendor() -> None:
    resources = {"limits": {"nvidia.com/gpu": 8, "cpu": "1"}, "requests": {"nvidia.com/gpu": "8"}}
    spec = job(nodes=2, resources=resources).spec
    assert (spec.processes, spec.world_size) == (8, 16)
    assert job(resources={"limits": {"amd.com/gpu": 4}}).spec.processes == 4
    assert job(resources=resources, procsPerNode=2).spec.processes == 2


@pytest.mark.parametrize("given", ["2k", "500m", 1.5, 65, "99999999999999999999"])
def test_gpus_that_cannot_be_counted_are_refused(given: object) -> None:
    assert "give a whole number of GPUs, at most 64" in refusal(resources={"limits": {"nvidia.com/gpu": given}})


def test_validating_resources_leaves_the_given_data_alone() -> None:
    given = {"limits": {"cpu": 2}}
    document = parse(json.dumps({"spec": {"resources": given}}), "job.json")
    with pytest.raises(InvalidDocument):
        validate(AdapterTrainingJob, document)
    assert document.data["spec"]["resources"] == {"limits": {"cpu": 2}}


@pytest.mark.parametrize(
    ("procs", "message"),
    [
        (0, "spec.procsPerNode: give a number of at least 1 or 'auto', not 0"),
        (65, "spec.procsPerNode: give a number of at most 64 or 'auto', not 65"),
        ("all", "spec.procsPerNode: give an integer or 'auto', not 'all'"),
        (True, "spec.procsPerNode: give an integer or 'auto', not true"),
    ],
)
def test_processes_per_node_have_one_fault(procs: object, message: str) -> None:
    assert refusal(procsPerNode=procs) == f"job.json:1: {message}"


@pytest.mark.parametrize("uri", ["s3://abc", "s3://abc/", "s3://a.b-c/x/y=1/z+@_", "s3://abc/a/"])
def test_object_storage_addresses_lose_their_last_slash(uri: str) -> None:
    assert job(output={"s3": {"uri": uri}}).spec.output.s3.uri == uri.rstrip("/")


@pytest.mark.parametrize(
    "uri",
    [
        "", "s3:/abc/x", "S3://abc/x", "https://abc/x", "s3://ab", "s3://ABC/x", "s3://abc/../x", "s3://abc/x/..",
        "s3://abc/./x", "s3://abc//x", "s3://abc/x y", "s3://abc/x\n", "s3://abc/x?y", "s3://user:secret@abc/x",
        "s3://a..b/x", "s3://-abc/x", "s3://abc/ä", "s3://abc/%2e%2e/x",
    ],
)  # fmt: skip
def test_addresses_that_could_leave_their_prefix_are_refused(uri: str) -> None:
    message = refusal(output={"s3": {"uri": uri}})
    assert "spec.output.s3.uri: " in message
    assert "is not an object storage address: write s3://bucket/prefix" in message


@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:8333", "https://s3.example.org/", "http://[::1]:9000", "http://minio"]
)
def test_endpoints_are_kept(url: str) -> None:
    assert job(output=s3(endpointURL=url)).spec.output.s3.endpoint_url == url.rstrip("/")


@pytest.mark.parametrize(
    "url",
    ["ftp://h", "127.0.0.1:8333", "http://", "http://:80", "http://h:70000", "http://h:0", "http://h?x", "http://[::1"],
)
def test_what_is_no_endpoint_is_refused(url: str) -> None:
    assert "spec.output.s3.endpointURL: is not an endpoint; write http(s)://host:port" in refusal(
        output=s3(endpointURL=url)
    )


def test_a_password_in_an_endpoint_is_refused_and_not_repeated() -> None:
    message = refusal(output=s3(endpointURL="https://user:hunter2@storage.example.org"))
    assert "with credentials in secretRef only" in message
    assert "hunter2" not in message


@pytest.mark.parametrize(
    "name",
    [
        "RANK",
        "LOCAL_RANK",
        "WORLD_SIZE",
        "MASTER_ADDR",
        "PET_NNODES",
        "TORCHELASTIC_X",
        "ADAPTER_TRAINING_NODE",
        "JOB_COMPLETION_INDEX",
    ],
)
def test_what_the_launch_sets_cannot_be_set(name: str) -> None:
    assert f"{name} is set by the launch; remove it" in refusal(pod={"env": [{"name": name, "value": "1"}]})


@pytest.mark.parametrize("name", ["", "1A", "A-B", "A=B", "A B", "Ä"])
def test_names_that_no_environment_could_hold_are_refused(name: str) -> None:
    assert "spec.pod.env[0].name: give text of the form" in refusal(pod={"env": [{"name": name, "value": "1"}]})


def test_a_variable_has_exactly_one_source() -> None:
    reference = {"name": "wandb", "key": "WANDB_API_KEY"}
    env = job(pod={"env": [{"name": "A", "value": ""}, {"name": "B", "secretKeyRef": reference}]}).spec.pod.env
    assert env[1].secret_key_ref is not None
    assert env[1].secret_key_ref.key == "WANDB_API_KEY"
    both = {"name": "A", "value": "", "secretKeyRef": reference}
    assert "A: give exactly one of value and secretKeyRef" in refusal(pod={"env": [both]})
    assert "A: give exactly one of value and secretKeyRef" in refusal(pod={"env": [{"name": "A"}]})
    assert "secretKeyRef.key: is required" in refusal(pod={"env": [{"name": "A", "secretKeyRef": {"name": "a"}}]})


@pytest.mark.parametrize(
    "source",
    [
        {"pvc": {"claimName": "c", "path": "a/b"}},
        {"configMap": {"name": "c"}},
        {"secret": {"name": "c"}},
        {"emptyDir": {}},
        {"emptyDir": {"sizeLimit": "1Gi", "medium": "Memory"}},
    ],
    ids=str,
)
def test_a_volume_has_one_source_of_four(source: dict[str, object]) -> None:
    volume = {"name": "v", "mountPath": "/v"}
    assert job(pod={"volumes": [{**volume, **source}]}).spec.pod.volumes[0].name == "v"
    assert "give exactly one of pvc, configMap, secret and emptyDir" in refusal(pod={"volumes": [volume]})
    twice = {**source, "secret": {"name": "x"}, "configMap": {"name": "x"}}
    assert "give exactly one of" in refusal(pod={"volumes": [{**volume, **twice}]})


@pytest.mark.parametrize("path", ["/etc", "..", "a/../../b"])
def test_a_claims_path_stays_inside_the_volume(path: str) -> None:
    assert "must be relative to the volume and stay inside it" in refusal(
        data={"pvc": {"claimName": "c", "path": path}}
    )


@pytest.mark.parametrize(
    ("volume", "message"),
    [
        ({"mountPath": "v"}, "mountPath: give text of the form"),
        ({"mountPath": "/v/../etc"}, "must not contain '..'"),
        ({"mountPath": "/v", "emptyDir": {"sizeLimit": "much"}}, "'much' is not a quantity"),
        ({"mountPath": "/v", "emptyDir": {"medium": "Disk"}}, "emptyDir.medium: give '' or 'Memory'"),
        ({"mountPath": "/v", "emptyDir": {"path": "/"}}, "emptyDir.path: is not a field here"),
    ],
)
def test_volumes_that_kubernetes_would_refuse_later_are_refused_now(volume: dict[str, object], message: str) -> None:
    assert message in refusal(pod={"volumes": [{"name": "v", "emptyDir": {}, **volume}]})


def test_nothing_in_a_pod_is_named_twice() -> None:
    variable = {"name": "A", "value": "1"}
    assert "env hold A twice; keep one" in refusal(pod={"env": [variable, variable]})
    first, second = ({"name": name, "mountPath": path, "emptyDir": {}} for name, path in (("v", "/v"), ("w", "/v/")))
    assert "volumes, by mountPath, hold /v twice" in refusal(pod={"volumes": [first, second]})
    assert "volumes, by name, hold v twice" in refusal(pod={"volumes": [first, {**second, "name": "v"}]})


@pytest.mark.parametrize("region", ["us-east-1", "RegionOne", "eu", "US-WEST-000"])
def test_regions_are_as_stores_name_them(region: str) -> None:
    assert job(output=s3(region=region)).spec.output.s3.region == region


@pytest.mark.parametrize("region", ["", "-eu", "eu_1", "eu 1", "x" * 64, "eu\n"])
def test_what_no_store_calls_a_region_is_refused(region: str) -> None:
    with pytest.raises(InvalidDocument):
        job(output=s3(region=region))


def test_a_key_of_a_key_management_service_needs_its_algorithm() -> None:
    encryption = {"algorithm": "aws:kms", "kmsKeyID": "alias/photos"}
    accepted = job(output=s3(serverSideEncryption=encryption)).spec.output.s3.server_side_encryption
    assert accepted is not None
    assert accepted.kms_key_id == "alias/photos"
    with pytest.raises(InvalidDocument, match="kmsKeyID needs algorithm aws:kms"):
        job(output=s3(serverSideEncryption={**encryption, "algorithm": "AES256"}))


@pytest.mark.parametrize("data", [{}, {"s3": {"uri": "s3://abc"}, "pvc": {"claimName": "c"}}])
def test_data_have_exactly_one_source(data: dict[str, object]) -> None:
    assert "spec.data: give exactly one of s3 and pvc" in refusal(data=data)


@pytest.mark.parametrize("beside", [{}, {"s3": {"uri": "s3://abc"}}, {"pvc": {"claimName": "c"}}])
def test_data_may_be_a_folder_of_this_machine_alone_or_beside_a_cluster_s_source(beside: dict[str, object]) -> None:
    data = job(data={"folder": "data/digits", **beside}).spec.data
    assert data is not None
    assert (data.folder, data.is_here_only) == ("data/digits", not beside)


def test_a_cluster_refuses_data_that_are_only_on_this_machine_and_says_what_to_do() -> None:
    text = json.dumps(
        {
            "apiVersion": "adaptertraining.dev/v1alpha1",
            "kind": "AdapterTrainingJob",
            "metadata": {"name": "digits"},
            "spec": {**MINIMAL, "data": {"folder": "data/digits"}},
        }
    )
    with pytest.raises(InvalidDocument) as refused:
        validate_for_cluster(parse(text, "job.json"))
    (told,) = str(refused.value).splitlines()
    assert told.startswith("job.json:1: spec.data: folder is on the machine of `atj run`, and no pod can see it")
    assert "aws s3 sync FOLDER s3://BUCKET/PREFIX" in told


def test_a_cluster_accepts_a_job_that_has_a_source_for_each() -> None:
    data = {"folder": "data/digits", "s3": {"uri": "s3://datasets/digits"}}
    text = json.dumps(job(data=data).model_dump(mode="json", by_alias=True, exclude={"status"}, exclude_none=True))
    assert validate_for_cluster(parse(text, "job.json")).spec.data is not None


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"nodes": 0}, "spec.nodes: give a number of at least 1"),
        ({"nodes": 4097}, "spec.nodes: give a number of at most 4096"),
        ({"nodes": "2"}, "spec.nodes: give an integer, not '2'"),
        ({"suspend": "no"}, "spec.suspend: give true or false, not 'no'"),
        ({"image": "a b"}, "spec.image: give text of the form"),
        ({"restart": {"maxRestarts": -1}}, "spec.restart.maxRestarts: give a number of at least 0"),
        ({"resumeFrom": {"uri": "s3://abc/x", "step": -1}}, "spec.resumeFrom.step: give a number of at least 0"),
        ({"terminationGracePeriodSeconds": 0}, "spec.terminationGracePeriodSeconds: give a number of at least 1"),
        ({"training": None}, "spec.training: give a mapping of fields, not nothing"),
    ],
)
def test_every_part_of_a_job_is_bounded(spec: dict[str, object], message: str) -> None:
    assert message in refusal(**spec)


def test_a_job_read_back_from_the_cluster_keeps_what_only_the_server_knows_aside() -> None:
    data = {
        "apiVersion": "adaptertraining.dev/v1alpha1",
        "kind": "AdapterTrainingJob",
        "metadata": {"name": "digits", "uid": "1", "resourceVersion": "7", "managedFields": [{}], "selfLink": "/"},
        "spec": MINIMAL,
        "status": {"attempt": 1, "addedByALaterVersion": True},
    }
    read = validate(AdapterTrainingJob, parse(json.dumps(data), "job.json"))
    assert (read.metadata.resource_version, read.status.attempt) == ("7", 1)


def test_a_job_survives_being_written() -> None:
    written = job(nodes=2, resources={"limits": {"cpu": "1e3"}}, pod={"annotations": {"commit": "12e45"}})
    assert validate(AdapterTrainingJob, parse(dump(written), "job.yaml")) == written


def test_a_name_that_the_cluster_makes_is_held_to_the_same_length() -> None:
    plain = yaml.safe_load(dump(job()))
    plain.pop("status")
    plain["metadata"] = {"generateName": "digits-"}
    assert AdapterTrainingJob.model_validate(plain).metadata.name == "digits-xxxxx"
    plain["metadata"] = {"generateName": "d" * 48}
    with pytest.raises(ValueError, match="is not a job name"):
        AdapterTrainingJob.model_validate(plain)
