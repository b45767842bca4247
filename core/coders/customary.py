"""Under which names programs look for the address of a model and for the key to it."""

from collections.abc import Collection, Mapping
from enum import StrEnum

from core.coders.coder import Api, Way


class ModelVariable(StrEnum):
    """What leads a program to its model, where the gateway has a way for it: ours, and what libraries look for."""

    MOSS_GATEWAY = "MOSS_GATEWAY"
    MOSS_GATEWAY_TOKEN = "MOSS_GATEWAY_TOKEN"
    ANTHROPIC_BASE_URL = "ANTHROPIC_BASE_URL"
    ANTHROPIC_API_KEY = "ANTHROPIC_API_KEY"
    OPENAI_BASE_URL = "OPENAI_BASE_URL"
    OPENAI_API_KEY = "OPENAI_API_KEY"
    GOOGLE_GEMINI_BASE_URL = "GOOGLE_GEMINI_BASE_URL"
    GEMINI_API_KEY = "GEMINI_API_KEY"


CUSTOMARY: Mapping[Api, tuple[ModelVariable, str, ModelVariable]] = {
    "anthropic": (ModelVariable.ANTHROPIC_BASE_URL, "/anthropic", ModelVariable.ANTHROPIC_API_KEY),
    "openai": (ModelVariable.OPENAI_BASE_URL, "/openai/v1", ModelVariable.OPENAI_API_KEY),
    "gemini": (ModelVariable.GOOGLE_GEMINI_BASE_URL, "/gemini", ModelVariable.GEMINI_API_KEY),
}
"""The address, what lies below the gateway's, and the key."""


def variables(way: Way, own: Collection[str] = ()) -> dict[str, str]:
    """Without those that somebody sets: a key of theirs must not be sent to us, nor our token to others."""
    env: dict[str, str] = {ModelVariable.MOSS_GATEWAY: way.url, ModelVariable.MOSS_GATEWAY_TOKEN: way.token}
    for api in way.apis:
        url, below, key = CUSTOMARY[api]
        if not {url, key} & set(own):
            env |= {url: way.url + below, key: way.token}
    return env
