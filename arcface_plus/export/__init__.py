"""What leaves the package as files.

- ``embeddings.py``  ``arcface-plus embed``: embeddings of a collection as .npz or .parquet, in blocks
                     that an interrupted export keeps (``--resume``), by all ranks
"""
