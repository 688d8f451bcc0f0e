"""Kernels that build pages say nothing of their connections."""

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - IPython hands it in
c.IPKernelApp.log_level = "ERROR"
