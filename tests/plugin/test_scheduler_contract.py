"""The contract of `scheduler_contract.py` on the installed vLLM."""

import pytest

from separate_pytest import check_separately


@pytest.mark.slow
def test_the_installed_vllm_keeps_the_contract(root):
    check_separately(root, "tests/support/scheduler_contract.py")
