"""The extra ``data``."""

import functools

from fairjax._extra import extra

data_extra = functools.partial(extra, "data", needed_by="reading the imaging data sets")
