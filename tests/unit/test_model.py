import pytest
import torch

from cfrec.model import EmbeddingNet

POST = {
    "user_factors.weight": (943, 50),
    "user_bias.weight": (943, 1),
    "movie_factors.weight": (1682, 50),
    "movie_bias.weight": (1682, 1),
}


def shapes(net):
    return {name: tuple(weight.shape) for name, weight in net.named_parameters()}


def test_forward_by_hand():
    net = EmbeddingNet(2, 3, n_factors=2)
    with torch.no_grad():
        net.user_factors.weight[1] = torch.tensor([1.0, 2.0])
        net.movie_factors.weight[2] = torch.tensor([3.0, -1.0])
        net.user_bias.weight[1] = 0.5
        net.movie_bias.weight[2] = -0.25
        net.offset.fill_(0.1)
    # 1*3 + 2*(-1) + 0.5 - 0.25 + 0.1 = 1.35;  5.5 / (1 + e^-1.35) = 4.3677
    stars = net(torch.tensor([1]), torch.tensor([2]))
    assert stars.shape == (1,)  # a batch of one stays a batch
    assert stars.item() == pytest.approx(4.3677, abs=1e-4)


def test_choose_by_hand():
    net = EmbeddingNet(2, 3, n_factors=2, traits=torch.tensor([[0.0], [0.0], [4.0]]))
    with torch.no_grad():
        net.user_choice.weight[1] = torch.tensor([1.0, 2.0, 0.5])
        net.movie_factors.weight[2] = torch.tensor([3.0, -1.0])
    # 1*3 + 2*(-1) + 0.5*4 = 3
    chosen = net.choose(torch.tensor([1]), torch.tensor([2]))
    assert chosen.shape == (1,)
    assert chosen.item() == pytest.approx(3.0)
    assert net.movie_features()[2].tolist() == [3.0, -1.0, 4.0]


def test_it_has_the_four_layers_of_the_post_and_nothing_else_to_learn():
    net = EmbeddingNet(943, 1682)
    assert shapes(net) == POST
    assert [type(layer).__name__ for layer in net.children()] == ["Embedding"] * 4
    assert set(net.state_dict()) == set(POST) | {"offset"}


@pytest.mark.parametrize("n_traits", [0, 6])
def test_choice_adds_one_layer_and_leaves_the_others_as_they_start(n_traits):
    four, five = (
        EmbeddingNet(943, 1682, traits=traits, generator=torch.Generator().manual_seed(1)) for traits in (None, torch.ones(1682, n_traits))
    )
    assert shapes(five) == POST | {"user_choice.weight": (943, 50 + n_traits)}
    assert all(torch.equal(weight, five.get_parameter(name)) for name, weight in four.named_parameters())


def test_weights_start_from_the_generator_alone():
    """Torch's global generator, which belongs to the caller, stays as it was."""
    torch.manual_seed(7)
    state = torch.get_rng_state()
    net = EmbeddingNet(943, 1682, generator=torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), state)
    for weight in net.parameters():
        assert weight.mean().item() == pytest.approx(0, abs=0.1)
        assert weight.std().item() == pytest.approx(1, abs=0.1)


def test_stars_stay_within_the_range():
    net = EmbeddingNet(1, 1, n_factors=1, y_range=(0.5, 5.5))
    row = torch.zeros(1, dtype=torch.int32)
    for bias, limit in ((-50.0, 0.5), (50.0, 5.5)):
        net.user_bias.weight.data.fill_(bias)
        assert net(row, row).item() == pytest.approx(limit)
