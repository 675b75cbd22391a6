"""The Temporal dev server on a file, with one worker: three activities that do nothing.

``python -m bench.engines.temporal FOLDER [tuned]``; tuned polls its transfer queue as a server under load would.
"""

from __future__ import annotations

import asyncio
import logging
import sys
from datetime import timedelta
from pathlib import Path

from temporalio import activity, workflow
from temporalio.testing import WorkflowEnvironment
from temporalio.worker import UnsandboxedWorkflowRunner, Worker

from bench.engines.telling import STEPS, obey

TUNED = ["--dynamic-config-value", "history.transferProcessorMaxPollRPS=2000"]


@activity.defn
async def step(number: int) -> int:
    return number


@workflow.defn
class ThreeSteps:
    @workflow.run
    async def run(self, number: int) -> int:
        for index in range(STEPS):
            await workflow.execute_activity(step, index, start_to_close_timeout=timedelta(seconds=60))
        return number


async def main(folder: Path, tuned: bool) -> None:
    logging.disable(logging.WARNING)
    environment = await WorkflowEnvironment.start_local(
        dev_server_existing_path=str(Path(sys.executable).with_name("temporal")),
        dev_server_database_filename=str(folder / "temporal.sqlite"),
        dev_server_log_level="error",
        dev_server_extra_args=TUNED if tuned else [],
        ui=False,
    )
    async with (
        environment,
        Worker(
            environment.client,
            task_queue="bench",
            workflows=[ThreeSteps],
            activities=[step],
            workflow_runner=UnsandboxedWorkflowRunner(),
        ),
    ):

        async def run(number: int) -> None:
            done = await environment.client.execute_workflow(
                ThreeSteps.run, number, id=f"run-{number}", task_queue="bench"
            )
            assert done == number

        await obey(run)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), "tuned" in sys.argv[2:]))
