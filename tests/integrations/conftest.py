"""Other people's controllers, themselves: collected only when they are asked for, because each takes minutes to compile."""

from pathlib import Path

import pytest

from tests.cluster.tools import Tools, default_cache

NEEDED = {
    "test_kueue.py": ("kueue",),
    "test_cert_manager.py": ("cert-manager-controller", "cert-manager-cainjector", "helm"),
}


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    asked = any("tests/integrations" in str(argument) for argument in config.invocation_params.args)
    return None if asked else collection_path.suffix == ".py" or None


def pytest_collection_finish(session: pytest.Session) -> None:
    """Compile what the chosen tests need before the first of them: that outlasts a test's time limit."""
    tools = Tools(default_cache())
    for file in {item.path.name for item in session.items} & NEEDED.keys():
        if not session.config.option.collectonly and tools.can_provide(NEEDED[file]):
            with session.config.pluginmanager.getplugin("capturemanager").global_and_fixture_disabled():
                tools.build(NEEDED[file])
