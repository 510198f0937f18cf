"""A model in use: two photographs compared, one searched for, an index kept.

- ``compare.py``: ``compare A B``.
- ``search.py``: ``search --index X --query PHOTO``.
- ``index.py``: ``index remove PERSON``.
- ``photographs.py``: photographs read and embedded for ``compare`` and ``search``.
"""
