"""What somebody typed wrong, as one sentence with the mend: nothing of the library's own words."""

import re

from pydantic import ValidationError
from typer.exceptions import TyperException

from core.model.mistakes import in_words

_NO_VERB = re.compile(r"No such command '(?P<typed>.*?)'\.(?: Did you mean (?P<near>.*)\?)?", re.DOTALL)
_TOO_MUCH = re.compile(r"Got unexpected extra argument\(s\) \((?P<words>.*)\)", re.DOTALL)


def sentence(problem: TyperException) -> str:
    """The kinds of mistakes have no public classes in typer, so they are told by name; one that is not known here is
    still told, in the library's words."""
    context = getattr(problem, "ctx", None)
    where = context.command_path if context else "moss"
    look = f"`{where} --help` shows how"
    said = problem.format_message()
    match type(problem).__name__:
        case "NoArgsIsHelpError":
            return said
        case "NoSuchOption":
            near = " or ".join(f"`{name}`" for name in sorted(getattr(problem, "possibilities", None) or ()))
            mend = f"did you mean {near}?" if near else f"{look}."
            return f"`{where}` has no option `{getattr(problem, 'option_name', '')}`; {mend}"
        case "MissingParameter":
            return f"`{where}` needs {_name(problem)}; {look}."
        case "BadParameter":
            cause = problem.__cause__
            what = in_words(cause.errors()[0]) if isinstance(cause, ValidationError) else said.rstrip(".")
            return f"{_name(problem)}: {what}; {look}."
        case "BadOptionUsage":
            return f"`{getattr(problem, 'option_name', '')}` needs a value; write it behind the option."
    if found := _NO_VERB.fullmatch(said):
        near = (found["near"] or "").replace("'", "`")
        mend = f"did you mean {near}?" if near else "`moss help` lists all there are."
        return f"There is no verb `{where} {found['typed']}`; {mend}"
    if found := _TOO_MUCH.fullmatch(said):
        return f"`{where}` has no use for `{found['words']}`; {look}."
    return f"{said.rstrip('.')}; {look}."


def _name(problem: TyperException) -> str:
    """`--reason` for an option, `RUN` for an argument."""
    parameter = getattr(problem, "param", None)
    option = next((name for name in getattr(parameter, "opts", ()) if name.startswith("--")), None)
    return f"`{option or getattr(parameter, 'metavar', None) or 'a word'}`"
