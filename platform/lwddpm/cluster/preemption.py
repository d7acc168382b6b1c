"""Whether the cluster has announced that a node of this worker's group will end soon."""


def preemption_announced() -> bool:
    """Whether Ray Train has told this worker of a preemption; False where this version of Ray cannot say so.

    Ray's public `ray.train.get_preemption_info` is a barrier: all ranks must call it equally often, at the cost of
    milliseconds, while rank 0 alone asks here. So this reads what Ray Train has told the worker, which is private to
    Ray; tests/cluster/test_preemption.py fails when a version moves it. Without it a preempted node costs what a lost
    one does: the steps since the last checkpoint.
    """
    try:
        from ray.train.v2._internal.execution.context import get_train_context

        return get_train_context().preemption_context.preemption_info is not None
    except (ImportError, AttributeError, RuntimeError):  # RuntimeError: not in a worker of Ray Train
        return False
