"""Rules by type and name of layer, from Python and from YAML."""

import jsonargparse
import pytest
import torch
import yaml
import zennit.composites
from torch import nn
from zennit.core import Composite

from audio_lrp.attribution import AlphaBeta, Epsilon, Flat, Gamma, RuleMap, ZBox, ZPlus, attribute, composite_by_name
from audio_lrp.errors import UserError


def network():
    torch.manual_seed(0)
    features = nn.Sequential(nn.Conv1d(1, 4, 3), nn.ReLU(), nn.Conv1d(4, 4, 3), nn.ReLU(), nn.Flatten())
    return nn.Sequential(features, nn.Linear(48, 8), nn.ReLU(), nn.Linear(8, 3))


def rules(composite):
    context = {}
    found = {name: composite.module_map(context, name, module) for name, module in network().named_modules()}
    return {name: rule for name, rule in found.items() if rule is not None}


def test_names_come_before_the_first_layer_and_types():
    composite = RuleMap(
        {"Conv1d": AlphaBeta(), "Linear": Epsilon()},
        names={"0.2": Gamma(0.1), "?": ZPlus()},
        first={"Convolution": ZBox(-1, 1)},
    )
    found = {name: type(rule).__name__ for name, rule in rules(composite).items()}
    expected = {"0.0": "ZBox", "0.1": "Pass", "0.2": "Gamma", "0.3": "Pass"}
    assert found == {"0": "ZPlus", **expected, "1": "ZPlus", "2": "ZPlus", "3": "ZPlus"}


def test_the_first_type_that_fits_counts():
    composite = RuleMap({"Conv1d": Gamma(), "Convolution": ZPlus(), "Linear": Epsilon(), "ReLU": Flat()})
    found = rules(composite)
    assert isinstance(found["0.0"], Gamma)
    assert isinstance(found["0.1"], Flat)


def test_a_map_equals_the_preset_with_the_same_rules():
    inputs = torch.randn(3, 1, 16)
    composite = RuleMap({"Convolution": AlphaBeta(2, 1), "Linear": Epsilon()})
    expected = attribute(network(), inputs, composite="epsilon_alpha2_beta1").relevance
    explanation = attribute(network(), inputs, composite=composite)
    assert torch.equal(explanation.relevance, expected)
    assert explanation.composite == "RuleMap"


YAML = """
composite:
  class_path: audio_lrp.attribution.RuleMap
  init_args:
    types:
      Convolution: {class_path: audio_lrp.attribution.AlphaBeta, init_args: {alpha: 1, beta: 0, bias: ignore}}
      Linear: {class_path: audio_lrp.attribution.Epsilon, init_args: {epsilon: 0.01}}
    names:
      "0.2": {class_path: zennit.rules.ZPlus}
    first:
      Conv1d: {class_path: audio_lrp.attribution.ZBox, init_args: {low: -3.0, high: 3.0}}
"""


def read(text):
    parser = jsonargparse.ArgumentParser(exit_on_error=False)
    parser.add_argument("--composite", type=str | Composite)
    return parser.instantiate(parser.parse_object(yaml.safe_load(text))).composite


def test_in_a_configuration():
    composite = read(YAML)
    found = rules(composite)
    assert found["0.0"].high == 3.0
    assert type(found["0.2"]).__module__ == "zennit.rules"
    assert found["1"].epsilon == 0.01
    in_python = RuleMap(
        {"Convolution": AlphaBeta(1, 0, bias="ignore"), "Linear": Epsilon(0.01)},
        names={"0.2": ZPlus()},
        first={"Conv1d": ZBox(-3, 3)},
    )
    inputs = torch.randn(3, 1, 16)
    relevance = attribute(network(), inputs, composite=composite).relevance
    torch.testing.assert_close(relevance, attribute(network(), inputs, composite=in_python).relevance)


def test_any_zennit_composite_in_a_configuration():
    composite = read("composite: {class_path: zennit.composites.EpsilonPlus, init_args: {epsilon: 0.1}}")
    assert isinstance(composite, zennit.composites.EpsilonPlus)
    assert read("composite: epsilon_plus") == "epsilon_plus"


@pytest.mark.parametrize("name", ["zennit_epsilon_plus", "zennit_epsilon_gamma_box", "zennit_epsilon_plus_flat"])
def test_stock_composites_by_name(name):
    assert type(composite_by_name(name, bounds=(0.0, 1.0))).__module__ == "zennit.composites"


def test_refuses_unknown_types():
    with pytest.raises(UserError, match="unknown type of layer 'Conv1D': did you mean 'Conv1d'"):
        RuleMap({"Conv1D": Epsilon()})


def test_refuses_names_that_no_layer_has():
    composite = RuleMap({"Linear": Epsilon(), "Convolution": Epsilon()}, names={"features.0": ZPlus()})
    with pytest.raises(UserError, match=r"no layer is called 'features\.0': the network has 0, 0\.0, 0\.1"):
        attribute(network(), torch.randn(3, 1, 16), composite=composite)
