"""Templates and 1:N search, from cosines that are exact to the last bit.

- ``products.py``        unit rows on a grid of 2⁻²⁶, whose float64 products have no rounding
- ``templates.py``       IJB 1:1: images pooled into templates, TAR at FAR over pairs of templates
- ``ijb.py``             IJB-B and IJB-C from a model or from embeddings to their numbers
- ``top_matches.py``     for each probe: the rank of its mate, the best score of anyone else
- ``nearest.py``         the rows of an index nearest to a query, by faiss or NumPy
- ``identification.py``  1:N: rank-k (closed set), TPIR at FPIR (open set)
- ``distractors.py``     MegaFace: one mate among N strangers, rank-1 and TAR at FAR

The rules for TAR at FAR are in ``pairs/roc.py``; docs/protocols.md states the protocols.
"""
