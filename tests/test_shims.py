"""A coder gets the programs themselves, and no shim that lets the repository choose among them."""

from pathlib import Path

from core.coders.shims import without_shims


def manager(where: Path, chosen: str | None, *versions: str) -> Path:
    (where / "shims").mkdir(parents=True)
    for version in versions:
        (where / "versions" / version / "bin").mkdir(parents=True)
    if chosen is not None:
        (where / "version").write_text(chosen)
    return where


def test_the_chosen_versions_stand_in_place_of_the_shims(tmp_path: Path) -> None:
    pyenv = manager(tmp_path / "pyenv", "3.11.7\n2.7\n", "2.7", "3.11.7", "3.12.1")
    found = without_shims(f"/first:{pyenv}/shims:/last")
    assert found == f"/first:{pyenv}/versions/3.11.7/bin:{pyenv}/versions/2.7/bin:/last"


def test_without_a_choice_the_machines_own_programs_are_left(tmp_path: Path) -> None:
    assert without_shims(f"{manager(tmp_path / 'a', None, '3.11')}/shims:/usr/bin") == "/usr/bin"
    assert without_shims(f"{manager(tmp_path / 'b', 'system', '3.11')}/shims:/usr/bin") == "/usr/bin"


def test_a_directory_that_only_has_the_name_stays(tmp_path: Path) -> None:
    (tmp_path / "shims").mkdir()
    assert without_shims(f"{tmp_path}/shims:/usr/bin") == f"{tmp_path}/shims:/usr/bin"
