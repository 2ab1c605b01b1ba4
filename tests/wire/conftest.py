"""Asserts in the shared helpers explain themselves like those in test files."""

import pytest

pytest.register_assert_rewrite("tests.wire.contract")
