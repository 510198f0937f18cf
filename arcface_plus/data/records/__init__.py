"""InsightFace's and mxnet's record files: ``train.rec``, ``train.idx``, ``property``.

- ``recordio``: how a payload is framed: parts, magic words, a scan without an index.
- ``headers``: the header inside a payload, one at a time and by the million.
- ``index``: the ``.idx`` and ``property`` files; from key to byte offset.
- ``identities``: header-0: which keys are whose.
- ``reader``: ``RecordReader``: images by position, labels, identity ranges.
- ``writer``: ``RecordWriter``: the same bytes as mxnet's.
- ``cut``: whether a file was cut, and what is left.
- ``images``: a record file as a source of labelled images.
- ``parts``: several record files as one source.
- ``check``: what is wrong with a file, before training finds out (``data check``).
- ``sound``: a file that keeps all the rules of its headers, recognised in one pass.
- ``rules``: what a file is checked for.
- ``packing``: folders to records and back (``data pack``, ``data unpack``).
- ``subset``: some of the identities (``data subset``).
"""
