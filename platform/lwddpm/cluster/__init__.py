"""Ray: all that computes in parallel, and nothing else.

session       Ray for the length of a job: here or on a cluster; maps over its CPUs, or over the job's workers
train         a training on Ray Train; listener.py has what its workers tell the driver
trial         a trial of a search, as an actor of Ray Tune; searcher.py proposes them
generate      samples and features from a saved model, in chunks over the workers
exported      series for Prometheus
stop          signals, stop requests, the end of the process
settings      Ray's environment variables and log level, for the length of a block
network       the interface that workers of several nodes talk over
preemption    whether a node will end soon
"""
