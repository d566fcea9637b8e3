"""Each public name is listed once, and exists in the module that the list names."""

import buffer_pipeline


def test_each_public_name_is_found() -> None:
    """`__all__` matches the table of lazily imported names."""
    listed = [name for names in buffer_pipeline._MODULES.values() for name in names]

    assert sorted(listed) == sorted(buffer_pipeline.__all__)
    for name in buffer_pipeline.__all__:
        assert getattr(buffer_pipeline, name).__module__.startswith("buffer_pipeline.")
