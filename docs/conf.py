"""The documentation as a site: `make docs` writes it to build/docs/html, without a network."""

import hashlib
import sys
from importlib.metadata import version as installed_version
from pathlib import Path

DOCS = Path(__file__).parent
sys.path.insert(0, str(DOCS / "extensions"))

project = "fastdens"
author = "The fastdens developers"
project_copyright = author
version = release = installed_version("fastdens")
language = "en"

extensions = [
    "mathml",
    "myst_nb",
    "notebooks",
    "numpydoc",
    "reference",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_copybutton",
    "sphinx_design",
]
# What the benchmark writes is included in its page.
exclude_patterns = ["extensions", "benchmark"]
templates_path = ["_templates"]
nitpicky = True
# What other libraries document is named, not linked: their inventories would come from the network.
nitpick_ignore_regex = [
    (r"py:.*", r"(torch|numpy|np|matplotlib|sklearn|scipy|arviz|zarr)\..*"),
    (r"py:.*", r"(collections|pathlib|os|typing|abc|concurrent|contextlib)\..*"),
]

# Pages: MyST Markdown and notebooks.
myst_enable_extensions = ["amsmath", "attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 4
myst_links_external_new_tab = False
html_math_renderer = "mathml"

# Notebooks are committed without outputs and run when the site is built. What they gave is kept for as long as neither
# they nor the library change.
library = hashlib.sha256()
for source in sorted([*DOCS.parent.glob("fastdens/**/*.py"), *DOCS.parent.glob("kernels/**/*.py")]):
    library.update(source.read_bytes())
nb_execution_mode = "cache"
nb_execution_cache_path = str(DOCS.parent / "build" / "docs" / "notebooks" / library.hexdigest()[:16])
nb_execution_in_temp = True
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

# The reference: numpydoc's sections, in the order of the source. Types stand in the docstrings.
autosummary_generate = True
autodoc_typehints = "none"
autodoc_member_order = "bysource"
numpydoc_show_class_members = False
numpydoc_class_members_toctree = False

html_theme = "furo"
html_title = "fastdens"
html_static_path = ["_static"]
html_css_files = ["fastdens.css"]
html_favicon = "_static/logo_light.svg"
html_theme_options = {"light_logo": "logo_light.svg", "dark_logo": "logo_dark.svg"}
html_use_index = False
html_domain_indices = False
html_copy_source = False
html_show_sourcelink = False
html_show_sphinx = False
copybutton_prompt_text = r">>> |\.\.\. |\$ "
copybutton_prompt_is_regexp = True
