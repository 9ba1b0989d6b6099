"""The site: sphinx-build -W docs site. Every link inside of it is checked while it is built."""

from __future__ import annotations

import jaxmat

project = "jaxmat-transfer"
author = "the authors of jaxmat-transfer"
release = jaxmat.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["README.md"]
html_theme = "furo"
html_title = f"{project} {release}"
html_show_sphinx = False
smartquotes = False  # would make one dash of the two before a flag

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3

autodoc_typehints = "signature"
autodoc_member_order = "bysource"
napoleon_google_docstring = True
napoleon_use_ivar = True
napoleon_use_rtype = False
