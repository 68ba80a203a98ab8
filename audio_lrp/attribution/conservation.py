"""Where relevance goes: a ledger of every layer's relevance in, out, to the bias and to the stabilizer."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class LayerAccount:
    """One layer's relevance, for each explained output.

    Attributes:
        name: the layer's name in the network.
        layer: its class.
        rule: the rule that propagated its relevance.
        upper: relevance of its outputs, float64 [B] (all classes: [B, C]).
        lower: relevance of its inputs, same shape.
        to_bias: relevance that its biases took, same shape.
        to_stabilizer: relevance that the stabilizer of its denominators took, same shape.
    """

    name: str
    layer: str
    rule: str
    upper: Tensor
    lower: Tensor
    to_bias: Tensor
    to_stabilizer: Tensor

    @property
    def gap(self) -> Tensor:
        """What is unaccounted for, as a fraction of the largest amount in the account [B] (all classes: [B, C])."""
        return _fraction((self.upper - self.lower - self.to_bias - self.to_stabilizer).abs(), self.amount)

    @property
    def amount(self) -> Tensor:
        """The largest amount in the account, without its sign [B] (all classes: [B, C])."""
        return torch.stack([self.upper, self.lower, self.to_bias, self.to_stabilizer]).abs().amax(dim=0)


@dataclass(frozen=True, eq=False)
class Conservation:
    """What became of the relevance of the output.

    Attributes:
        explained: relevance that started at the output, float64 [B] (all classes: [B, C]).
        attributed: relevance that reached the input, same shape.
        layers: the ledger: the layers' accounts, from the input to the output, without those whose rules are not ours.
        complete: whether all relevance that was redistributed stands in the ledger, as it does by our rules.
    """

    explained: Tensor
    attributed: Tensor
    layers: tuple[LayerAccount, ...] = ()
    complete: bool = False

    @property
    def kept(self) -> float:
        """Relevance that reached the input as a fraction of what started at the output, over the whole batch."""
        return (self.attributed.sum() / self.explained.sum()).item()

    @property
    def error(self) -> float:
        """Largest gap of any layer (see `LayerAccount`) or between the layers, for any sample: rounding only."""
        return self._gaps.max().item()

    @property
    def largest_gap(self) -> str:
        """Where most is unaccounted for: the layer, or the operations between the layers."""
        largest = int(self._gaps.argmax())  # what is not a number is the largest
        if largest == len(self.layers):
            return "the operations between the layers"
        return f"layer {self.layers[largest].name!r} ({self.layers[largest].layer})"

    @property
    def _gaps(self) -> Tensor:
        """The largest gap of each layer, and last that between the layers, together: a GPU is waited for only once."""
        return torch.stack([*(account.gap.max() for account in self.layers), self._gap_between_layers])

    @property
    def _gap_between_layers(self) -> Tensor:
        """What neither reached the input nor stands in the ledger, as a fraction of the largest amount in it.

        0 where the ledger is not complete.
        """
        if not self.complete or not self.layers:
            return self.explained.new_zeros(())
        taken = sum((account.to_bias + account.to_stabilizer for account in self.layers), self.attributed)
        amounts = torch.stack([account.amount for account in self.layers]).amax(dim=0)
        return _fraction((self.explained - taken).abs(), amounts).max()

    def rows(self) -> list[dict[str, str | float]]:
        """The ledger as a table, layer by layer, averaged over the batch: for CSV files and data frames."""
        return [
            {
                "layer": account.name,
                "type": account.layer,
                "rule": account.rule,
                "upper": account.upper.mean().item(),
                "lower": account.lower.mean().item(),
                "to_bias": account.to_bias.mean().item(),
                "to_stabilizer": account.to_stabilizer.mean().item(),
                "gap": account.gap.max().item(),
            }
            for account in self.layers
        ]

    def table(self) -> str:
        """The ledger as text to print.

        Example:
            >>> one, none = torch.ones(1), torch.zeros(1)
            >>> account = LayerAccount("dense", "Linear", "Epsilon", one, 0.75 * one, 0.25 * one, none)
            >>> print(Conservation(one, 0.75 * one, (account,)).table())
            layer  type    rule     upper  lower  to_bias  to_stabilizer  gap
            dense  Linear  Epsilon  1      0.75   0.25     0              0
        """
        header = ("layer", "type", "rule", "upper", "lower", "to_bias", "to_stabilizer", "gap")
        body = [[cell if isinstance(cell, str) else f"{cell:.4g}" for cell in row.values()] for row in self.rows()]
        widths = [max(len(row[column]) for row in [header, *body]) for column in range(len(header))]
        lines = [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in [header, *body]
        ]
        return "\n".join(line.rstrip() for line in lines)


def joined(parts: Sequence[Conservation]) -> Conservation:
    """The conservation of a batch out of that of its parts, which have the same layers."""
    accounts = zip(*(part.layers for part in parts), strict=True)
    return Conservation(
        torch.cat([part.explained for part in parts]),
        torch.cat([part.attributed for part in parts]),
        tuple(
            LayerAccount(
                layer[0].name,
                layer[0].layer,
                layer[0].rule,
                *(
                    torch.cat([getattr(account, amount) for account in layer])
                    for amount in ("upper", "lower", "to_bias", "to_stabilizer")
                ),
            )
            for layer in accounts
        ),
        all(part.complete for part in parts),
    )


def _fraction(part: Tensor, whole: Tensor) -> Tensor:
    return part / whole.clamp(min=torch.finfo(torch.float32).tiny)
