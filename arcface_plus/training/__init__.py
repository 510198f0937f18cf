"""Training: one optimizer step after another, on any number of ranks, resumable to the bit.

settings           learning rate, schedule, steps, second branch: their sections
trainer            the loop: what a step is, and what happens between steps
state              everything that changes from step to step; what a checkpoint holds, part by part
optim              which layers learn how fast or decay, by which optimizer; the gradient norm
updates/           optimizers of class rows, LAMB, the running average of the weights
schedule           the learning rate of a step
data_parallel      the net on all ranks: gradients averaged, compiled if wanted
precision          bf16, fp16 or fp32
determinism        on a GPU, operations that repeat to the bit
regularization     the angular penalty of a run on its layers and class weights, eq. (13) of MMA
second_branch      closeness and diversity: which images get a second pass, and its loss
guidance/          what embeddings by other nets add to the loss: distillation, compatibility
image_scores       the running score of every training image that the second branch chooses by
health/            non-finite numbers, spikes, the collapse, classes too near, unreadable images
log/               the numbers of a log line, where they go, and the profile of a few steps
"""
