"""How the site is built; `make docs` calls it with warnings as errors."""

from __future__ import annotations

import os
import sys
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

from inventories import mapping  # noqa: E402 - after the path to it

import causalunet  # noqa: E402

project = "causalunet"
author = "the causalunet authors"
copyright = "2026, the causalunet authors"  # noqa: A001 - Sphinx's name
release = version = causalunet.__version__

extensions = [
    "mathml",
    "myst_nb",
    "numpydoc",
    "own_members",
    "schema_page",
    "study_pages",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinx_design",
    "sphinx_gallery.gen_gallery",
    "sphinxcontrib.bibtex",
]
exclude_patterns = [
    "_build",
    "_ext",
    "**/results",
    "gallery/*",
    "_gallery/*.ipynb",
    "**sg_execution_times.rst",
]
nitpicky = True
# Where xarray keeps these is its own business, and not in its documentation.
nitpick_ignore = [
    # What three spacings have in common; nobody else asks for it.
    ("py:class", "causalunet.design.spacings._OfSigma"),
    # What views by number, and models of pixels and without a reader, have in common.
    ("py:class", "causalunet.design.views.numbered.Numbered"),
    ("py:class", "causalunet.models.pixels.InPixels"),
    ("py:class", "causalunet.models.pixels.WithoutReader"),
    ("py:class", "xarray.core.indexes.Index"),
    ("py:class", "xarray.core.datatree.DataTree"),
]
templates_path = ["_templates"]

html_theme = "sphinx_book_theme"
html_title = "causalunet"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_logo = "_static/logo.svg"
html_favicon = "_static/logo.svg"
html_copy_source = False
html_math_renderer = "mathml"
html_context = {
    "default_mode": "auto"
}  # light or dark as the reader's system says; without it the theme warns
html_theme_options = {
    "logo": {"text": "causalunet"},
    "navbar_persistent": [],  # the search stands in the sidebar
    "show_navbar_depth": 1,
    "show_toc_level": 2,
    "home_page_in_toc": False,
    "use_download_button": False,
    "use_fullscreen_button": False,
    "pygments_light_style": "a11y-high-contrast-light",
    "pygments_dark_style": "a11y-high-contrast-dark",
}

myst_enable_extensions = [
    "amsmath",
    "attrs_inline",
    "colon_fence",
    "deflist",
    "dollarmath",
    "fieldlist",
]
myst_heading_anchors = 3

# Tutorials run on the embedded model, one after the other; what ran before and has not changed is taken from the cache.
nb_execution_mode = "cache"
nb_execution_cache_path = str(HERE / "_build" / "executed")
nb_execution_excludepatterns = ["_gallery/*"]
nb_execution_timeout = 900
nb_execution_raise_on_error = True
nb_execution_show_tb = True
nb_merge_streams = True
nb_output_stderr = "error"
os.environ["IPYTHONDIR"] = str(HERE / "_ipython")
os.environ["COLUMNS"] = "100"  # of tables that pages print
os.environ["PYTHONWARNINGS"] = (
    "ignore:IProgress not found"  # of tqdm, which nnsight imports
)

sphinx_gallery_conf = {
    "examples_dirs": "gallery",
    "gallery_dirs": "_gallery",
    "filename_pattern": r"\.py$",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_signature": False,
    "min_reported_time": 10_000,
    "image_scrapers": ("gallery_figures",),
    "capture_repr": (),
    "within_subsection_order": "FileNameSortKey",
}

autosummary_generate = True
default_role = "autolink"
autodoc_typehints = "none"  # numpydoc gives types in words
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_validation_checks = set()

bibtex_bibfiles = ["references.bib"]
bibtex_default_style = "unsrt"

intersphinx_mapping = mapping(HERE / "_build" / "inventories")
