"""Plain data out of other people's pickles, none of which is ever run.

- ``reader``: which instructions and names are allowed, and what is refused (``PlainUnpickler``);
  pair sets (``load_plain_pickle``).
- ``dictionaries``: dictionaries of text to data, as CIFAR's files are (``load_plain_dict``).
- ``arrays``: NumPy's constructors, redone from checked parts.

To read another kind of file, subclass ``PlainUnpickler`` with a longer ``dispatch`` and other
``NAMES``.
"""
