"""What all tests share is in `tests/harness`; a failed assertion there is explained like one of a test."""

import pytest

pytest.register_assert_rewrite("tests.harness")
pytest_plugins = ["tests.harness.fixtures"]
