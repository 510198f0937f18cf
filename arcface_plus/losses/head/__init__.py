"""The classifier head: margin softmax over classes that are split among ranks.

============  ======================================================================================
classifier    ``ClassifierHead``: the loss of a batch, from all shards
output        ``HeadOutput``: what it returns
centres       several rows a class (sub-centres), and which is the dominant one
scoring       the scores that one shard of classes gives all samples
margin_state  what a margin keeps between steps, and what it learns
plan          what the micro-batches of one optimizer step share
sampling      which classes take part in a step (Partial FC, CVPR 2022)
initial       the first class weights, the same at any number of ranks; class means
============  ======================================================================================
"""
