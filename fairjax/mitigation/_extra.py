"""The extra ``mitigation``."""

import functools

from fairjax._extra import extra

mitigation_extra = functools.partial(extra, "mitigation", needed_by="mitigation")
