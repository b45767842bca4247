"""What a change may touch and hold: the rule itself, and the rule on changes that real git made."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from core.model.errors import OutOfScope
from core.model.substrate import ALWAYS_PROTECTED, Scope
from core.repository import Change, Clone, check_scope
from core.repository.scope import Entry, added_lines
from tests.support.repositories import repository, write

GITHUB_TOKEN = "ghp_" + "a1B2c3D4e5F6g7H8i9J0" * 2

WHOLE = Scope()


def change(*entries: Entry, diff: str = "", insertions: int = 1, deletions: int = 0) -> Change:
    files = tuple(entry.path for entry in entries)
    return Change("tree", diff, "sha256:0", files, insertions, deletions, entries)


def added(path: str, **more: object) -> Entry:
    return Entry(path, "000000", "100644", **more)  # type: ignore[arg-type]


def edited(path: str, **more: object) -> Entry:
    return Entry(path, "100644", "100644", **more)  # type: ignore[arg-type]


def refusal(change: Change, scope: Scope = WHOLE, protected: tuple[str, ...] = ALWAYS_PROTECTED) -> str:
    with pytest.raises(OutOfScope) as raised:
        check_scope(change, scope, protected)
    return raised.value.sentence


def test_a_plain_change_is_inside_its_scope() -> None:
    check_scope(change(edited("src/agent.py"), added("src/naïve.py")), Scope(editable=("src/**",)), ALWAYS_PROTECTED)


def test_a_coder_that_changed_nothing_is_told_so() -> None:
    assert refusal(change()).startswith("The coder changed nothing;")


def test_protected_wins_over_editable_and_names_the_rule() -> None:
    said = refusal(change(edited("src/judge.py")), Scope(editable=("src/**",)), ("src/judge.py",))
    assert said == "src/judge.py is protected by `src/judge.py` and was changed; leave it as it is."
    assert "`.github/**`" in refusal(change(added(".github/workflows/x.yml")))
    assert "`**/.gitattributes`" in refusal(change(added("deep/down/.gitattributes")))


def test_what_is_not_editable_is_outside() -> None:
    said = refusal(change(edited("deploy/run.sh")), Scope(editable=("src/**", "lib/*.py")))
    assert said == "deploy/run.sh is outside of what may be edited (`src/**`, `lib/*.py`); leave it as it is."
    assert "outside" in refusal(change(edited("x.py")), Scope(editable=()))
    assert "outside" in refusal(change(edited("src/gen.py")), Scope(editable=("src/**", "!src/gen.py")))


def test_both_sides_of_a_rename_are_checked() -> None:
    gone = Entry("tests/test_agent.py", "100644", "000000")
    assert "protected by `tests/**`" in refusal(change(added("src/moved.py"), gone), protected=("tests/**",))
    assert "protected by `tests/**`" in refusal(
        change(Entry("src/a.py", "100644", "000000"), added("tests/new.py")), protected=("tests/**",)
    )


@pytest.mark.parametrize("path", [".GitHub/workflows/x.yml", ".github/Workflows/x.yml", "MOSS.TOML", ".ｇithub/x"])
def test_another_spelling_of_a_protected_path_is_protected_too(path: str) -> None:
    assert "is protected by" in refusal(change(added(path)))


@pytest.mark.parametrize(
    "path",
    [
        "src/../deploy/run.sh",
        "/etc/passwd",
        "src//agent.py",
        "./agent.py",
        "src\\agent.py",
        "src/a\u202egp.py",
        "src/a\u200bgent.py",
        "src/a\ngent.py",
        "src/agent.py.",
        "src/agent.py ",
        "src/.git /config",
        "src/GIT~1/config",
        "src/\u2028.py",
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: str) -> None:
    assert "choose another name" in refusal(change(added(path)), protected=())


def test_a_twin_of_another_path_is_refused() -> None:
    assert "differs from 'src/Agent.py' only in case" in refusal(change(added("src/agent.py", twin="src/Agent.py")))


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        (Entry("link", "000000", "120000"), "is a symbolic link"),
        (Entry("link", "120000", "120000"), "is a symbolic link"),
        (Entry("agent.py", "100644", "120000"), "is a symbolic link"),
        (Entry("sub", "000000", "160000"), "is a submodule"),
        (Entry("sub", "160000", "000000"), "is a submodule"),
        (Entry("agent.py", "100644", "100755"), "from 100644 to 100755"),
        (Entry("link", "120000", "100644"), "from 120000 to 100644"),
        (Entry("logo.png", "000000", "100644", binary=True), "is a binary file"),
        (Entry("big.py", "000000", "100644", size_bytes=1_000_001), "has 1000001 bytes, and at most 1000000"),
    ],
)
def test_only_plain_text_files_of_a_bearable_size_may_change(entry: Entry, words: str) -> None:
    assert words in refusal(change(entry))


def test_a_new_script_may_be_executable_and_a_binary_file_may_go() -> None:
    script, picture = Entry("run.sh", "000000", "100755"), Entry("old.png", "100644", "000000", binary=True)
    check_scope(change(script, picture), Scope(), ALWAYS_PROTECTED)


def test_a_change_too_large_is_refused() -> None:
    many = [edited(f"f{n}.py") for n in range(3)]
    assert refusal(change(*many), Scope(max_files=2)).startswith("The change touches 3 files, and at most 2")
    check_scope(change(*many), Scope(max_files=3), ())
    long = change(edited("a.py"), insertions=6, deletions=5)
    assert refusal(long, Scope(max_lines=10)).startswith("The change has 11 lines, and at most 10")
    check_scope(long, Scope(max_lines=11), ())


def test_a_name_that_is_a_secret_is_not_repeated() -> None:
    said = refusal(change(added(f"src/{GITHUB_TOKEN}.txt")))
    assert "GitHub token" in said
    assert GITHUB_TOKEN not in said


# --- on changes that git made


class Work:
    def __init__(self, root: Path, files: dict[str, str | bytes]) -> None:
        self.root, self.files, self.checkout = root, files, root / "checkout"

    async def open(self) -> "Work":
        self.base = repository(self.root / "owner", self.files)
        self.clone = await Clone.of(str(self.root / "owner"), self.root / "owner.git")
        await self.clone.checkout(self.base, self.checkout)
        return self

    async def change(self) -> Change:
        return await self.clone.snapshot(self.checkout, self.base)


@pytest.fixture
async def work(tmp_path: Path) -> Work:
    return await Work(tmp_path, {"src/agent.py": "a\nb\nc\n", "old.py": f'KEY = "{GITHUB_TOKEN}"\n'}).open()


async def test_a_secret_in_an_added_line_is_refused_and_not_repeated(work: Work) -> None:
    write(work.checkout, {"src/agent.py": f'a\nKEY = "{GITHUB_TOKEN}"\nc\n'})
    said = refusal(await work.change())
    assert said.startswith("The change puts a secret into src/agent.py (GitHub token)")
    assert GITHUB_TOKEN not in said


async def test_a_key_that_its_author_was_given_is_refused_and_not_repeated(work: Work) -> None:
    """It need not look like one."""
    keys = {"SHORT": "abc", "MODEL_KEY": "shapeless\nsecond line"}

    async def said(**files: str) -> str:
        write(work.checkout, {"src/agent.py": "a\nb\nc\n", **files})
        with pytest.raises(OutOfScope) as raised:
            check_scope(await work.change(), Scope(editable=("src/**",)), ALWAYS_PROTECTED, keys)
        return raised.value.sentence

    for text in ("# shapeless\n", 'KEY = "shapeless\\nsecond line"\n', "if abc:\n    second line\n"):
        refused = await said(**{"src/agent.py": text})
        assert (
            refused == "The change puts what MODEL_KEY holds into src/agent.py; read it from the environment instead."
        )
    refused = await said(**{"shapeless.md": "abc"})
    assert refused == "The name of a file holds what MODEL_KEY holds; choose another name."
    (work.checkout / "shapeless.md").unlink()
    write(work.checkout, {"src/agent.py": "abc\n"})
    check_scope(await work.change(), Scope(), ALWAYS_PROTECTED, keys)


async def test_the_clone_keeps_nothing_of_a_change_that_is_refused(work: Work) -> None:
    def objects() -> set[Path]:
        return set(work.clone.git_dir.glob("objects/??/*"))

    def allow(change: Change) -> None:
        check_scope(change, Scope(), ALWAYS_PROTECTED)

    write(work.checkout, {"src/agent.py": f'a\nKEY = "{GITHUB_TOKEN}"\nc\n'})
    before = objects()
    with pytest.raises(OutOfScope):
        await work.clone.snapshot(work.checkout, work.base, allow=allow)
    assert objects() == before
    write(work.checkout, {"src/agent.py": "a\nb\n"})
    change = await work.clone.snapshot(work.checkout, work.base, allow=allow)
    assert objects() > before
    assert await work.clone.diff(work.base, change.tree) == change.diff


async def test_few_lines_that_are_endless_are_too_much(work: Work) -> None:
    write(work.checkout, {f"src/{n}.py": "x" * 400_000 + "\n" for n in range(3)})
    assert refusal(await work.change()).startswith("The change adds 1200000 characters, and at most 1000000")


async def test_a_secret_that_only_goes_is_fine(work: Work) -> None:
    write(work.checkout, {"old.py": "KEY = None\n"})
    check_scope(await work.change(), Scope(), ALWAYS_PROTECTED)


@pytest.mark.parametrize(
    "hidden",
    [
        "x = 1\x0c%s\n",
        "x = 1\r%s\r\n",
        "x = 1\x1c%s\u2028\n",
        "+++ b/other.py\n@@ -1,0 +1,0 @@\n%s\n",
        "@@ -1,9 +1,9 @@\n-a\n+b\n%s",
        "--- a/x\n+++ b/x\n%s",
    ],
)
async def test_no_content_of_a_file_hides_a_secret_from_the_scan(work: Work, hidden: str) -> None:
    write(work.checkout, {"src/agent.py": hidden % GITHUB_TOKEN, "src/zoo.py": "last\n"})
    assert "GitHub token" in refusal(await work.change())


async def test_the_added_lines_of_a_diff_are_all_of_them_and_nothing_else(work: Work) -> None:
    write(work.checkout, {"src/agent.py": "a\n++ b\n-- c\n\n@@ d", "src/new.py": "one\ntwo"})
    assert added_lines((await work.change()).diff) == {"src/agent.py": "++ b\n-- c\n\n@@ d", "src/new.py": "one\ntwo"}


async def test_a_late_null_byte_makes_a_binary_file(work: Work) -> None:
    write(work.checkout, {"src/late.py": b"x" * 20_000 + b"\n\0\n"})
    assert "is a binary file" in refusal(await work.change())
    write(work.checkout, {"src/late.py": b"\0\1\2"})
    assert "src/late.py is a binary file" in refusal(await work.change())


async def test_a_line_that_reads_otherwise_than_it_runs_is_refused(work: Work) -> None:
    write(work.checkout, {"src/agent.py": "a\nif user != '\u202e\u2066admin':\nc\n"})
    assert "turn the direction of text" in refusal(await work.change())
    write(work.checkout, {"src/agent.py": "a\n// a note\u2028require('child_process')\nc\n"})
    assert "nobody sees" in refusal(await work.change())


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("x = 1  # \U000e0041\U000e0042 in tags", "nobody sees"),
        ("x = '\ufe01\ufe02\ufe03'", "nobody sees"),
        ("def \u3164(): ...", "nobody sees"),
        ("pass\xad_word = 1", "nobody sees"),
        ("x = 1" + " " * 120 + "; import os", "behind so many blanks"),
        ("x = 1" + "\t" * 100 + "# y", "behind so many blanks"),
        ("if r\u043ele == 'admin':", "pass for those of another alphabet"),
        ("def p\u03bfst(): ...", "pass for those of another alphabet"),
    ],
)
async def test_what_a_reader_of_the_diff_does_not_see_is_refused(work: Work, line: str, words: str) -> None:
    write(work.checkout, {"src/agent.py": f"a\n{line}\nc\n"})
    assert words in refusal(await work.change())


@pytest.mark.parametrize(
    "line",
    [
        "warn = '\u26a0\ufe0f be careful'",
        "hello = 'Привет, мир' if ru else 'Γειά σου'",
        "Δt = σ_x * 3  # µs",
        " " * 200 + "deep = 1",
        "a = 1" + " " * 60 + "# aligned",
        "x = 'Größe, naïve, 日本語'",
    ],
)
async def test_other_languages_and_signs_may_be_written(work: Work, line: str) -> None:
    write(work.checkout, {"src/agent.py": f"a\n{line}\nc\n"})
    check_scope(await work.change(), Scope(), ALWAYS_PROTECTED)


def test_a_name_in_letters_of_two_alphabets_is_refused() -> None:
    assert "two alphabets" in refusal(change(added("src/\u0430gent.py")))


async def test_a_twin_is_found_by_its_directory_too(work: Work) -> None:
    write(work.checkout, {"SRC/tool.py": "x\n"})
    assert "differs from 'src' only in case" in refusal(await work.change())


def out_of_the_checkout(folder: Path) -> None:
    (folder / "escape").symlink_to("/etc/passwd")


def up_and_out(folder: Path) -> None:
    (folder / "src" / "escape").symlink_to("../../../..")


def instead_of_a_directory(folder: Path) -> None:
    (folder / "src" / "agent.py").unlink()
    (folder / "src").rmdir()
    (folder / "src").symlink_to("/tmp")


@pytest.mark.parametrize("plant", [out_of_the_checkout, up_and_out, instead_of_a_directory])
async def test_a_link_is_refused_wherever_it_leads(work: Work, plant: Callable[[Path], None]) -> None:
    plant(work.checkout)
    assert "is a symbolic link" in refusal(await work.change())


async def test_a_mode_that_changed_is_seen(work: Work) -> None:
    os.chmod(work.checkout / "src" / "agent.py", 0o755)
    assert "from 100644 to 100755" in refusal(await work.change())


async def test_an_owners_odd_tree_does_not_stand_in_the_way(tmp_path: Path) -> None:
    files = {"agent.py": "a\n", "logo.png": b"\0", "Readme": "x\n", "README": "y\n", ".github/ci.yml": "x\n"}
    work = await Work(tmp_path, files).open()
    write(work.checkout, {"agent.py": "b\n"})
    check_scope(await work.change(), Scope(max_file_bytes=10), ALWAYS_PROTECTED)
