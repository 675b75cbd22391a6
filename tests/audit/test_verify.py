"""Whatever is done to a log is found, and the first bad event is named (guarantee 7)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from charter.audit.checkpoint import Signer, origin_of
from charter.audit.findings import RULES, Report
from charter.audit.merkle import Tree
from charter.audit.verify import LogVerifier, SizedNote, verify_log
from charter.model.canonical import canonical
from tests.audit.logs import SIGNER, TENANT, Row, event, hashes_of, log_of, note, row

pytestmark = pytest.mark.guarantee("G7")

streams = st.lists(st.sampled_from(["wf_1", "wf_2", "$tenant"]), min_size=2, max_size=40)


@dataclass
class Ledger:
    """What a store holds, for an attacker to change: rows, leaf hashes by row, checkpoints and the head."""

    rows: list[Row]
    hashes: list[bytes]
    notes: list[SizedNote]
    head: tuple[int, bytes] | None = None

    def verify(self, page: int = 7, deep: bool = True) -> Report:
        verifier = LogVerifier(TENANT, [SIGNER.key], notes=self.notes, head=self.head, deep=deep)
        for start in range(0, len(self.rows), page):
            verifier.feed(self.rows[start : start + page], self.hashes[start : start + page])
        return verifier.finish()

    def rehash(self) -> None:
        """The attacker hashes anew all that he can; he cannot sign."""
        self.hashes = hashes_of(self.rows)
        self.head = len(self.rows), Tree(self.hashes).root()


@st.composite
def ledgers(draw: st.DrawFn) -> Ledger:
    rows = log_of(draw(streams))
    hashes = hashes_of(rows)
    sizes = {*draw(st.sets(st.integers(0, len(rows)))), len(rows)}
    return Ledger(rows, hashes, [note(hashes, size) for size in sizes], (len(rows), Tree(hashes).root()))


def first_bad(report: Report) -> int:
    assert report.first_bad is not None, report
    assert report.first_bad.seq is not None
    assert {finding.rule for finding in report.findings} <= RULES.keys()
    return report.first_bad.seq


def covers(report: Report, seq: int) -> bool:
    """Does the first finding name this event, or a stretch that it lies in?"""
    found = report.first_bad
    assert found is not None
    assert found.seq is not None
    return found.seq <= seq <= (found.seq if found.last_seq is None else found.last_seq)


@given(ledgers(), st.integers(1, 50), st.booleans())
def test_a_log_that_nobody_touched_verifies(ledger: Ledger, page: int, deep: bool) -> None:
    report = ledger.verify(page, deep)
    assert report.ok, report
    assert report.covered == report.size == len(ledger.rows)
    assert report.checkpoints == len(ledger.notes)
    assert report.root == Tree(ledger.hashes).root()


@given(ledgers(), st.data())
def test_an_edit_of_the_bytes_is_found_and_named(ledger: Ledger, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, len(ledger.rows) - 1))
    leaf = ledger.rows[seq].leaf
    at, flip = data.draw(st.integers(0, len(leaf) - 1)), data.draw(st.integers(1, 255))
    ledger.rows[seq] = ledger.rows[seq].but(leaf=leaf[:at] + bytes([leaf[at] ^ flip]) + leaf[at + 1 :])
    report = ledger.verify()
    assert first_bad(report) == seq
    assert report.first_bad is not None
    assert report.first_bad.event_id == f"evt_{seq:04d}"


@given(ledgers(), st.data())
def test_an_edit_by_somebody_who_hashes_anew_is_found_by_the_checkpoints(ledger: Ledger, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, len(ledger.rows) - 1))
    old = ledger.rows[seq]
    ledger.rows[seq] = row(seq, old.stream, old.version, event(seq, amount="9999"))
    ledger.rehash()
    report = ledger.verify()
    assert [finding.rule for finding in report.findings] == ["root_mismatch"]
    assert covers(report, seq)
    sizes = sorted(each.size for each in ledger.notes if each.size is not None)
    assert report.covered == max((size for size in sizes if size <= seq), default=0)


@given(ledgers(), st.sampled_from(["tenant", "stream", "version", "id", "type", "time"]), st.data())
def test_a_row_that_says_other_things_than_its_leaf_is_found(ledger: Ledger, name: str, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, len(ledger.rows) - 1))
    wrong = 77 if name == "version" else data.draw(st.sampled_from(["other", 'quo"te', "back\\slash", "é\n", "\ud800"]))
    ledger.rows[seq] = ledger.rows[seq].but(**{name: wrong})
    assert first_bad(ledger.verify(deep=False)) == seq


@given(ledgers(), st.data())
def test_a_deletion_is_found(ledger: Ledger, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, len(ledger.rows) - 1))
    count = data.draw(st.integers(1, len(ledger.rows) - seq))
    del ledger.rows[seq : seq + count], ledger.hashes[seq : seq + count]
    assert first_bad(ledger.verify()) == seq


@given(ledgers(), st.data())
def test_a_deletion_with_all_later_rows_moved_up_is_found(ledger: Ledger, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, len(ledger.rows) - 1))
    del ledger.rows[seq]
    ledger.rows[seq:] = [each.but(seq=each.seq - 1) for each in ledger.rows[seq:]]
    ledger.rehash()
    assert first_bad(ledger.verify()) == seq


@given(ledgers(), st.data())
def test_an_insertion_with_all_later_rows_moved_down_is_found(ledger: Ledger, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, len(ledger.rows) - 1))
    page = data.draw(st.integers(1, 9))
    ledger.rows[seq:] = [each.but(seq=each.seq + 1) for each in ledger.rows[seq:]]
    ledger.rows.insert(seq, row(seq, "wf_9", 1, event(900)))
    ledger.rehash()
    report = ledger.verify(page)
    assert first_bad(report) == seq
    assert any(finding.event_id == "evt_0900" for finding in report.findings)


@given(ledgers(), st.data())
def test_an_insertion_beside_a_row_is_found(ledger: Ledger, data: st.DataObject) -> None:
    seq = data.draw(st.integers(0, len(ledger.rows) - 1))
    ledger.rows.insert(seq + 1, row(seq, "wf_9", 1, event(900)))
    ledger.rehash()
    assert first_bad(ledger.verify()) == seq


@given(ledgers(), st.data())
def test_swapping_two_events_is_found(ledger: Ledger, data: st.DataObject) -> None:
    one = data.draw(st.integers(0, len(ledger.rows) - 2))
    two = data.draw(st.integers(one + 1, len(ledger.rows) - 1))
    rows = ledger.rows
    rows[one], rows[two] = rows[two].but(seq=one), rows[one].but(seq=two)
    ledger.rehash()
    assert first_bad(ledger.verify()) == one


@given(ledgers(), st.data())
def test_rows_in_another_order_are_found(ledger: Ledger, data: st.DataObject) -> None:
    shuffled = data.draw(st.permutations(ledger.rows))
    first = next((seq for seq, each in enumerate(shuffled) if each.seq != seq), None)
    ledger.rows = list(shuffled)
    ledger.rehash()
    report = ledger.verify()
    assert report.ok if first is None else first_bad(report) <= first


@given(ledgers(), st.data())
def test_a_copy_of_an_earlier_event_over_a_later_one_is_found(ledger: Ledger, data: st.DataObject) -> None:
    two = data.draw(st.integers(1, len(ledger.rows) - 1))
    one = data.draw(st.integers(0, two - 1))
    ledger.rows[two] = ledger.rows[one].but(seq=two)
    ledger.rehash()
    assert first_bad(ledger.verify()) == two


@given(ledgers(), st.data())
def test_truncation_is_found_against_any_checkpoint(ledger: Ledger, data: st.DataObject) -> None:
    left = data.draw(st.integers(0, len(ledger.rows) - 1))
    del ledger.rows[left:]
    ledger.rehash()
    report = ledger.verify()
    assert [finding.rule for finding in report.findings] == ["truncated"]
    assert first_bad(report) == left


@given(ledgers(), st.data())
def test_without_checkpoints_the_stored_head_still_shows_truncation(ledger: Ledger, data: st.DataObject) -> None:
    left = data.draw(st.integers(0, len(ledger.rows) - 1))
    del ledger.rows[left:], ledger.hashes[left:]
    ledger.notes = []
    assert first_bad(ledger.verify()) == left


@given(ledgers(), st.binary(max_size=30))
def test_bytes_that_are_not_canonical_are_found_by_the_deep_pass_even_when_signed(ledger: Ledger, pad: bytes) -> None:
    last = ledger.rows[-1]
    odd = [
        last.leaf.replace(b'"n":', b'"n": '),
        last.leaf.replace(b'"data":{', b'"data":{"z":1.0,'),
        last.leaf.replace(b',"id":', b',"extra":1,"id":'),
        b'{"actor":"' + pad + last.leaf[10:],
    ]
    for leaf in odd:
        ledger.rows[-1] = last.but(leaf=leaf)
        ledger.rehash()
        ledger.notes = [note(ledger.hashes, len(ledger.rows))]
        report = ledger.verify()
        assert [finding.rule for finding in report.findings] == ["leaf_bytes"]
        assert first_bad(report) == last.seq


def small() -> Ledger:
    rows = log_of(["wf_1"] * 10)
    hashes = hashes_of(rows)
    return Ledger(rows, hashes, [note(hashes, 4), note(hashes, 10)])


def forged(ledger: Ledger) -> None:
    ledger.notes[0] = note(ledger.hashes, 4, Signer.from_seed(origin_of(TENANT), b"x" * 32))


def garbled(ledger: Ledger) -> None:
    ledger.notes[0] = SizedNote(ledger.notes[0].note.replace(b"\n4\n", b"\n5\n"), 4)


def filed_wrongly(ledger: Ledger) -> None:
    ledger.notes[0] = SizedNote(ledger.notes[0].note, 5)


def of_another_tenant(ledger: Ledger) -> None:
    ledger.notes[0] = note(ledger.hashes, 4, Signer.from_seed(origin_of("rival"), bytes(range(32))))


@pytest.mark.parametrize("harm", [forged, garbled, filed_wrongly, of_another_tenant])
def test_a_bad_checkpoint_is_found_and_the_others_still_hold(harm: Callable[[Ledger], None]) -> None:
    ledger = small()
    harm(ledger)
    report = ledger.verify()
    assert [finding.rule for finding in report.findings] == ["checkpoint_invalid"]
    assert report.covered == 10


def test_checkpoints_that_contradict_each_other_are_found() -> None:
    ledger = small()
    other = hashes_of(log_of(["wf_2"] * 10))
    ledger.notes.append(note(other, 4))
    assert [finding.rule for finding in ledger.verify().findings] == ["checkpoint_fork"]
    ledger.notes = [note(ledger.hashes, 4), note(other, 6), note(ledger.hashes, 10)]
    report = ledger.verify()
    assert [(finding.rule, finding.seq, finding.last_seq) for finding in report.findings] == [("root_mismatch", 4, 5)]
    assert report.covered == 4


def test_events_before_a_break_are_still_compared_with_their_checkpoints() -> None:
    ledger = small()
    del ledger.rows[7], ledger.hashes[7]
    report = ledger.verify(page=100)
    assert (report.covered, report.root, first_bad(report)) == (4, None, 7)


def test_hashes_kept_by_sequence_number_show_what_a_deleted_row_was_not() -> None:
    ledger = small()
    del ledger.rows[3]
    report = verify_log(ledger.rows, TENANT, [SIGNER.key], notes=ledger.notes, hashes=ledger.hashes)
    assert [finding.rule for finding in report.findings] == ["seq_gap", "version_gap"]


def test_rows_after_the_stored_head_are_found() -> None:
    ledger = small()
    ledger.head = 8, Tree(ledger.hashes).root(8)
    assert [(each.rule, each.seq) for each in ledger.verify().findings] == [("head_mismatch", 8)]
    ledger.head = 10, Tree(ledger.hashes).root(8)
    assert [each.rule for each in ledger.verify().findings] == ["head_mismatch"]


def test_while_keys_are_rotated_both_are_trusted() -> None:
    ledger = small()
    new = Signer.from_seed(origin_of(TENANT), b"n" * 32)
    ledger.notes[1] = note(ledger.hashes, 10, new)
    assert verify_log(ledger.rows, TENANT, [SIGNER.key, new.key], notes=ledger.notes).covered == 10
    assert not verify_log(ledger.rows, TENANT, [SIGNER.key], notes=ledger.notes).ok


@settings(max_examples=5, deadline=None)
@given(st.integers(0, 2999), st.sets(st.integers(1, 3000), max_size=5))
def test_logs_of_many_chunks_have_the_same_roots(broken: int, sizes: set[int]) -> None:
    rows = BIG
    notes = [note(BIG_HASHES, size) for size in {*sizes, 1024, 2048, 3000}]
    assert verify_log(rows, TENANT, [SIGNER.key], notes=notes, hashes=BIG_HASHES, deep=False).covered == 3000
    changed = [*rows[:broken], row(broken, "wf_1", broken + 1, event(broken, amount="1")), *rows[broken + 1 :]]
    report = verify_log(changed, TENANT, [SIGNER.key], notes=notes, deep=False)
    assert covers(report, broken)


BIG = log_of(["wf_1"] * 3000)
BIG_HASHES = hashes_of(BIG)


def test_findings_do_not_grow_without_end() -> None:
    report = verify_log([each.but(stream="x") for each in BIG], TENANT, [SIGNER.key])
    assert len(report.findings) == 100
    assert report.more == 2900


def test_texts_that_need_escapes_take_the_slow_road_and_agree() -> None:
    odd = row(0, 'st"r\\e\nam', 1, event(0))
    assert verify_log([odd], TENANT, [SIGNER.key]).ok
    assert not verify_log([odd.but(stream='st\\"r\\\\e\\nam')], TENANT, [SIGNER.key]).ok


def test_an_empty_log_verifies_and_covers_nothing() -> None:
    report = verify_log([], TENANT, [SIGNER.key])
    assert (report.ok, report.size, report.covered) == (True, 0, 0)
    assert canonical(report.findings) == b"[]"
