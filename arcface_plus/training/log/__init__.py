"""What a run says of itself.

window     the numbers of a log line, summed on the device
monitor    metrics.jsonl, progress bar, lines
trackers   CSV, TensorBoard, Weights & Biases: one interface
profiling  torch.profiler for a few steps: a trace and a table in the run folder
"""
