"""What leaves the package as files.

- ``embeddings.py``  ``arcface-plus embed``: embeddings of a collection as .npz or .parquet, made by
                     all ranks in blocks that an interrupted export keeps (``--resume``)
"""
