"""Errors on pages are shown by their last line, as a reader reads them, without the builder's paths."""

c = get_config()  # type: ignore[name-defined]  # noqa: F821 - IPython hands it in
c.InteractiveShell.xmode = "Minimal"
c.HistoryManager.enabled = False
