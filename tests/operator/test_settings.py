"""Settings come from the environment, and what means nothing is named."""

import pytest

from adapter_operator.settings import InvalidSettings, Settings, settings


def test_without_variables_the_defaults_hold() -> None:
    assert settings({}) == Settings()


def test_every_kind_of_value_is_read() -> None:
    given = settings(
        {
            "ADAPTER_OPERATOR_WORKERS": "4", "ADAPTER_OPERATOR_RESYNC_SECONDS": "1.5", "ADAPTER_OPERATOR_LOG_LEVEL": "DEBUG",
            "ADAPTER_OPERATOR_NETWORK_POLICIES": "false", "ADAPTER_OPERATOR_WATCH_NAMESPACE": "team",
        }
    )  # fmt: skip
    assert (given.workers, given.resync_seconds, given.log_level) == (4, 1.5, "DEBUG")
    assert (given.network_policies, given.watch_namespace) == (False, "team")


@pytest.mark.parametrize(
    ("name", "value"),
    [("WORKERS", "0"), ("WORKERS", "many"), ("BURST", "1.5"), ("LOG_LEVEL", "loud"), ("NETWORK_POLICIES", "no"),
     ("RESYNC_SECONDS", "nan"), ("RESYNC_SECONDS", "-1")],
)  # fmt: skip
def test_a_value_that_means_nothing_is_named(name: str, value: str) -> None:
    with pytest.raises(InvalidSettings, match=f"ADAPTER_OPERATOR_{name}="):
        settings({f"ADAPTER_OPERATOR_{name}": value})


def test_the_agents_resources_are_those_of_a_container() -> None:
    given = settings({"ADAPTER_OPERATOR_AGENT_RESOURCES": '{"limits":{"cpu":1,"memory":"1Gi"}}'})
    assert given.agent_resources.limits == {"cpu": "1", "memory": "1Gi"}
    for text in ("{", '{"limit": {}}', '{"requests": {"cpu": 2}, "limits": {"cpu": 1}}'):
        with pytest.raises(InvalidSettings, match="ADAPTER_OPERATOR_AGENT_RESOURCES"):
            settings({"ADAPTER_OPERATOR_AGENT_RESOURCES": text})


def test_what_jobs_leave_open_is_held_to_the_rules_of_a_job() -> None:
    given = settings(
        {"ADAPTER_OPERATOR_JOB_DEFAULTS": '{"env": [{"name": "NO_PROXY", "value": ".svc"}], "securityContext": {}}'}
    )
    assert given.job_defaults.env[0].name == "NO_PROXY"
    assert given.job_defaults.security_context.run_as_user is None
    assert Settings().job_defaults.security_context.run_as_user == 65532
    for text, told in (
        ('{"env": [{"name": "RANK", "value": "1"}]}', "RANK is set by the launch"),
        ('{"env": [{"name": "AWS_SECRET_ACCESS_KEY", "value": "1"}]}', "spec.output.s3.secretRef names"),
        ('{"resources": {"limits": {"nvidia.com/gpu": 1}}}', "nvidia.com/gpu is counted by a job's own spec.resources"),
        ('{"runtimeClass": "nvidia"}', "runtimeClass: is not a field here"),
    ):
        with pytest.raises(InvalidSettings, match=told):
            settings({"ADAPTER_OPERATOR_JOB_DEFAULTS": text})
