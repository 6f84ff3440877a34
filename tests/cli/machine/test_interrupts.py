"""Ctrl-C once asks for an orderly end; a second time ends at once."""

import os
import signal

import pytest

from atj.machine.interrupts import Interrupts


def test_first_signal_asks_and_second_insists() -> None:
    with Interrupts() as interrupts:
        os.kill(os.getpid(), signal.SIGINT)
        assert interrupts.asked
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGTERM)


def test_signals_mean_what_they_meant_before_the_block() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interrupts():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before
