"""Settings of the documentation site: `make docs` builds it into build/docs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import reaugkd

if TYPE_CHECKING:
    from docutils import nodes
    from sphinx.application import Sphinx

project = "reaugkd"
author = "The reaugkd authors"
release = version = reaugkd.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
exclude_patterns = ["results/**"]  # data and generated reports; pages link to them as files

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3  # headings to this level can be linked to, as #their-words

default_role = "py:obj"  # docstrings write `name`: a link where the name is documented, else literal text
autodoc_class_signature = "separated"  # constructors of most classes are not for callers
autodoc_default_options = {"exclude-members": "__init__, __new__"}
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Keys", "params_style")]

html_theme = "furo"
html_title = f"reaugkd {release}"
html_show_copyright = False


def setup(app: Sphinx) -> None:
    """Register a mend of docstrings, and the list of external links, which a build without a network cannot follow."""
    links: set[str] = set()

    def collect(_app: Sphinx, tree: nodes.document, _name: str) -> None:
        found = (node.get("refuri", "") for node in tree.findall() if hasattr(node, "get"))
        links.update(uri for uri in found if uri.startswith(("http:", "https:")))

    def write(app: Sphinx, _error: Exception | None) -> None:
        (app.outdir / "external-links.txt").write_text("\n".join(sorted(links)) + "\n", encoding="utf-8")

    def keep_colon(_app: Sphinx, what: str, _name: str, _object: object, _options: object, lines: list[str]) -> None:
        """End a property's first line at its colon: napoleon takes what stands before a colon for a type."""
        if what == "property" and ": " in lines[0]:
            head, _, tail = lines[0].partition(": ")
            lines[:1] = [f"{head}:", tail]

    app.connect("autodoc-process-docstring", keep_colon, priority=400)
    app.connect("doctree-resolved", collect)
    app.connect("build-finished", write)
