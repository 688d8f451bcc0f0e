"""Imported by the server that child processes are forked from, so that each of them starts with all of it loaded."""

from __future__ import annotations

import pytest  # noqa: F401  the main module of the tests, which children import
import torch
import torch._dynamo  # nnsight and meta tensors import it when first used

import causalunet.execute.fill.store_filler  # noqa: F401
from tests.trust import small

torch.set_num_threads(1)
small.model().anatomy  # noqa: B018  cached
