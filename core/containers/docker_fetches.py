"""What the engine itself would fetch for a Dockerfile: it keeps the network from the steps of a build only.

Whatever may be read in two ways is refused: the Dockerfile is a candidate's.
"""

import re
from collections.abc import Iterator

from core.model.errors import BuildFailed

_ALLOW = "or set `build.network = true`"
_ENDS = (re.compile(r"\\[ \t]*$"), re.compile(r"(?<!\\)\\[ \t]*$"))
"""What makes a line go on: older engines and newer ones differ over two backslashes."""
_COMMENT = re.compile(r"\s*#")
_ESCAPE = re.compile(r"\s*#\s*escape\s*=\s*(?!\\\s*$)", re.IGNORECASE)
_ODD = re.compile(r"[\r\v\f\x1c-\x1f]")
_SPACE = re.compile(r"[\t\v\f\r ]+")
_PLAIN_ARG = re.compile(r"(\w+)=(\"?)([\w./:@-]+)\2")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")
_IMAGE = re.compile(r"[A-Za-z0-9][\w./:@-]*", re.ASCII)


def images(dockerfile: str) -> dict[str, int]:
    """The images that must be on the engine already, and in which line each is named. What would be fetched whatever
    is on the engine is a failed build."""
    lines = dockerfile.removeprefix("\ufeff").replace("\r\n", "\n").split("\n")
    for number, line in enumerate(lines, 1):
        if _ODD.search(line) or _ESCAPE.match(line):
            raise _problem(
                number, "is not read alike by everybody; end lines as usual and continue them by a backslash"
            )
    named: dict[str, int] = {}
    for ends in _ENDS:
        named |= _Reading().images(_instructions(lines, ends))
    return named


def approved(dockerfile: str) -> set[str]:
    """What one names that people stand by; nothing where it could be read in two ways."""
    try:
        return set(images(dockerfile))
    except BuildFailed:
        return set()


def _instructions(lines: list[str], ends: re.Pattern[str]) -> Iterator[tuple[int, str, str]]:
    """Line, name and rest of each instruction. Lines of a heredoc count too: the classic builder knows none."""
    parts: list[str] = []
    began = 0
    for number, line in enumerate([*lines, ""], 1):
        last = number > len(lines)
        if not last and (_COMMENT.match(line) or not line.strip()):
            continue
        began = began if parts else number
        parts.append(ends.sub("", line))
        if ends.search(line) and not last:
            continue
        whole, parts = "".join(parts).strip(), []
        name = "onbuild"
        while name == "onbuild" and whole:
            name, whole = (*_SPACE.split(whole, maxsplit=1), "")[:2]
            if not name.isascii():
                raise _problem(began, "begins with no instruction; correct it")
            name = name.lower()
        yield began, name, whole


class _Reading:
    def __init__(self) -> None:
        self._given: dict[str, str | None] = {}
        self._stages: set[str] = set()
        self._named: dict[str, int] = {}
        self._began = False

    def images(self, instructions: Iterator[tuple[int, str, str]]) -> dict[str, int]:
        for line, name, rest in instructions:
            match name:
                case "arg" if not self._began:
                    self._arg(rest)
                case "from":
                    self._from(line, rest)
                case "add" | "copy":
                    if name == "add" and _may_be_remote(rest):
                        raise _problem(
                            line, f"lets `ADD` fetch what it names; `COPY` a file of the repository, {_ALLOW}"
                        )
                    for stage in re.findall(r"--from=(\S+)", re.sub(r"[\"'\\]", "", rest)):
                        if stage.lower() not in self._stages and not (stage.isascii() and stage.isdecimal()):
                            self._image(line, stage)
        return self._named

    def _arg(self, rest: str) -> None:
        if plain := _PLAIN_ARG.fullmatch(rest):
            name, value = plain[1], plain[3]
            self._given[name] = value if self._given.get(name, value) == value else None
        else:
            self._given |= dict.fromkeys(re.findall(r"\w+", rest))

    def _from(self, line: int, rest: str) -> None:
        self._began = True
        image, *more = _SPACE.split(rest)
        if image.startswith("--"):
            raise _problem(
                line, f"wants an image of a platform, which may have to be fetched; take `--platform` out, {_ALLOW}"
            )
        image = _VARIABLE.sub(lambda found: self._given.get(found[1] or found[2]) or found[0], image)
        if image != "scratch" and image not in self._stages:
            self._image(line, image)
        if more:
            self._stages.add(more[-1].lower())

    def _image(self, line: int, image: str) -> None:
        if not _IMAGE.fullmatch(image) or ".." in image:
            raise _problem(line, f"names an image that only the engine can make out; write its plain name, {_ALLOW}")
        self._named.setdefault(image, line)


def _may_be_remote(rest: str) -> bool:
    words = _SPACE.split(re.sub(r"[\"']", "", rest))
    while words and words[0].startswith("--"):
        words.pop(0)
    sources = " ".join(words if words and words[0].startswith("[") else words[:-1]).lower()
    return "\\" in rest or any(sign in sources for sign in ("://", "git@", "$"))


def _problem(line: int, what: str) -> BuildFailed:
    return BuildFailed(f"The build has no network, and line {line} of the Dockerfile {what}.")
