"""What concerns every test."""

import gc


def pytest_collection_finish() -> None:
    """All tests and all libraries are here to stay. Without this Python would look through them for garbage again and
    again, which is a quarter of a second each time."""
    gc.collect()
    gc.freeze()
