"""Sphinx configuration; build with `make docs`."""

project = "RabbitMQ by Example"
author = "the RabbitMQ by Example authors"
copyright = f"2026, {author}"

extensions = ["sphinx_copybutton", "sphinx_design"]
exclude_patterns = ["_build"]
nitpicky = True
highlight_language = "python"
# An excerpt may end in blank lines, before the name that ends it.
highlight_options = {"python": {"stripnl": True}}

html_theme = "furo"
html_title = project
html_static_path = ["_static"]
html_css_files = ["page.css"]

# What is copied from a transcript is what the reader types.
copybutton_prompt_text = r"(?:shell\d)?\$ "
copybutton_prompt_is_regexp = True
