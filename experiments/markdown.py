"""Words from the data, written so that Markdown shows them as they are."""

import re


def escape(text: str) -> str:
    r"""The text without any meaning of its own in Markdown, on one line.

    An attribute may be named ``<script>``, or hold the bar that ends a table's cell.

    Example:
      >>> escape("a|b <script>")
      'a\\|b &lt;script&gt;'
    """
    text = text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return re.sub(r"([\\`*|\[\]])", r"\\\1", " ".join(text.split()))
