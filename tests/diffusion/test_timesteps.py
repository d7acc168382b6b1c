import pytest
import torch

from lwddpm.diffusion.timesteps import visited_timesteps

from .reference import T


@pytest.mark.parametrize("n", [1, 2, 3, 7, 50, 333, 999, 1000])
def test_visited_timesteps_fall_from_the_last_one(n):
    visited = visited_timesteps(T, n)
    assert len(visited) == n
    assert visited[0] == T - 1
    assert (visited.diff() < 0).all()
    gaps = -torch.cat([visited, torch.tensor([-1])]).diff()
    assert gaps.max() - gaps.min() <= 1


@pytest.mark.parametrize("n", [0, 1001])
def test_impossible_numbers_of_steps_are_refused(n):
    with pytest.raises(ValueError, match=f"num_inference_steps must be from 1 to 1000, got {n}"):
        visited_timesteps(T, n)
