"""What embeddings of the training images by other nets add to the loss of a step.

guidance     all of it together: what the trainer calls
teacher      distillation: losses against a teacher's embeddings, and the projection to them
old_classes  backward compatibility: the margin loss against an old net's class means
embeddings   the embeddings, by the places of the images
"""
