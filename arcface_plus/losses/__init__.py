"""Losses of embeddings: margins on a classifier's cosines, closeness and diversity, theory.

=============  =====================================================================================
margins/       what a margin does to a cosine: ArcFace's family, and one file an adaptive margin
head/          the classifier head: class weights split among ranks, with MMA on them
softmax        cross-entropy over split classes, with every digit of well-fitted samples
distillation/  a teacher's embeddings: their directions, the distances among them
closeness/     closeness and diversity (Zhao et al., ACCV 2022), and the classes most alike
theory/        uniform class weights, and what they let one predict
directions     unit embeddings with an exact gradient for every finite row
settings       the section ``head`` of a configuration
=============  =====================================================================================
"""
