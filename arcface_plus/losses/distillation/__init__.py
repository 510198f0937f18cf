"""Losses of a student's embeddings against those of a teacher, one equation a file.

===========  =======================================================================================
cosine       the direction of each embedding
relational   the distances among the embeddings of a batch (Park et al., CVPR 2019)
===========  =======================================================================================
"""
