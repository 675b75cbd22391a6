"""kill -9 on a server with a webhook: nothing that happened is never told, and each run's order is kept."""

from __future__ import annotations

import sys
from pathlib import Path

import anyio
import orjson
import pytest

from charter.manifests.tool_files import UpstreamManifest
from charter.server.keys import load_keys
from charter.server.secret_store import SecretFile
from charter.store.sealing import Sealer
from charter.store.sqlite import SqliteStore
from charter.workflows.outgoing import TYPES
from tests.engine.receiving import Receiver, receiver
from tests.guarantees.serving import Served, install
from tests.guarantees.test_crash import Told, killed_under_load

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.guarantee("G6"),
    pytest.mark.skipif(sys.platform == "win32", reason="kill -9 is a signal"),
]
HOOK = """
[webhooks.hook]
url = "{url}"
secret = ["hook"]
types = ["*"]
private = true
first_retry_seconds = 0.05
"""


def with_webhook(served: Served, url: str) -> None:
    config = served.folder / "charter.toml"
    config.write_text(config.read_text() + HOOK.format(url=url))
    keys = load_keys(served.settings.keys_folder)
    secrets = SecretFile(served.settings.keys_folder / "secrets.json", Sealer(keys.sealing, keys.sealing_current))
    secrets.set("hook", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0")


async def everything_is_told(served: Served, hook: Receiver) -> list[tuple[str, str, int]]:
    """Id, run and number of every event that leaves, once all of them have come."""
    store = SqliteStore(served.database)
    await store.open()
    with anyio.fail_after(90):
        while True:
            rows = await store.log("default", 0, 1_000_000, TYPES)
            if {row.id for row in rows} <= {_id(body) for _, body in hook.got}:
                break
            await anyio.sleep(0.2)
    await store.close()
    return [(row.id, row.stream, row.seq) for row in rows]


def _id(body: bytes) -> str:
    return str(orjson.loads(body)["id"])


async def story(folder: Path, manifest: UpstreamManifest, kills: int, agents: int = 2) -> None:
    served = install(folder, manifest)
    async with receiver() as hook:
        with_webhook(served, hook.url)
        try:
            await killed_under_load(served, Told(), kills=kills, agents=agents)
            served.start()
            every = await everything_is_told(served, hook)
        finally:
            if served.process is not None and served.process.poll() is None:
                served.kill()
        numbers = {event_id: seq for event_id, _, seq in every}
        runs = {event_id: run for event_id, run, _ in every}
        told = list(dict.fromkeys(_id(body) for _, body in hook.got if _id(body) in numbers))
        for run in set(runs.values()):
            mine = [numbers[event_id] for event_id in told if runs[event_id] == run]
            assert mine == sorted(mine), run
    assert len(told) > 10, "there was a load"


async def test_a_killed_server_tells_everything_in_order(tmp_path: Path, manifest: UpstreamManifest) -> None:
    await story(tmp_path, manifest, kills=1, agents=1)


@pytest.mark.slow
async def test_a_server_that_is_killed_again_and_again_tells_everything_in_order(
    tmp_path: Path, manifest: UpstreamManifest
) -> None:
    await story(tmp_path, manifest, kills=10)
