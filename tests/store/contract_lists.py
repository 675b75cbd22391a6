"""What every store must do with its lists, its timers and its living servers."""

from __future__ import annotations

from typing import Any

import pytest

from charter.errors import InvalidInput
from charter.store.port import Due, Filter, Page, Store, VersionConflict
from tests.store.contract import Another
from tests.store.making import a_batch, a_wait, a_workflow, an_approval, an_effect

ALL = Filter()


class ListsContract:
    async def test_who_waits_for_a_signal_is_found_by_its_type_page_by_page(self, store: Store) -> None:
        for n in range(5):
            await store.append(a_batch(f"wf_{n}", 0, waits=(a_wait(f"wf_{n}"), a_wait(f"wf_{n}", "also"))))
        await store.append(a_batch("wf_x", 0, waits=(a_wait("wf_x", type="other"),)))
        await store.append(a_batch("wf_y", 0, tenant="other", waits=(a_wait("wf_y"),)))
        first = await store.waiting_for("acme", "invoice.paid", "", 3)
        assert first == ["wf_0", "wf_1", "wf_2"]
        assert await store.waiting_for("acme", "invoice.paid", first[-1], 3) == ["wf_3", "wf_4"]
        assert await store.waiting_for("other", "invoice.paid", "", 3) == ["wf_y"]
        assert await store.waiting_for("acme", "nothing", "", 3) == []

    async def test_a_wait_that_is_over_is_found_no_more(self, store: Store) -> None:
        await store.append(a_batch("wf_1", 0, waits=(a_wait("wf_1"), a_wait("wf_1", "also"))))
        await store.append(a_batch("wf_1", 1, waits=(a_wait("wf_1", status="over"),)))
        assert await store.waiting_for("acme", "invoice.paid", "", 9) == ["wf_1"]
        refused = a_batch("wf_1", 0, waits=(a_wait("wf_1", "also", status="over"),))
        with pytest.raises(VersionConflict):
            await store.append(refused)
        assert await store.waiting_for("acme", "invoice.paid", "", 9) == ["wf_1"]
        await store.append(a_batch("wf_1", 2, waits=(a_wait("wf_1", "also", status="over"),)))
        assert await store.waiting_for("acme", "invoice.paid", "", 9) == []

    async def test_a_list_row_is_what_the_last_batch_said(self, store: Store) -> None:
        for version, change in enumerate(
            [
                {},
                {"updated_at": "2026-11-21T09:00:00.000Z"},
                {"status": "completed"},
                {"owner": "bob", "status": "failed"},
            ]
        ):
            row = a_workflow("wf_1", **change)
            await store.append(a_batch("wf_1", version, workflow=row))
            assert await store.workflow("acme", "wf_1") == row
        assert await store.workflow("other", "wf_1") is None
        await store.append(a_batch("wf_1", 4, approvals=(an_approval("a"), an_approval("a", status="approved"))))
        assert await store.approval("acme", "a") == an_approval("a", status="approved")

    async def test_two_stores_do_not_overwrite_rows_with_what_they_remember(
        self, store: Store, another: Another
    ) -> None:
        second = await another()
        await store.append(a_batch(workflow=a_workflow("wf_1")))
        await second.append(a_batch(workflow=a_workflow("wf_1", status="blocked")))
        later = a_workflow("wf_1", updated_at="2026-11-21T09:00:00.000Z")
        await store.append(a_batch(workflow=later))
        assert await store.workflow("acme", "wf_1") == later

    async def test_lists_come_newest_first_page_by_page(self, store: Store) -> None:
        for n in range(7):
            at = f"2026-11-21T08:00:0{n // 2}.000Z"  # pairs have the same time
            rows: dict[str, Any] = {
                "workflow": a_workflow(f"wf_{n}", started_at=at),
                "approvals": (an_approval(f"appr_{n}", requested_at=at),),
                "effects": (an_effect(f"eff_{n}", updated_at=at),),
            }
            await store.append(a_batch(f"wf_{n}", 0, **rows))
        await store.append(a_batch("wf_x", 0, tenant="other", workflow=a_workflow("wf_x")))
        assert await pages(store.workflows, "workflow_id") == [f"wf_{n}" for n in range(6, -1, -1)]
        assert await pages(store.approvals, "approval_id") == [f"appr_{n}" for n in range(6, -1, -1)]
        assert await pages(store.effects, "effect_id") == [f"eff_{n}" for n in range(6, -1, -1)]

    async def test_lists_can_be_filtered(self, store: Store) -> None:
        rows = [
            a_workflow("wf_1"),
            a_workflow("wf_2", status="completed", owner="bob"),
            a_workflow("wf_3", template="other@2", blocked_on="approval"),
            a_workflow("wf_4", case_id="case-9", purpose="billing"),
        ]
        for row in rows:
            await store.append(a_batch(row.workflow_id, 0, workflow=row))
        for where, expected in [
            (Filter(status="completed"), {"wf_2"}),
            (Filter(owner="ann"), {"wf_1", "wf_3", "wf_4"}),
            (Filter(template="other@2"), {"wf_3"}),
            (Filter(blocked_on="approval"), {"wf_3"}),
            (Filter(workflow_id="wf_1"), {"wf_1"}),
            (Filter(extra={"case_id": "case-9"}), {"wf_4"}),
            (Filter(owner="ann", extra={"purpose": "billing"}), {"wf_4"}),
            (Filter(status="nothing"), set()),
        ]:
            found, cursor = await store.workflows("acme", where, Page())
            assert {row.workflow_id for row in found} == expected
            assert cursor is None

    async def test_approvals_and_effects_can_be_filtered(self, store: Store) -> None:
        approvals = (an_approval("a1"), an_approval("a2", status="approved"), an_approval("a3", tool=None, owner=None))
        effects = (an_effect("e1"), an_effect("e2", "in_doubt", instance="srv_2"))
        await store.append(a_batch(approvals=approvals, effects=effects))
        pending, _ = await store.approvals("acme", Filter(status="pending"), Page())
        assert {row.approval_id for row in pending} == {"a1", "a3"}
        by_tool, _ = await store.approvals("acme", Filter(extra={"tool": "casebook__reply"}), Page())
        assert {row.approval_id for row in by_tool} == {"a1", "a2"}
        in_doubt, _ = await store.effects("acme", Filter(status="in_doubt"), Page())
        assert in_doubt == [effects[1]]
        by_instance, _ = await store.effects("acme", Filter(extra={"instance": "srv_1"}), Page())
        assert by_instance == [effects[0]]

    async def test_what_a_list_cannot_do_is_refused(self, store: Store) -> None:
        for where, page in [
            (Filter(extra={"1=1 OR tenant": "x"}), Page()),
            (Filter(extra={"tenant": "other"}), Page()),
            (ALL, Page(limit=0)),
            (ALL, Page(limit=1_000_000)),
            (ALL, Page(after="nonsense")),
            (ALL, Page(after="bnVsbA")),
        ]:
            with pytest.raises(InvalidInput):
                await store.workflows("acme", where, page)
        with pytest.raises(InvalidInput):
            await store.approvals("acme", Filter(template="t"), Page())

    async def test_an_effect_that_has_ended_leaves_the_list(self, store: Store) -> None:
        await store.append(a_batch(effects=(an_effect("e1"), an_effect("e2"), an_effect("e3"))))
        ended = (an_effect("e1", "succeeded"), an_effect("e2", "failed"), an_effect("e3", "in_doubt"))
        await store.append(a_batch(effects=ended))
        assert await store.effects("acme", ALL, Page()) == ([ended[2]], None)
        assert await store.effect("acme", "e1") is None
        await store.append(a_batch(effects=(an_effect("e3", "resolved"),)))
        assert await store.effects("acme", ALL, Page()) == ([], None)


class TimeContract:
    async def test_what_is_due_comes_in_order_of_time_from_all_tenants(self, store: Store) -> None:
        assert await store.next_wake() is None
        for n, second in enumerate([3, 1, 2]):
            row = a_workflow(f"wf_{n}", wake_at=f"2026-11-21T08:00:0{second}.000Z")
            await store.append(a_batch(f"wf_{n}", 0, tenant=f"tenant-{n}", workflow=row))
        await store.append(a_batch("wf_9", 0, workflow=a_workflow("wf_9")))
        assert await store.next_wake() == "2026-11-21T08:00:01.000Z"
        assert await store.due("2026-11-21T08:00:00.999Z", 10) == []
        assert await store.due("2026-11-21T08:00:02.000Z", 10) == [Due("tenant-1", "wf_1"), Due("tenant-2", "wf_2")]
        assert await store.due("2026-11-21T08:00:09.000Z", 1) == [Due("tenant-1", "wf_1")]
        await store.append(a_batch("wf_1", 1, tenant="tenant-1", workflow=a_workflow("wf_1")))
        assert await store.next_wake() == "2026-11-21T08:00:02.000Z"

    async def test_running_effects_of_servers_that_ended_are_found(self, store: Store, another: Another) -> None:
        second = await another()
        await store.enlist("srv_1")
        await second.enlist("srv_2")
        mine, other = an_effect("e1", instance="srv_1"), an_effect("e2", instance="srv_2")
        never, doubt = an_effect("e3", instance="srv_never"), an_effect("e4", "in_doubt", instance="srv_never")
        await store.append(a_batch(effects=(mine, other)))
        await store.append(a_batch(tenant="other", effects=(never, doubt)))
        assert await store.running_effects_of_dead_instances() == [("other", never)]
        await second.close()
        found = await store.running_effects_of_dead_instances()
        assert sorted(found, key=lambda pair: pair[0]) == [("acme", other), ("other", never)]

    async def test_an_instances_name_cannot_leave_its_place(self, store: Store) -> None:
        for name in ["../x", "", ".", "a/b", "a\x00"]:
            with pytest.raises(InvalidInput):
                await store.enlist(name)


async def pages(list_page: Any, key: str) -> list[str]:
    """All ids that a list gives, two at a time."""
    found: list[str] = []
    cursor: str | None = None
    while True:
        rows, cursor = await list_page("acme", ALL, Page(limit=2, after=cursor))
        found += [getattr(row, key) for row in rows]
        if cursor is None:
            return found
