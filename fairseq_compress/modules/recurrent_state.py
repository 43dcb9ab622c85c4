"""A recurrent unit in the place of a decoder layer's self-attention: its calling convention and its state."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
from fairseq.incremental_decoding_utils import FairseqIncrementalState
from torch import Tensor, nn

from fairseq_compress.errors import ConfigError

IncrementalState = dict[str, dict[str, Tensor | None]]
State = dict[str, Tensor]

_KEY = "recurrent_state"


class RecurrentUnit(FairseqIncrementalState, nn.Module):
    """A recurrent unit that fairseq's decoder layer calls in the place of ``self_attn``; C is ``embed_dim``.

    The cost of a decoding step does not depend on its position. Position t depends on those up to t only:
    ``attn_mask`` and ``full_context_alignment`` have no effect. Padding leaves the state unchanged.
    """

    get_incremental_state: Callable[..., Any]
    set_incremental_state: Callable[..., Any]

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        if embed_dim < 1:
            raise ConfigError(f"embed_dim: must be at least 1, got {embed_dim}")
        self.embed_dim = embed_dim
        self.num_heads = 1  # with head_dim what --scale-heads multiplies
        self.head_dim = embed_dim

    @property
    @abstractmethod
    def state_widths(self) -> dict[str, int]:
        """The name of each tensor (B, width) of the state, and its width."""

    @abstractmethod
    def scan(self, x: Tensor, padding: Tensor | None, state: State) -> tuple[Tensor, State]:
        """The outputs (T, B, C), in any floating type, of ``x`` (T, B, C), and the state after the last position.

        ``padding`` (B, T) is true at padding; ``state`` is that after the position before, empty before the first.
        """

    def forward(
        self,
        query: Tensor,
        key: Tensor | None = None,
        value: Tensor | None = None,
        key_padding_mask: Tensor | None = None,
        incremental_state: IncrementalState | None = None,
        need_weights: bool = False,
        static_kv: bool = False,
        attn_mask: Tensor | None = None,
        before_softmax: bool = False,
        need_head_weights: bool = False,
    ) -> tuple[Tensor, None]:
        """The outputs (T, B, C) in the type of ``query``, and None in the place of attention maps.

        Args:
            query: (T, B, C). With ``incremental_state`` the next T positions; else the whole sequence.
            key, value: None or the query itself; not read, as all arguments that are not named here.
            key_padding_mask: (B, T), true at padding.
            incremental_state: fairseq's, with the state after the former positions; updated here.
        """
        self._check(query, key, key_padding_mask)
        saved = self._get_input_buffer(incremental_state)
        output, state = self.scan(query, key_padding_mask, saved)
        if incremental_state is not None:
            if len(query) > 1:  # a view would keep all T states
                state = {name: tensor.clone() for name, tensor in state.items()}
            self._set_input_buffer(incremental_state, state)
        return output.to(query.dtype), None

    def reorder_incremental_state(self, incremental_state: IncrementalState, new_order: Tensor) -> IncrementalState:
        """Replace the state of row i by that of row ``new_order[i]``; ``new_order`` is (B',), int64."""
        saved = self._get_input_buffer(incremental_state)
        if saved:
            state = {name: tensor.index_select(0, new_order) for name, tensor in saved.items()}
            self._set_input_buffer(incremental_state, state)
        return incremental_state

    def extra_repr(self) -> str:
        state = " + ".join(f"(B, {width})" for width in self.state_widths.values())
        return f"embed_dim={self.embed_dim}, state of decoding: {state}"

    def _get_input_buffer(self, incremental_state: IncrementalState | None) -> State:
        """The state of decoding, empty before the first step."""
        saved: State | None = self.get_incremental_state(incremental_state, _KEY)
        return {} if saved is None else saved

    def _set_input_buffer(self, incremental_state: IncrementalState, buffer: State) -> IncrementalState:
        if buffer.keys() != self.state_widths.keys():
            raise ConfigError(
                f"incremental state of {type(self).__name__}: must hold {', '.join(self.state_widths)} and no keys and "
                f"values of attention, got {', '.join(buffer) or 'nothing'}"
            )
        return self.set_incremental_state(incremental_state, _KEY, buffer)

    def _check(self, query: Tensor, key: Tensor | None, padding: Tensor | None) -> None:
        length, batch, width = query.shape
        if width != self.embed_dim:
            raise ConfigError(f"query: must be (T, B, {self.embed_dim}), got {tuple(query.shape)}")
        if key is not None and key.shape != query.shape:
            raise ConfigError(
                f"key: must be the query, {tuple(query.shape)}, without --cross-self-attention, got {tuple(key.shape)}"
            )
        if padding is not None and padding.shape != (batch, length):
            raise ConfigError(f"key_padding_mask: must be (B, T) = {(batch, length)}, got {tuple(padding.shape)}")


def state_type(x: Tensor) -> torch.dtype:
    """The type that a state of inputs ``x`` is kept in: float32, float64 for float64."""
    return torch.promote_types(x.dtype, torch.float32)
