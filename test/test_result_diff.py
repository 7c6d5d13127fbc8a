"""What changed between two results: hand-made changes are found, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import pytest

from etr_ros import result_files
from etr_ros.cli.main import main
from etr_ros.diff_sheet import write_sheet
from etr_ros.errors import DataError
from etr_ros.result import Outcome, Result
from etr_ros.result_diff import compare
from etr_ros.types import Pose, State
from result_maker import made_result


def with_loop(result: Result, **changes: object) -> Result:
    return dataclasses.replace(result, loops=(dataclasses.replace(result.loops[0], **changes), *result.loops[1:]))  # type: ignore[arg-type]


def test_a_result_does_not_differ_from_itself() -> None:
    found = compare(made_result(), made_result())
    assert not found and [*found.lines()] == ["nothing changed"]


def test_a_loop_that_is_no_longer_accepted_is_lost_and_back_again_gained() -> None:
    before, after = made_result(), with_loop(made_result(), accepted=False, reason="no support")
    assert [loop.query for loop in compare(before, after).lost] == [before.loops[0].query]
    assert [loop.query for loop in compare(after, before).gained] == [before.loops[0].query]
    assert "1 lost" in next(compare(before, after).lines())


def test_a_loop_with_another_relative_pose_has_moved() -> None:
    before = made_result()
    pose = before.loops[0].geometry.match_t_query
    assert pose is not None
    x, y, z = pose.position_m
    geometry = dataclasses.replace(before.loops[0].geometry, match_t_query=Pose((x + 0.25, y, z), pose.quat_xyzw))
    found = compare(before, with_loop(before, geometry=geometry))
    assert len(found.moved) == 1 and not found.lost
    assert any("0.250 m, 0.00 degrees" in line for line in found.lines())
    nowhere = dataclasses.replace(geometry, match_t_query=None)
    assert len(compare(before, with_loop(before, geometry=nowhere)).moved) == 1


def test_pictures_answered_otherwise_are_named() -> None:
    before = made_result()
    first, second, third, fourth, fifth = before.queries
    assert fourth.match is not None and first.match is not None
    other_place = dataclasses.replace(
        fourth.match,
        candidates=tuple(dataclasses.replace(c, accepted=not c.accepted) for c in fourth.match.candidates),
    )
    after = dataclasses.replace(
        before,
        queries=(
            dataclasses.replace(first, match=dataclasses.replace(first.match, state=State.AMBIGUOUS)),
            dataclasses.replace(second, outcome=Outcome.DROPPED, match=None),
            third,
            dataclasses.replace(fourth, match=other_place),
        ),
    )
    changes = compare(before, after).changes
    assert [(each.query, each.what) for each in changes] == [
        (first.name, "state"), (second.name, "outcome"), (fourth.name, "place"), (fifth.name, "picture"),
    ]  # fmt: skip
    assert (changes[3].before, changes[3].after) == ("there", "missing")


def test_settings_that_differ_are_told_first() -> None:
    other = dataclasses.replace(
        made_result(), manifest={**made_result().manifest, "config": {"loop": {"enabled": False}}}
    )
    assert next(compare(made_result(), other).lines()) == "config.loop.enabled: True -> False"


def test_long_lists_are_cut() -> None:
    many = dataclasses.replace(made_result(), queries=made_result().queries[:0])
    lines = [*compare(made_result(), many).lines(limit=2)]
    assert lines[-1] == "... and 3 more" and len(lines) == 4


def test_the_command_says_it_and_its_exit_code_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, result in (("a", made_result()), ("b", with_loop(made_result(), accepted=False, reason="no"))):
        result_files.write(tmp_path / name, result)
    a, b = str(tmp_path / "a"), str(tmp_path / "b")
    assert main(["diff", a, a]) == 0
    sheet = tmp_path / "sheet.png"
    assert main(["diff", a, b, "--pictures", str(sheet)]) == 1
    out = capsys.readouterr().out
    assert "nothing changed" in out and "1 lost" in out and f"{sheet}: 1 pairs" in out
    picture = cv2.imread(str(sheet))
    assert picture is not None and picture.shape[1] > 400
    assert main(["diff", a, str(tmp_path / "nothing")]) == 1
    assert "no result of `etr replay`" in capsys.readouterr().err


def test_a_sheet_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    a, b = made_result(), with_loop(made_result(), accepted=False, reason="no")
    with pytest.raises(DataError, match="cannot write the picture"):
        write_sheet(tmp_path / "nowhere" / "sheet.png", compare(a, b), (tmp_path, a), (tmp_path, b))
    assert "was not written" in write_sheet(tmp_path / "x.png", compare(a, a), (tmp_path, a), (tmp_path, a))
