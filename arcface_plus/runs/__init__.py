"""A run put together: from a YAML file to a folder with a trained and verified model.

configuration      all sections of a run, and the checks that concern two of them
durations          epochs to steps, learning rates per 512 images to those of the run
guides/            other nets that a run learns from or stays compatible with
build              net, head, state, loader and trainer from their sections
beginning          what classes begin as: class means, rows of another head; what the folder keeps
classes            what classes are called; ``classes.txt``
other_head         the class weights of other runs, and of arcface_torch
noisy_images       images that a run with several centres a class shows to be noise
train              ``ap.train``: the order in which a run is opened, checked, trained and saved
evaluation         what a run is scored on while it trains, and what it saves of that
folder             the run folder: when an old one may be used again, what a checkpoint may resume
lock               one run folder is trained by one run at a time
preemption         a run that is asked to stop: signals, the marker to queue it again
imports/           configurations of arcface_torch as ours
provenance         where a model comes from, for its card
results            what finished runs measured, read from their folders
"""
