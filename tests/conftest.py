"""Two threads a test process cost tiny models more than they give."""

import torch


def pytest_configure() -> None:
    torch.set_num_threads(1)
