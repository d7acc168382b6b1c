"""What tells a network of conditions: nothing at the start, a null token for what is not known, added to the rest."""

import pytest
import torch
from torch import nn

from lwddpm.conditions import NULL, Category, Combination, Number, Vocabulary
from lwddpm.config import ModelConfig
from lwddpm.models.build import build_model, count_parameters
from lwddpm.models.condition import ConditionEmbedding

SMALL = ModelConfig(dim=8, dim_mults=(1, 2))
VOCABULARY = Vocabulary(
    conditions=(Category(name="label", values=("a", "b", "c")), Number(name="position_mm", mean=0, spread=1)),
    combinations=(Combination(codes=(0,), count=1, numbers=((),)),),
    dropout=0.1,
)


@pytest.fixture
def embedding() -> ConditionEmbedding:
    torch.manual_seed(0)
    embedding = ConditionEmbedding(VOCABULARY, 16)
    nn.init.normal_(embedding.weight)
    return embedding


def test_a_condition_is_added_to_the_other(embedding: ConditionEmbedding) -> None:
    """The vectors of two conditions do not depend on each other."""
    rows = [[0.0, 0.5], [1.0, 0.5], [0.0, NULL], [1.0, NULL]]
    one, two, three, four = embedding(torch.tensor(rows))
    torch.testing.assert_close(two - one, four - three)
    assert not torch.allclose(one, two)


def test_a_null_token_is_a_vector_of_its_own(embedding: ConditionEmbedding) -> None:
    values = torch.tensor([[code, 0.0] for code in (NULL, 0, 1, 2)] + [[0, NULL]])
    vectors = embedding(values)
    assert vectors.isfinite().all()
    assert len({tuple(row.tolist()) for row in vectors}) == 5


def test_near_numbers_are_told_alike_and_far_ones_are_not(embedding: ConditionEmbedding) -> None:
    at = embedding(torch.tensor([[0, value] for value in (0.0, 0.01, 1.0, 3.0, -3.0)]))
    distances = (at - at[0]).norm(dim=1)
    assert distances[1] < 0.1 * distances[2:].min()


def test_a_conditional_network_is_the_unconditional_one_and_an_embedding() -> None:
    torch.manual_seed(0)
    plain = build_model(SMALL)
    torch.manual_seed(0)
    conditional = build_model(SMALL, vocabulary=VOCABULARY)
    assert all(torch.equal(conditional.state_dict()[name], value) for name, value in plain.state_dict().items())
    more = set(conditional.state_dict()) - set(plain.state_dict())
    assert more == {"condition_embedding.weight"}
    assert count_parameters(SMALL, None, VOCABULARY) - count_parameters(SMALL) == (4 + 9) * 8


def test_what_augmentation_tells_and_conditions_add_up() -> None:
    torch.manual_seed(0)
    network = build_model(SMALL, vocabulary=VOCABULARY)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, t, told, given = torch.randn(2, 1, 16, 16), torch.tensor([3, 700]), torch.randn(2, 8), torch.zeros(2, 2)
    both = network(x, t, told, given)
    embedded = network.condition_embedding(given)  # type: ignore[operator]
    unknown = network.condition_embedding(torch.full((2, 2), NULL))  # type: ignore[operator]
    torch.testing.assert_close(network(x, t, told + embedded - unknown), both, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(network(x, t, told), both)
