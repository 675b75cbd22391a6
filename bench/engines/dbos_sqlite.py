"""DBOS on SQLite: three steps that do nothing, each checkpointed by it. ``python -m bench.engines.dbos_sqlite FOLDER``"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from dbos import DBOS, SetWorkflowID

from bench.engines.telling import STEPS, obey


@DBOS.step()
async def step(number: int) -> int:
    return number


@DBOS.workflow()
async def three_steps(number: int) -> int:
    for index in range(STEPS):
        await step(index)
    return number


async def main(folder: Path) -> None:
    DBOS(
        config={
            "name": "bench",
            "system_database_url": f"sqlite:///{folder / 'dbos.sqlite'}",
            "log_level": "ERROR",
            "enable_otlp": False,
        }
    )
    DBOS.launch()

    async def workflow(number: int) -> None:
        with SetWorkflowID(f"run-{number}"):
            assert await three_steps(number) == number

    await obey(workflow)
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
