"""The site of these pages: `pip install -e '.[docs]'`, then `sphinx-build -n -W docs FOLDER`."""

project = "batchfox"
extensions = ["myst_parser"]
myst_heading_anchors = 4  # `page.md#a-heading` leads there, as on GitHub
html_theme = "furo"
html_title = "batchfox"
html_show_copyright = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
