"""The site: Sphinx over the project's own pages, read where they lie.

The sources begin at the project's root, so that every link between pages works both on a forge and on the site.
`make docs` builds it; a warning, such as a link to nowhere, is an error.
"""

from prior_fast.version import __version__

project = "prior-fast"
author = "the prior-fast developers"
release = version = __version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
root_doc = "docs/site/index"
include_patterns = [
    *("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"),
    *("docs/**", "bench/results/*/README.md", "examples/README.md"),
]
html_extra_path = ["extra"]  # an index.html at the root, which leads to the front page

myst_enable_extensions = ["linkify"]
myst_heading_anchors = 4
myst_fence_as_directive: list[str] = []

# Docstrings write names between single backticks.
default_role = "code"
autodoc_default_options = {"exclude-members": "__new__, __init__"}
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_class_signature = "separated"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

html_theme = "furo"
html_title = f"prior-fast {__version__}"
html_show_sourcelink = False
html_copy_source = False
