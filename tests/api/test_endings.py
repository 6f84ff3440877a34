"""Operator and `atj run` agree on which ends are final, and on how long a restart waits."""

import pytest

from adapter_api.job import Restart
from adapter_api.progress import ExitCode, ends_for_good, is_users


@pytest.mark.parametrize(
    ("reason", "code", "users", "final"),
    [
        pytest.param("InvalidConfig", 2, True, True, id="configuration"),
        pytest.param("InvalidData", 1, True, True, id="data"),
        pytest.param("IncompatibleCheckpoint", 1, True, True, id="checkpoint"),
        pytest.param("InvalidConfiguration", 1, True, True, id="the agent's options"),
        pytest.param("Failed", ExitCode.INVALID, True, True, id="any reason with the code for it"),
        pytest.param("Fenced", 1, False, True, id="a newer attempt"),
        pytest.param("Failed", ExitCode.FENCED, False, True, id="a newer attempt, by its code"),
        pytest.param("NonFiniteLoss", 1, False, False, id="loss"),
        pytest.param("StorageRefused", ExitCode.REFUSED, False, False, id="storage"),
        pytest.param("Stopped", ExitCode.STOPPED, False, False, id="stopped"),
        pytest.param("Killed", -9, False, False, id="killed"),
    ],
)
def test_an_end_is_final_where_another_attempt_would_end_so_too(
    reason: str, code: int, *, users: bool, final: bool
) -> None:
    assert (is_users(reason, code), ends_for_good(reason, code)) == (users, final)


def test_restarts_wait_twice_as_long_each_time_up_to_an_hour() -> None:
    restart = Restart(backoff_seconds=10)
    assert [restart.backoff(number) for number in (1, 2, 3, 9, 10, 10_000)] == [10, 20, 40, 2560, 3600, 3600]
    assert Restart(backoff_seconds=0).backoff(7) == 0
    assert Restart(backoff_seconds=86_400).backoff(1) == 3600
