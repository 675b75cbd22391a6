"""A file verifies with only the public key, and nothing in it can be changed unseen."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from charter.audit.checkpoint import Signer
from charter.audit.envelope import parse_leaf
from charter.audit.export import Header, Proven, leaf_line, read_header
from charter.audit.findings import Report
from charter.audit.merkle import Tree
from charter.audit.offline import verify_export
from charter.errors import InvalidInput
from tests.audit.exports import read_leaves, write_log, write_workflow
from tests.audit.logs import SIGNER, TENANT, event, hashes_of, log_of, note, row

VKEY = str(SIGNER.key)
ROWS = log_of(["wf_1", "$tenant", "wf_1", "wf_2", "wf_1", "wf_2", "wf_1", "$tenant", "wf_1"])
HASHES = hashes_of(ROWS)
NOTES = [note(HASHES, 4).note, note(HASHES, 9).note]
LOG = list(write_log(Header(TENANT, vkeys=(VKEY,)), NOTES, [each.leaf for each in ROWS]))
TREE = Tree(HASHES)
MINE = [Proven(each.leaf, each.seq, 9, TREE.inclusion(each.seq)) for each in ROWS if each.stream == "wf_1"]
WORKFLOW = list(write_workflow(Header(TENANT, "wf_1", (VKEY,)), NOTES[1:], MINE))


def rules(lines: list[bytes]) -> list[str]:
    return [finding.rule for finding in verify_export(lines, [VKEY]).findings]


def first(report: Report) -> int | None:
    assert report.first_bad is not None, report
    return report.first_bad.seq


def test_a_whole_log_verifies_offline() -> None:
    report = verify_export(LOG, [VKEY])
    assert report.ok, report
    assert (report.size, report.covered, report.checkpoints, report.root) == (9, 9, 2, TREE.root())


def test_a_workflow_verifies_offline() -> None:
    report = verify_export(WORKFLOW, [SIGNER.key])
    assert report.ok, report
    assert (report.size, report.covered, report.root) == (5, 5, None)


def test_each_line_is_json_and_the_events_are_readable() -> None:
    for line in LOG + WORKFLOW:
        assert line.endswith(b"\n")
        assert isinstance(json.loads(line), dict)
    assert [parse_leaf(leaf).id for leaf in read_leaves(LOG)] == [each.id for each in ROWS]
    assert read_header(WORKFLOW[0]) == Header(TENANT, "wf_1", (VKEY,))


def test_the_files_own_keys_are_not_trusted() -> None:
    thief = Signer.from_seed(SIGNER.key.name, b"t" * 32)
    rows = log_of(["wf_9"] * 3)
    hashes = hashes_of(rows)
    lines = write_log(
        Header(TENANT, vkeys=(str(thief.key),)), [note(hashes, 3, thief).note], [each.leaf for each in rows]
    )
    assert rules(list(lines)) == ["uncovered", "checkpoint_invalid"]
    with pytest.raises(InvalidInput):
        verify_export(LOG, [])


@given(st.integers(3, 11), st.data())
def test_an_edit_is_found_and_named(at: int, data: st.DataObject) -> None:
    line = LOG[at]
    place, flip = data.draw(st.integers(8, len(line) - 3)), data.draw(st.integers(1, 255))
    changed = line[:place] + bytes([line[place] ^ flip]) + line[place + 1 :]
    report = verify_export([*LOG[:at], changed, *LOG[at + 1 :]], [VKEY])
    found = report.first_bad
    assert found is not None
    assert found.seq is not None
    # Where only a checkpoint tells, it is known between which checkpoints it lies.
    assert found.seq <= at - 3 <= (found.seq if found.last_seq is None else found.last_seq)


@given(st.integers(3, 11))
def test_a_deletion_is_found_and_named(at: int) -> None:
    assert first(verify_export([*LOG[:at], *LOG[at + 1 :]], [VKEY])) == at - 3


@given(st.integers(3, 11), st.booleans())
def test_an_insertion_is_found_and_named(at: int, copy: bool) -> None:
    extra = LOG[at] if copy else leaf_line(row(at - 3, "wf_9", 1, event(900)).leaf)
    assert first(verify_export([*LOG[:at], extra, *LOG[at:]], [VKEY])) == at - 3


@given(st.integers(3, 10), st.data())
def test_a_swap_is_found_and_named(one: int, data: st.DataObject) -> None:
    two = data.draw(st.integers(one + 1, 11))
    lines = list(LOG)
    lines[one], lines[two] = lines[two], lines[one]
    assert first(verify_export(lines, [VKEY])) == one - 3


@given(st.integers(3, 11))
def test_a_file_cut_off_is_found_even_with_a_new_end(at: int) -> None:
    assert "export_malformed" in rules(LOG[:at])
    assert first(verify_export([*LOG[:at], b'{"leaves":%d}\n' % (at - 3)], [VKEY])) == at - 3


def test_events_after_the_last_checkpoint_are_told() -> None:
    lines = list(write_log(Header(TENANT), NOTES[:1], [each.leaf for each in ROWS]))
    report = verify_export(lines, [VKEY])
    assert [(each.rule, each.seq, each.last_seq) for each in report.findings] == [("uncovered", 4, 8)]


@given(st.integers(0, 4), st.data())
def test_no_event_of_a_workflow_can_be_changed_left_out_or_moved(index: int, data: st.DataObject) -> None:
    at = 2 + 2 * index
    leaf = WORKFLOW[at]
    place, flip = data.draw(st.integers(8, len(leaf) - 3)), data.draw(st.integers(1, 255))
    changed = [*WORKFLOW[:at], leaf[:place] + bytes([leaf[place] ^ flip]) + leaf[place + 1 :], *WORKFLOW[at + 1 :]]
    assert not verify_export(changed, [VKEY]).ok
    left_out = [*WORKFLOW[:at], *WORKFLOW[at + 2 :]]
    assert rules(left_out) == (["version_gap"] if index < 4 else []) + ["export_malformed"]
    if index:
        moved = [*WORKFLOW[: at - 2], *WORKFLOW[at : at + 2], *WORKFLOW[at - 2 : at], *WORKFLOW[at + 2 :]]
        assert "version_gap" in rules(moved)


def test_an_event_needs_its_own_proof() -> None:
    swapped = list(WORKFLOW)
    swapped[3], swapped[5] = swapped[5], swapped[3]
    assert rules(swapped) == ["proof_invalid", "proof_invalid"]
    without = [*WORKFLOW[:3], *WORKFLOW[4:]]
    assert rules(without) == ["proof_invalid"]
    assert "export_malformed" in rules([*WORKFLOW[:2], *WORKFLOW[3:]])
    assert rules([WORKFLOW[0], *WORKFLOW[2:]]) == ["proof_invalid"] * 5


def test_events_of_another_workflow_do_not_belong() -> None:
    mixed = list(write_workflow(Header(TENANT, "wf_2"), NOTES[1:], MINE))
    assert rules(mixed) == ["row_mismatch"] * 5
    rival = list(write_log(Header("rival"), NOTES, [each.leaf for each in ROWS]))
    assert {"row_mismatch", "checkpoint_invalid"} == set(rules(rival))


def test_damaged_leaves_are_exported_as_they_are() -> None:
    odd = [b"\xff\n", b"", b"{\n}", b"{}"]
    lines = list(write_log(Header(TENANT), [], odd))
    assert list(read_leaves(lines)) == odd
    assert rules(lines)[:4] == ["leaf_bytes"] * 4


@pytest.mark.parametrize(
    "line", [b"", b"null", b"{}", b'{"charter_export":2}', LOG[0].replace(b'"log"', b'"workflow"'), LOG[0][:-3]]
)
def test_what_is_no_export_is_refused(line: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        verify_export([line, *LOG[1:]], [VKEY])
    assert caught.value.error_code == "export_malformed"


@given(st.lists(st.binary(max_size=30) | st.sampled_from(LOG + WORKFLOW), max_size=12), st.booleans())
def test_noise_is_reported_calmly(noise: list[bytes], whole: bool) -> None:
    verify_export([LOG[0] if whole else WORKFLOW[0], *noise], [VKEY])


def test_the_format_does_not_change() -> None:
    assert LOG[0].decode() == (
        '{"charter_export":1,"kind":"log","origin":"charter/acme","tenant":"acme","vkeys":["' + VKEY + '"]}\n'
    )
    assert LOG[3] == b'{"leaf":' + ROWS[0].leaf + b"}\n"
    assert LOG[-1] == b'{"leaves":9}\n'
    assert list(json.loads(WORKFLOW[3])) == ["path", "seq", "size"]
