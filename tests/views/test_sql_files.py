"""Ready views that are plain SQL files: whole, and every one of them in use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pipeline.views import sql_files
from pipeline.views.ready_views import ALL, CHARGES
from pipeline.views.sql_files import FOLDER, ready_view

FILES = sorted(path.stem for path in FOLDER.glob("*.sql"))


@pytest.mark.parametrize("name", FILES)
def test_every_file_is_a_view_that_readers_have_with_nothing_left_to_fill_in(name: str) -> None:
    [view] = [view for view in (*ALL, CHARGES) if view.name == name]
    assert view.select.startswith(("SELECT\n", "WITH ")) and not set("{}") & set(view.select)
    assert view.comment and all(view.columns.values())


def test_a_header_says_what_a_view_is_what_it_needs_and_what_each_column_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "of_two.sql").write_text(
        "-- What it is:\n-- two things\n--\n-- needs: energy, gpu\n--\n-- one: a: b\n--     and c\n-- two: d\n"
        "SELECT\n    -- a remark\n    1 AS one,\n    {two} AS two\n"
    )
    monkeypatch.setattr(sql_files, "FOLDER", tmp_path)
    view = ready_view("of_two", two="2")
    assert (view.name, view.comment, view.needs) == ("of_two", "What it is: two things", {"energy", "gpu"})
    assert view.columns == {"one": "a: b and c", "two": "d"}
    assert view.select == "SELECT\n    -- a remark\n    1 AS one,\n    2 AS two"
